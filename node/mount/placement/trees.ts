import { mkdir, readdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { RootfsFormat } from '../../../protocol/rootfs-manifest.ts'
import type { KernelMounter } from './kernel-mounter.ts'
import { readMounts } from './mountinfo.ts'

/** Kernel mounts of rootfs images: one for each image, whatever the number of directories it is bound to, so that all share its pages. */
export class Trees {
  readonly #mounter: KernelMounter
  readonly #directory: string
  readonly #mountPoint: string

  /** @param mountPoint of the FUSE filesystem */
  constructor(
    { mounter }: { mounter: KernelMounter },
    { directory, mountPoint }: { directory: string; mountPoint: string },
  ) {
    this.#mounter = mounter
    this.#directory = directory
    this.#mountPoint = mountPoint
  }

  /** Where the tree of this rootfs is mounted; mounts it if it is not. @throws unavailable */
  async mount(rootfs: string, format: RootfsFormat): Promise<string> {
    const directory = join(this.#directory, rootfs)
    if ((await readMounts()).some(({ mountPoint }) => mountPoint === directory)) return directory
    await mkdir(directory, { recursive: true, mode: 0o700 })
    await this.#mounter.image(join(this.#mountPoint, rootfs, 'rootfs.img'), directory, format)
    return directory
  }

  /** Unmounts it. @returns false where it is in use */
  async release(rootfs: string): Promise<boolean> {
    const directory = join(this.#directory, rootfs)
    await this.#mounter.unmount(directory).catch(() => undefined)
    return await rmdir(directory).then(
      () => true,
      (error: NodeJS.ErrnoException) => error.code === 'ENOENT',
    )
  }

  /** Unmounts those of no mount. */
  async tidy(rootfs: ReadonlySet<string>): Promise<void> {
    for (const name of await readdir(this.#directory).catch(() => [])) if (!rootfs.has(name)) await this.release(name)
  }
}
