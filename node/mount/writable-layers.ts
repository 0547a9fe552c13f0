import { chmod, chown, mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import type { DiskTemplates } from './disk-template.ts'
import type { KernelMounter } from './kernel-mounter.ts'

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

  constructor({ mounter, templates }: { mounter: KernelMounter; templates: DiskTemplates }, { directory }: { directory: string }) {
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
    const directory = join(this.#directory, id)
    await this.#mounter.unmount(join(directory, 'merged'))
    const disk = join(directory, 'disk')
    if (await stat(disk).catch(() => undefined)) await this.#mounter.unmount(disk)
    // Out of the way at once; what may be many files goes in the background.
    const gone = `${directory}.gone-${process.hrtime.bigint()}`
    await rename(directory, gone).catch(ignoreMissing)
    rm(gone, { recursive: true, force: true }).catch(() => undefined)
  }

  /** Removes those of no mount. */
  async tidy(ids: ReadonlySet<string>): Promise<void> {
    for (const id of await readdir(this.#directory).catch(() => [])) {
      if (id.includes('.gone-')) rm(join(this.#directory, id), { recursive: true, force: true }).catch(() => undefined)
      else if (!ids.has(id)) await this.remove(id)
    }
  }
}

/** The overlay's root takes these from its upper directory. */
async function copyRoot(from: string, to: string): Promise<void> {
  const { mode, uid, gid, atime, mtime } = await stat(from)
  await chown(to, uid, gid)
  await chmod(to, mode & 0o7777)
  await utimes(to, atime, mtime)
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error
}
