import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { KernelMounter } from './kernel-mounter.ts'
import { readMounts } from './mountinfo.ts'
import { ownMounts } from './own-mounts.ts'
import type { MountSpec, Placed, Placement } from './placement.ts'
import type { ScratchDrives } from './scratch-drives.ts'
import type { Trees } from './trees.ts'
import type { WritableLayers } from './writable-layers.ts'

export interface KernelPlacementParts {
  mounter: KernelMounter
  trees: Trees
  writables: WritableLayers
  scratches: ScratchDrives
}

/**
 * What stands on the user's directories, for a daemon that may mount. Whatever is mounted is mounted below the state
 * directory first, and bound to the user's directory from there: so its device tells which mounts are ours.
 */
export class KernelPlacement implements Placement {
  readonly #parts: KernelPlacementParts
  readonly #mountPoint: string
  readonly #roots: readonly string[]

  /** @param options `mountPoint` of the FUSE filesystem; `roots`: the directories below which all of ours is mounted first */
  constructor(parts: KernelPlacementParts, { mountPoint, roots }: { mountPoint: string; roots: readonly string[] }) {
    this.#parts = parts
    this.#mountPoint = mountPoint
    this.#roots = roots
  }

  async standing(): Promise<Set<string>> {
    const own = await ownMounts(this.#roots)
    return new Set(own.filter(({ bound }) => bound).map(({ mountPoint }) => mountPoint))
  }

  async place(spec: MountSpec, { signal }: { signal: AbortSignal }): Promise<Placed> {
    const { directory } = spec
    if ((await this.standing()).has(directory))
      throw new P2pfsError('conflict', `${directory} is a mount already; umount it first`, { directory })
    const found = await stat(directory).catch(() => undefined)
    if (found === undefined)
      throw new P2pfsError('missing', `no such directory: ${directory}; make it first`, { directory })
    if (!found.isDirectory()) throw new P2pfsError('conflict', `not a directory: ${directory}`, { directory })
    if (!(await readMounts()).some(({ mountPoint }) => mountPoint === this.#mountPoint))
      throw new P2pfsError(
        'unavailable',
        `${this.#mountPoint} was unmounted by hand; end the mounts of p2pfs (p2pfs status lists them), then send SIGHUP to ` +
          'p2pfs daemon, or restart it',
      )
    signal.throwIfAborted()
    try {
      return spec.as === 'tree' ? await this.#placeTree(spec, signal) : await this.#placeDrive(spec, signal)
    } catch (error) {
      await this.#forget(spec).catch(() => undefined)
      throw error
    }
  }

  async reset(spec: MountSpec): Promise<Placed> {
    // Never given up half way: what was there is gone by then.
    const { signal } = new AbortController()
    const { id, scratchBytes, directory } = spec
    if (scratchBytes !== undefined)
      return {
        rootfs: join(directory, 'rootfs.img'),
        scratch: await this.#parts.scratches.make(id, scratchBytes, { signal }),
      }
    if (!spec.writable) {
      throw new P2pfsError(
        'invalid',
        `${directory} has nothing to reset: it was mounted without --scratch and without --writable`,
        { directory },
      )
    }
    await this.#parts.mounter.unmount(directory)
    await this.#parts.writables.discard(id)
    return await this.#placeTree(spec, signal)
  }

  async remove(spec: MountSpec): Promise<void> {
    await this.#parts.mounter.unmount(spec.directory)
    await this.#forget(spec)
  }

  /** Everything is mounted by the kernel, which needs no daemon for that. */
  async end(): Promise<void> {
    // Nothing to do.
  }

  async release(rootfs: string): Promise<boolean> {
    return await this.#parts.trees.release(rootfs)
  }

  async tidy(specs: readonly MountSpec[]): Promise<void> {
    const ids = new Set(specs.map(({ id }) => id))
    await this.#parts.writables.tidy(ids)
    await this.#parts.scratches.tidy(ids)
    await this.#parts.trees.tidy(new Set(specs.filter((spec) => spec.as === 'tree').map(({ rootfs }) => rootfs)))
  }

  async #placeDrive({ id, directory, rootfs, scratchBytes }: MountSpec, signal: AbortSignal): Promise<Placed> {
    const scratch =
      scratchBytes === undefined ? undefined : await this.#parts.scratches.make(id, scratchBytes, { signal })
    await this.#parts.mounter.bind(join(this.#mountPoint, rootfs), directory)
    return { rootfs: join(directory, 'rootfs.img'), ...(scratch === undefined ? {} : { scratch }) }
  }

  async #placeTree(
    { id, directory, rootfs, format, writable, limitBytes }: MountSpec,
    signal: AbortSignal,
  ): Promise<Placed> {
    const tree = await this.#parts.trees.mount(rootfs, format)
    const source = writable ? await this.#parts.writables.mount({ id, lower: tree, limitBytes }, { signal }) : tree
    await this.#parts.mounter.bind(source, directory)
    return { rootfs: directory }
  }

  async #forget({ id, writable, scratchBytes }: MountSpec): Promise<void> {
    if (writable) await this.#parts.writables.remove(id)
    if (scratchBytes !== undefined) await this.#parts.scratches.remove(id)
  }
}
