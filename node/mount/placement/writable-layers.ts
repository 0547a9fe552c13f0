import { chmod, chown, mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import type { DiskTemplates } from './disk-template.ts'
import type { KernelMounter } from './kernel-mounter.ts'

/** In the name of a directory that is being deleted. */
const aside = '.gone-'

/** Of a tree that a mount writes to. */
export interface WritableLayer {
  id: string
  /** The read-only tree below. */
  lower: string
  /** What can be written, bytes; what the disk has if not given. */
  limitBytes?: number | undefined
}

/**
 * overlayfs over read-only trees. Each has a directory: `upper` and `work`, `merged` where the overlay is mounted; with a
 * limit the two first are on a disk of that size, mounted on `disk`.
 */
export class WritableLayers {
  readonly #mounter: KernelMounter
  readonly #templates: DiskTemplates
  readonly #directory: string

  constructor(
    { mounter, templates }: { mounter: KernelMounter; templates: DiskTemplates },
    { directory }: { directory: string },
  ) {
    this.#mounter = mounter
    this.#templates = templates
    this.#directory = directory
  }

  /** @returns where the overlay is mounted; @throws unavailable, and as {@link DiskTemplates.copyTo} */
  async mount({ id, lower, limitBytes }: WritableLayer, options: { signal: AbortSignal }): Promise<string> {
    const directory = join(this.#directory, id)
    const merged = join(directory, 'merged')
    await mkdir(merged, { recursive: true, mode: 0o700 })
    let base = directory
    if (limitBytes !== undefined) {
      base = join(directory, 'disk')
      await mkdir(base, { recursive: true, mode: 0o700 })
      await this.#templates.copyTo(join(directory, 'disk.img'), limitBytes, options)
      await this.#mounter.disk(join(directory, 'disk.img'), base)
    }
    const [upper, work] = [join(base, 'upper'), join(base, 'work')]
    await mkdir(upper, { mode: 0o755 })
    await copyRoot(lower, upper)
    await mkdir(work, { mode: 0o700 })
    await this.#mounter.overlay({ lower, upper, work }, merged)
    return merged
  }

  /** Ends it and all that was written. @throws conflict where it is in use */
  async remove(id: string): Promise<void> {
    const gone = await this.#putAside(id)
    if (gone !== undefined) await this.#unmountDisk(gone)
    this.#deleteInBackground(gone)
  }

  /** As {@link remove}, but what takes long, writing back a disk that nobody will read, goes on in the background. */
  async discard(id: string): Promise<void> {
    const gone = await this.#putAside(id)
    if (gone === undefined) return
    this.#unmountDisk(gone).then(
      () => this.#deleteInBackground(gone),
      () => undefined,
    )
  }

  /** Removes those of no mount. */
  async tidy(ids: ReadonlySet<string>): Promise<void> {
    for (const id of await readdir(this.#directory).catch(() => [])) {
      const directory = join(this.#directory, id)
      if (id.includes(aside)) {
        await this.#unmountDisk(directory)
        this.#deleteInBackground(directory)
      } else if (!ids.has(id)) await this.remove(id)
    }
  }

  /** @returns where its directory is now, its disk still mounted; undefined where there is none */
  async #putAside(id: string): Promise<string | undefined> {
    const directory = join(this.#directory, id)
    await this.#mounter.unmount(join(directory, 'merged'))
    const gone = `${directory}${aside}${process.hrtime.bigint()}`
    return await rename(directory, gone).then(
      () => gone,
      (error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error
        return undefined
      },
    )
  }

  async #unmountDisk(directory: string): Promise<void> {
    const disk = join(directory, 'disk')
    if ((await stat(disk).catch(() => undefined)) !== undefined) await this.#mounter.unmount(disk)
  }

  #deleteInBackground(directory: string | undefined): void {
    if (directory !== undefined) rm(directory, { recursive: true, force: true }).catch(() => undefined)
  }
}

/** The overlay's root takes these from its upper directory. */
async function copyRoot(from: string, to: string): Promise<void> {
  const { mode, uid, gid, atime, mtime } = await stat(from)
  await chown(to, uid, gid)
  await chmod(to, mode & 0o7777)
  await utimes(to, atime, mtime)
}
