import { mkdir, readdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { RootfsFormat } from '../../../protocol/rootfs-manifest.ts'
import type { KernelMounter } from './kernel-mounter.ts'
import { readMounts } from './mountinfo.ts'

/**
 * Kernel mounts of rootfs images. There is one for each image, bound to any number of directories, so that all share
 * its pages.
 */
export class Trees {
  readonly #mounter: Pick<KernelMounter, 'image' | 'unmountFrom'>
  readonly #directory: string
  readonly #fuseMountPoint: string

  /**
   * @param options `directory`: where trees are mounted, without symbolic links; `mountPoint`: of the FUSE filesystem
   */
  constructor(
    { mounter }: { mounter: Pick<KernelMounter, 'image' | 'unmountFrom'> },
    { directory, mountPoint }: { directory: string; mountPoint: string },
  ) {
    this.#mounter = mounter
    this.#directory = directory
    this.#fuseMountPoint = mountPoint
  }

  /** The directory that the tree of this rootfs is mounted on. */
  mountPoint(rootfs: string): string {
    return join(this.#directory, rootfs)
  }

  /** A place for a mount that is needed for a moment; one that a crash has left is ended by {@link tidy}. */
  passingPlace(id: string): string {
    return join(this.#directory, `.${id}`)
  }

  /** Mounts the tree if it is not mounted yet. @returns where; @throws unavailable */
  async mount(rootfs: string, format: RootfsFormat): Promise<string> {
    const directory = this.mountPoint(rootfs)
    const isMounted = async (): Promise<boolean> =>
      (await readMounts()).some(({ mountPoint }) => mountPoint === directory)
    if (await isMounted()) return directory
    await mkdir(directory, { recursive: true, mode: 0o700 })
    try {
      await this.#mounter.image(join(this.#fuseMountPoint, rootfs, 'rootfs.img'), directory, format)
    } catch (error) {
      // A process that a daemon has started and that has outlived it may have mounted it meanwhile.
      if (!(await isMounted())) throw error
    }
    return directory
  }

  /** Unmounts it. @returns false if it is in use */
  async release(rootfs: string): Promise<boolean> {
    const directory = this.mountPoint(rootfs)
    await this.#mounter.unmountFrom(directory).catch(() => undefined)
    return await rmdir(directory).then(
      () => true,
      (error: NodeJS.ErrnoException) => error.code === 'ENOENT',
    )
  }

  /** Unmounts the trees of no mount. */
  async tidy(rootfs: ReadonlySet<string>): Promise<void> {
    for (const name of await readdir(this.#directory).catch(() => [])) if (!rootfs.has(name)) await this.release(name)
  }
}
