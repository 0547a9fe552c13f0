import { lstat, readlink, symlink, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'

/**
 * For a daemon that may not bind-mount: `DIR/rootfs.img` is a symbolic link to the image file in the FUSE mount.
 * The mount goes with the daemon, so nothing stands when one starts.
 */
export class LinkPlacement {
  async standing(): Promise<Set<string>> {
    return new Set()
  }

  /** @throws missing where there is no such directory; conflict where it has a rootfs.img that is not such a link */
  async place(source: string, directory: string, { signal }: { signal: AbortSignal }): Promise<void> {
    signal.throwIfAborted()
    const link = join(directory, 'rootfs.img')
    const target = join(source, 'rootfs.img')
    const there = await lstat(link).catch(() => undefined)
    if (there?.isSymbolicLink() === true && (await readlink(link)).endsWith('/rootfs.img')) await unlink(link)
    try {
      await symlink(target, link)
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException
      if (code === 'ENOENT') throw new P2pfsError('missing', `no such directory: ${directory}; make it first`, { cause, directory })
      throw new P2pfsError('conflict', `cannot put rootfs.img into ${directory}: ${(cause as Error).message}`, { cause, directory })
    }
  }

  async remove(directory: string): Promise<void> {
    await unlink(join(directory, 'rootfs.img')).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
    })
  }
}
