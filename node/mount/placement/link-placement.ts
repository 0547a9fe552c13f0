import { readlink, symlink, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { MountSpec, Placed, Placement } from './placement.ts'

/**
 * For a daemon that may not mount: `DIR/rootfs.img` is a symbolic link to the image file in the FUSE mount.
 * The mount goes with the daemon, so nothing stands when one starts.
 */
export class LinkPlacement implements Placement {
  readonly #mountPoint: string

  /** @param options `mountPoint` of the FUSE filesystem */
  constructor({ mountPoint }: { mountPoint: string }) {
    this.#mountPoint = mountPoint
  }

  async standing(): Promise<Set<string>> {
    return new Set()
  }

  /** @throws missing where there is no such directory; conflict where it has a rootfs.img that is not such a link; unsupported for all but a drive */
  async place(
    { directory, rootfs, as, scratchBytes }: MountSpec,
    { signal }: { signal: AbortSignal },
  ): Promise<Placed> {
    signal.throwIfAborted()
    if (as !== 'drive' || scratchBytes !== undefined) {
      throw new P2pfsError(
        'unsupported',
        'this daemon runs with --fuse-driver native, which mounts drives only, without a scratch; run one as root without that option',
      )
    }
    const link = join(directory, 'rootfs.img')
    const target = join(this.#mountPoint, rootfs, 'rootfs.img')
    await this.#unlink(directory)
    try {
      await symlink(target, link)
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException
      if (code === 'ENOENT')
        throw new P2pfsError('missing', `no such directory: ${directory}; make it first`, { cause, directory })
      throw new P2pfsError('conflict', `cannot put rootfs.img into ${directory}: ${(cause as Error).message}`, {
        cause,
        directory,
      })
    }
    return { rootfs: link }
  }

  async reset({ directory }: MountSpec): Promise<Placed> {
    throw new P2pfsError('invalid', `${directory} has nothing to reset`, { directory })
  }

  async remove({ directory }: MountSpec): Promise<void> {
    await this.#unlink(directory)
  }

  async end(specs: readonly MountSpec[]): Promise<void> {
    for (const { directory } of specs) await this.#unlink(directory)
  }

  async release(): Promise<boolean> {
    return true
  }

  async tidy(): Promise<void> {
    // Nothing outlives the daemon.
  }

  /** Removes rootfs.img if it is a link of ours. */
  async #unlink(directory: string): Promise<void> {
    const link = join(directory, 'rootfs.img')
    const target = await readlink(link).catch(() => '')
    if (target.startsWith(`${this.#mountPoint}/`)) await unlink(link)
  }
}
