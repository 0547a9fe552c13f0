import { readlink, realpath, symlink, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { MountSpec, Place, PlacedMount, Placement, Reads } from './placement.ts'

/**
 * For a daemon that may not mount: `DIR/rootfs.img` is a symbolic link to the image file in the FUSE mount. The FUSE
 * mount ends with the daemon, so nothing stands when one starts. The path of the directory is the identity of such a
 * mount.
 */
export class LinkPlacement implements Placement {
  readonly #mountPoint: string

  /** @param options `mountPoint`: of the FUSE filesystem */
  constructor({ mountPoint }: { mountPoint: string }) {
    this.#mountPoint = mountPoint
  }

  async locate(directory: string): Promise<Place | undefined> {
    const path = await realpath(directory).catch(() => undefined)
    return path === undefined ? undefined : { path, identity: path }
  }

  async standing(): Promise<Map<string, string>> {
    return new Map()
  }

  async reads(specs: readonly MountSpec[]): Promise<Map<string, Reads>> {
    return new Map(specs.map(({ id }) => [id, 'fuse']))
  }

  /**
   * @throws missing if there is no such directory; conflict if it has a rootfs.img that is not such a link; unsupported
   * for all but a drive
   */
  async place(
    { directory, rootfs, as, scratchBytes, owner }: MountSpec,
    { signal }: { signal: AbortSignal },
  ): Promise<PlacedMount> {
    signal.throwIfAborted()
    if (as !== 'drive' || scratchBytes !== undefined) {
      throw new P2pfsError(
        'unsupported',
        'this daemon runs with --fuse-driver native, which mounts drives only, without a scratch; ' +
          'run one as root without that option',
      )
    }
    if (owner !== undefined)
      throw new P2pfsError(
        'unsupported',
        '--owner: this daemon runs with --fuse-driver native, whose drives only its own user reads; run one as root ' +
          'without that option, or run the VM as the user of this one',
      )
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
    return { placed: { rootfs: link }, reads: 'fuse', identity: await realpath(directory) }
  }

  async reset({ directory }: MountSpec): Promise<PlacedMount> {
    throw new P2pfsError('invalid', `${directory} has nothing to reset`, { directory })
  }

  async remove({ directory, identity = directory }: MountSpec): Promise<void> {
    await this.#unlink(identity)
  }

  async end(specs: readonly MountSpec[]): Promise<void> {
    for (const { directory, identity = directory } of specs) await this.#unlink(identity)
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
