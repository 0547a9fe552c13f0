import { mkdir, readdir, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Log } from '../../base/log.ts'
import { imageFile } from '../fuse/image-nodes.ts'
import { isFrom } from './filesystem-source.ts'
import type { KernelMounter } from './kernel-mounter.ts'
import { readMounts, type MountInfo } from './mountinfo.ts'

/** The name of a drive's scratch, beside {@link imageFile}. */
export const scratchFile = 'scratch.img'
const files = [imageFile, scratchFile] as const

export interface DriveDirectoriesParts {
  mounter: Pick<KernelMounter, 'bind' | 'detach' | 'placeholders' | 'makeReadOnly' | 'refuseCovered' | 'unmount'>
  log: Log
}

/**
 * Directories with two files of two filesystems: the image and the scratch of a drive. Each is a read-only tmpfs with two
 * empty files, which the real ones are bound over. It is put together below the state directory, and bound as a whole to
 * the user's directory, so that nobody ever finds a part of it there.
 */
export class DriveDirectories {
  readonly #parts: DriveDirectoriesParts
  readonly #directory: string

  constructor(parts: DriveDirectoriesParts, { directory }: { directory: string }) {
    this.#parts = parts
    this.#directory = directory
  }

  mountPoint(id: string): string {
    return join(this.#directory, id)
  }

  /** Puts a directory together. @throws unavailable */
  async make(id: string, { image, scratch }: { image: string; scratch: string }): Promise<void> {
    const { mounter } = this.#parts
    const directory = this.mountPoint(id)
    await mkdir(directory, { recursive: true, mode: 0o700 })
    await mounter.placeholders(directory)
    for (const file of files) await writeFile(join(directory, file), '', { mode: 0 })
    await Promise.all([
      mounter.bind(image, join(directory, imageFile)),
      mounter.bind(scratch, join(directory, scratchFile)),
      mounter.makeReadOnly(directory),
    ])
  }

  /** Whether a mount is such a directory, here or on that of a user. */
  isOne({ device }: MountInfo, mounts: readonly MountInfo[]): boolean {
    return mounts.some(
      (mount) =>
        mount.device === device &&
        mount.root === '/' &&
        (mount.mountPoint.startsWith(`${this.#directory}/`) || isFrom(mount, this.#directory)),
    )
  }

  /** Whether such a directory has both files. One that has not was being ended when a daemon died. */
  isWhole(mount: MountInfo, mounts: readonly MountInfo[]): boolean {
    const inside = mounts.filter(({ parent }) => parent === mount.id).map(({ mountPoint }) => mountPoint)
    return files.every((file) => inside.includes(join(mount.mountPoint, file)))
  }

  /**
   * Takes such a directory from the user's. The image goes first, because only that can be in use: whether the scratch is
   * has been asked before. From then on nothing fails.
   * @throws conflict if the image is in use, or something is mounted over it or over the scratch; nothing has changed then
   */
  async end(mount: MountInfo): Promise<void> {
    const { mounter } = this.#parts
    const inside = (await readMounts()).filter(({ parent }) => parent === mount.id)
    for (const file of [mount, ...inside]) await mounter.refuseCovered(file)
    const image = inside.find(({ mountPoint }) => mountPoint === join(mount.mountPoint, imageFile))
    if (image !== undefined) await mounter.unmount(image)
    await mounter.detach(mount)
  }

  /** Removes what belongs to a drive that is ended, wherever it still stands; nothing if there is nothing. */
  async remove(id: string): Promise<void> {
    const mounts = await readMounts()
    const own = mounts.find(({ mountPoint }) => mountPoint === this.mountPoint(id))
    // Those of users first: by the one here they are known.
    for (const mount of mounts.filter(({ device }) => device === own?.device).toReversed())
      if (mount.id !== own?.id) await this.#parts.mounter.detach(mount)
    if (own !== undefined) await this.#parts.mounter.detach(own)
    await rmdir(this.mountPoint(id)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
    })
  }

  /** Removes what belongs to no drive. */
  async tidy(ids: ReadonlySet<string>): Promise<void> {
    for (const id of await readdir(this.#directory).catch(() => [])) {
      if (ids.has(id)) continue
      await this.remove(id).catch((error: unknown) =>
        this.#parts.log.warn('directory of an ended drive is kept', { directory: this.mountPoint(id), error }),
      )
    }
  }
}
