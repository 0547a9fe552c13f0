import { chmod, chown, mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Log } from '../../base/log.ts'
import type { DiskTemplates } from './disk-template.ts'
import type { KernelMounter } from './kernel-mounter.ts'
import type { Use, UseCheck } from './use-check.ts'

/** In the name of a directory that is to be deleted. */
const aside = '.gone-'

/** The upper layer of a tree. */
export interface WritableLayer {
  id: string
  /** The read-only tree below. */
  lower: string
  /** How much can be written (bytes); what the host's disk has if not given. */
  limitBytes?: number | undefined
}

export interface WritableLayersParts {
  mounter: Pick<KernelMounter, 'disk' | 'overlay' | 'unmountFrom'>
  templates: Pick<DiskTemplates, 'copyTo'>
  uses: Pick<UseCheck, 'ofFile' | 'ofUpperLayer'>
  log: Log
}

/** A fresh layer that no mount uses yet. */
export interface PreparedLayer {
  id: string
  lower: string
  /** Its directory until it is used. */
  directory: string
  isLimited: boolean
}

/**
 * overlayfs over read-only trees. Each has a directory with `upper` and `work`, and `merged`, where the overlay is
 * mounted; with a limit the first two are on a disk of that size, which is mounted on `disk`.
 */
export class WritableLayers {
  readonly #parts: WritableLayersParts
  readonly #directory: string
  /** Directories that were to be deleted, and were in use. */
  readonly #kept = new Set<string>()

  constructor(parts: WritableLayersParts, { directory }: { directory: string }) {
    this.#parts = parts
    this.#directory = directory
  }

  /** The directory that the overlay is mounted on. */
  mountPoint(id: string): string {
    return join(this.#directory, id, 'merged')
  }

  /**
   * Makes a fresh layer, which takes nothing from the one that the mount has until {@link use}.
   * @throws unavailable, and as {@link DiskTemplates.copyTo}; nothing is left then
   */
  async prepare({ id, lower, limitBytes }: WritableLayer, options: { signal: AbortSignal }): Promise<PreparedLayer> {
    const { mounter, templates } = this.#parts
    const directory = join(this.#directory, `${id}${aside}${process.hrtime.bigint()}`)
    const base = limitBytes === undefined ? directory : join(directory, 'disk')
    try {
      await mkdir(join(directory, 'merged'), { recursive: true, mode: 0o700 })
      if (limitBytes !== undefined) {
        await mkdir(base, { mode: 0o700 })
        await templates.copyTo(join(directory, 'disk.img'), limitBytes, options)
        await mounter.disk(join(directory, 'disk.img'), base)
      }
      await mkdir(join(base, 'upper'), { mode: 0o755 })
      await copyRoot(lower, join(base, 'upper'))
      await mkdir(join(base, 'work'), { mode: 0o700 })
    } catch (error) {
      this.endInBackground(directory)
      throw error
    }
    return { id, lower, directory, isLimited: limitBytes !== undefined }
  }

  /** Mounts the overlay with a layer that was prepared. No layer of this id stands any more. @throws unavailable */
  async use({ id, lower, directory, isLimited }: PreparedLayer): Promise<void> {
    const current = join(this.#directory, id)
    await rename(directory, current)
    const base = isLimited ? join(current, 'disk') : current
    await this.#parts.mounter.overlay(
      { lower, upper: join(base, 'upper'), work: join(base, 'work') },
      this.mountPoint(id),
    )
  }

  /**
   * Ends the overlay, and deletes what was written unless the overlay is used in another mount namespace: it then stays
   * until that is over. @throws conflict if it is in use here
   */
  async remove(id: string): Promise<void> {
    const gone = await this.putAside(id)
    if (gone !== undefined) await this.#end(gone)
    this.#endKept()
  }

  /**
   * Ends the overlay. All that was written stays, its disk still mounted, until {@link endInBackground}.
   * @returns where its directory is now; undefined if there is none; @throws conflict if it is in use here
   */
  async putAside(id: string): Promise<string | undefined> {
    const directory = join(this.#directory, id)
    await this.#parts.mounter.unmountFrom(this.mountPoint(id))
    const gone = `${directory}${aside}${process.hrtime.bigint()}`
    return await rename(directory, gone).then(
      () => gone,
      (error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error
        return undefined
      },
    )
  }

  /** Deletes what was put aside, as {@link remove} does, without waiting for a disk to be written back. */
  endInBackground(directory: string | undefined): void {
    if (directory !== undefined) this.#end(directory).catch((error: unknown) => this.#keep(directory, { error }))
  }

  /** Removes the layers of no mount that are not in use. */
  async tidy(ids: ReadonlySet<string>): Promise<void> {
    for (const name of await readdir(this.#directory).catch(() => [])) {
      if (ids.has(name)) continue
      const directory = join(this.#directory, name)
      try {
        if (name.includes(aside)) await this.#end(directory)
        else await this.remove(name)
      } catch (error) {
        this.#keep(directory, { error })
      }
    }
  }

  /** Unmounts the disk of a directory that was put aside, and begins to delete all of it, unless it is in use. */
  async #end(directory: string): Promise<void> {
    const use = await this.#useOf(directory)
    if (use !== 'free') return this.#keep(directory, { use })
    await this.#parts.mounter.unmountFrom(join(directory, 'disk'))
    this.#kept.delete(directory)
    rm(directory, { recursive: true, force: true }).catch(() => undefined)
  }

  async #useOf(directory: string): Promise<Use> {
    const { uses } = this.#parts
    for (const upper of [join(directory, 'upper'), join(directory, 'disk/upper')])
      if (await isThere(upper)) return await uses.ofUpperLayer(upper)
    // A daemon that was killed has mounted the disk, and has not got as far as an upper layer.
    if (await isMounted(join(directory, 'disk'))) return 'free'
    // The disk is not mounted here. It may be elsewhere.
    return await uses.ofFile(join(directory, 'disk.img'))
  }

  #keep(directory: string, why: { use: Use } | { error: unknown }): void {
    if (!this.#kept.has(directory)) this.#parts.log.warn('upper layer of an ended mount is kept', { directory, ...why })
    this.#kept.add(directory)
  }

  #endKept(): void {
    for (const directory of this.#kept) this.endInBackground(directory)
  }
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}

/** Whether a filesystem is mounted on the directory. */
async function isMounted(directory: string): Promise<boolean> {
  const [inner, outer] = await Promise.all([stat(directory), stat(dirname(directory))]).catch(() => [])
  return inner?.dev !== outer?.dev
}

/** The root of an overlay has the owner, mode and times of its upper directory. */
async function copyRoot(from: string, to: string): Promise<void> {
  const { mode, uid, gid, atime, mtime } = await stat(from)
  await chown(to, uid, gid)
  await chmod(to, mode & 0o7777)
  await utimes(to, atime, mtime)
}
