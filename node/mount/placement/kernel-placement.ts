import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { P2pfsError } from '../../../protocol/errors.ts'
import { imageFile } from '../fuse/image-nodes.ts'
import type { NativeImages } from '../native/native-images.ts'
import { scratchFile, type DriveDirectories } from './drive-directories.ts'
import { isFrom } from './filesystem-source.ts'
import type { KernelMounter } from './kernel-mounter.ts'
import { isOverlayBelow } from './overlay-layers.ts'
import { identityOf, locate, readMounts, type MountInfo } from './mountinfo.ts'
import { ownMounts } from './own-mounts.ts'
import type { MountSpec, Place, Placed, PlacedMount, Placement, Reads, Restriction } from './placement.ts'
import type { Reach } from './reach.ts'
import type { ScratchDrives } from './scratch-drives.ts'
import type { Trees } from './trees.ts'
import type { WritableLayers } from './writable-layers.ts'

export interface KernelPlacementParts {
  mounter: KernelMounter
  trees: Trees
  writables: WritableLayers
  scratches: ScratchDrives
  drives: DriveDirectories
  reach: Pick<Reach, 'ofOthers'>
  /** Images that the kernel reads without the daemon; undefined if there are none. */
  natives: Pick<NativeImages, 'directory' | 'mount' | 'mountPoint' | 'release' | 'tidy'> | undefined
}

/** The source of the bind on the user's directory: the first mount of its filesystem, and the path in that. */
interface Source {
  filesystem: string
  root: string
  reads: Reads
}

/** Mount options that keep programs and device nodes of an image from giving a user of this host more rights. */
const restrictions = ['nosuid', 'nodev'] as const

/**
 * Mounts on the user's directories, for a daemon that may mount. Every filesystem is mounted below the state directory
 * first, and bound to the user's directory from there: so its device tells which mounts are ours.
 */
export class KernelPlacement implements Placement {
  readonly #parts: KernelPlacementParts
  readonly #mountPoint: string
  readonly #roots: readonly string[]

  /**
   * @param options `mountPoint`: of the FUSE filesystem; `roots`: the directories below which all filesystems are
   * mounted first. All without symbolic links
   */
  constructor(parts: KernelPlacementParts, { mountPoint, roots }: { mountPoint: string; roots: readonly string[] }) {
    this.#parts = parts
    this.#mountPoint = mountPoint
    this.#roots = roots
  }

  async locate(directory: string): Promise<Place | undefined> {
    const location = await locate(directory)
    return location && { path: location.path, identity: location.mount && identityOf(location.mount) }
  }

  async standing(specs: readonly MountSpec[]): Promise<Map<string, string>> {
    const own = await ownMounts(this.#roots)
    const { drives } = this.#parts
    const isWhole = (mount: MountInfo): boolean => !drives.isOne(mount, own) || drives.isWhole(mount, own)
    const bound = new Map(
      own.filter((mount) => mount.bound && isWhole(mount)).map((mount) => [identityOf(mount), mount]),
    )
    const standing = new Map<string, string>()
    const claim = ({ id }: MountSpec, identity: string): void => {
      bound.delete(identity)
      standing.set(id, identity)
    }
    for (const spec of specs) if (spec.identity !== undefined && bound.has(spec.identity)) claim(spec, spec.identity)
    // A daemon that died in the middle of a mount or a reset has not recorded which mount it is.
    for (const spec of specs) {
      if (standing.has(spec.id)) continue
      const sources = this.#sources(spec).map(({ filesystem, root }) => ({
        device: own.find(({ mountPoint }) => mountPoint === filesystem)?.device,
        root,
      }))
      const candidates = [...bound.values()].filter((mount) =>
        sources.some(({ device, root }) => mount.device === device && mount.root === root),
      )
      const there = (await this.locate(spec.directory))?.identity
      const found =
        candidates.find((mount) => identityOf(mount) === there) ??
        candidates.find((mount) => spec.writable || drives.isOne(mount, own))
      if (found !== undefined) claim(spec, identityOf(found))
    }
    return standing
  }

  async reads(specs: readonly MountSpec[]): Promise<Map<string, Reads>> {
    const mounts = await readMounts()
    const byIdentity = new Map(mounts.map((mount) => [identityOf(mount), mount]))
    const below = this.#parts.natives?.directory
    const devices = new Set(
      mounts
        .filter((mount) => below !== undefined && (mount.mountPoint.startsWith(`${below}/`) || isFrom(mount, below)))
        .map(({ device }) => device),
    )
    return new Map(
      specs.map(({ id, identity = '', scratchBytes }) => {
        const mount = byIdentity.get(identity)
        const hasNative = (directory: MountInfo): boolean =>
          mounts.some(({ parent, device }) => parent === directory.id && devices.has(device))
        const isNative =
          mount !== undefined &&
          below !== undefined &&
          (devices.has(mount.device) ||
            isOverlayBelow(mount, below) ||
            (scratchBytes !== undefined && hasNative(mount)))
        return [id, isNative ? 'native' : 'fuse']
      }),
    )
  }

  async place(spec: MountSpec, { signal }: { signal: AbortSignal }): Promise<PlacedMount> {
    const { directory } = spec
    const location = await locate(directory)
    if (location === undefined)
      throw new P2pfsError('missing', `no such directory: ${directory}; make it first`, { directory })
    const { mount } = location
    if (mount !== undefined && (await this.#isBound(mount)))
      throw new P2pfsError('conflict', `${directory} is a mount already; umount it first`, { directory })
    if (!(await stat(location.path)).isDirectory())
      throw new P2pfsError('conflict', `not a directory: ${directory}`, { directory })
    if (!(await readMounts()).some(({ mountPoint }) => mountPoint === this.#mountPoint))
      throw new P2pfsError(
        'unavailable',
        `${this.#mountPoint} was unmounted by hand; end the mounts of p2pfs (p2pfs status lists them), then send SIGHUP to ` +
          'p2pfs daemon, or restart it',
      )
    signal.throwIfAborted()
    try {
      return spec.as === 'tree'
        ? await this.#placeTree(spec, location.path, signal)
        : await this.#placeDrive(spec, location.path, signal)
    } catch (error) {
      await this.#removeLayers(spec).catch(() => undefined)
      throw error
    }
  }

  async reset(spec: MountSpec): Promise<PlacedMount> {
    // Never aborted: what was there is gone as soon as it has begun.
    const { signal } = new AbortController()
    const { id, scratchBytes, owner, directory, identity = '' } = spec
    if (scratchBytes !== undefined) {
      const { scratches, drives } = this.#parts
      await scratches.empty(id, scratchBytes, { owner, signal })
      const reads = (await this.reads([spec])).get(id) ?? 'fuse'
      const mounts = await readMounts()
      const mount = mounts.find((standing) => identityOf(standing) === identity)
      // An earlier version of p2pfs has mounted the image alone.
      const isBeside = mount !== undefined && drives.isOne(mount, mounts)
      const scratch = isBeside ? join(directory, scratchFile) : scratches.path(id)
      return { placed: { rootfs: join(directory, imageFile), scratch }, reads, identity }
    }
    if (!spec.writable) {
      throw new P2pfsError(
        'invalid',
        `${directory} has nothing to reset: it was mounted without --scratch and without --writable`,
        { directory },
      )
    }
    const { mounter, writables } = this.#parts
    const tree = await this.#mountTree(spec)
    // First of all, since it can fail: the mount then stays as it is.
    const prepared = await writables.prepare({ id, lower: tree.filesystem, limitBytes: spec.limitBytes }, { signal })
    const mount = await this.#find(spec)
    let former: string | undefined
    try {
      if (mount !== undefined) await mounter.unmount(mount)
      former = await writables.putAside(id)
    } catch (error) {
      writables.endInBackground(prepared.directory)
      throw error
    }
    try {
      await writables.use(prepared)
      const path = mount?.mountPoint ?? (await locate(directory))?.path ?? directory
      const restricted = await this.#restriction(spec, path)
      return await this.#bind(spec, path, { rootfs: directory }, { source: this.#merged(spec, tree), restricted })
    } finally {
      // Not earlier: it would take time from what is waited for.
      writables.endInBackground(former)
    }
  }

  async remove(spec: MountSpec): Promise<void> {
    if (spec.scratchBytes !== undefined) await this.#parts.scratches.refuseInUse(spec.id)
    const { mounter, drives } = this.#parts
    const mount = await this.#find(spec)
    if (mount !== undefined)
      await (drives.isOne(mount, await readMounts()) ? drives.end(mount) : mounter.unmount(mount))
    await this.#removeLayers(spec)
  }

  /** Everything is mounted by the kernel, which needs no daemon for that. */
  async end(): Promise<void> {
    // Nothing to do.
  }

  async release(rootfs: string): Promise<boolean> {
    await this.#parts.natives?.release(rootfs)
    return await this.#parts.trees.release(rootfs)
  }

  async tidy(specs: readonly MountSpec[]): Promise<void> {
    const ids = new Set(specs.map(({ id }) => id))
    await this.#parts.writables.tidy(ids)
    await this.#parts.drives.tidy(ids)
    await this.#parts.scratches.tidy(ids)
    await this.#parts.trees.tidy(new Set(specs.filter((spec) => spec.as === 'tree').map(({ rootfs }) => rootfs)))
    await this.#parts.natives?.tidy(new Set(specs.map(({ rootfs }) => rootfs)))
  }

  async #placeDrive(spec: MountSpec, path: string, signal: AbortSignal): Promise<PlacedMount> {
    const { id, directory, scratchBytes, owner } = spec
    const rootfs = join(directory, imageFile)
    // Its file is root's: whoever else owns the drive is let in by the daemon.
    const native = owner === undefined ? await this.#mountNative(spec) : undefined
    const source = native ?? this.#fuseSource(spec)
    if (scratchBytes === undefined) return await this.#bind(spec, path, { rootfs }, { source, restricted: undefined })
    const { scratches, drives } = this.#parts
    const scratch = await scratches.make(id, scratchBytes, { owner, signal })
    await drives.make(id, { image: join(source.filesystem, source.root, imageFile), scratch })
    const placed = { rootfs, scratch: join(directory, scratchFile) }
    return await this.#bind(spec, path, placed, { source: this.#driveSource(spec, source), restricted: undefined })
  }

  async #placeTree(spec: MountSpec, path: string, signal: AbortSignal): Promise<PlacedMount> {
    const { id, directory, writable, limitBytes } = spec
    // Side by side: each may take a process.
    const [tree, restricted] = await Promise.all([this.#mountTree(spec), this.#restriction(spec, path)])
    if (!writable) return await this.#bind(spec, path, { rootfs: directory }, { source: tree, restricted })
    const { writables } = this.#parts
    await writables.use(await writables.prepare({ id, lower: tree.filesystem, limitBytes }, { signal }))
    return await this.#bind(spec, path, { rootfs: directory }, { source: this.#merged(spec, tree), restricted })
  }

  /** Mounts the tree of an image if it is not mounted yet. */
  async #mountTree(spec: MountSpec): Promise<Source> {
    const native = await this.#mountNative(spec)
    if (native !== undefined) return native
    await this.#parts.trees.mount(spec.rootfs, spec.format)
    return this.#fuseSource(spec)
  }

  async #mountNative({ as, rootfs }: MountSpec): Promise<Source | undefined> {
    const filesystem = await this.#parts.natives?.mount(as, rootfs)
    return filesystem === undefined ? undefined : { filesystem, root: '/', reads: 'native' }
  }

  async #bind(
    spec: MountSpec,
    path: string,
    placed: Placed,
    { source: from, restricted }: { source: Source; restricted: Restriction | undefined },
  ): Promise<PlacedMount> {
    const { filesystem, root, reads } = from
    const { mounter, trees } = this.#parts
    const source = join(filesystem, root)
    if (spec.scratchBytes !== undefined) await mounter.bindTree(source, path)
    else if (restricted === undefined) await mounter.bind(source, path)
    else {
      const options = spec.writable ? restrictions : (['ro', ...restrictions] as const)
      await mounter.bindWith(options, source, path, trees.passingPlace(spec.id))
    }
    const mount = (await locate(path))?.mount
    if (mount === undefined)
      throw new P2pfsError('unavailable', `cannot mount on ${spec.directory}: it was moved away meanwhile`)
    return { placed: restricted === undefined ? placed : { ...placed, restricted }, reads, identity: identityOf(mount) }
  }

  /**
   * Whether a part of a tree must not work: it is not trusted, and others than root can get to it. That is so or not when
   * the mount is placed, and stays.
   */
  async #restriction({ allowOthers = false }: MountSpec, path: string): Promise<Restriction | undefined> {
    if (allowOthers) return undefined
    const reason = await this.#parts.reach.ofOthers(path)
    return reason === undefined ? undefined : { options: [...restrictions], reason }
  }

  /** The mounts that the one on the user's directory may have been made of. */
  #sources(spec: MountSpec): Source[] {
    const { natives } = this.#parts
    if (spec.writable) return [this.#merged(spec, { reads: 'fuse' })]
    const sources = [this.#fuseSource(spec)]
    if (natives !== undefined)
      sources.push({ filesystem: natives.mountPoint(spec.as, spec.rootfs), root: '/', reads: 'native' })
    if (spec.scratchBytes !== undefined) sources.push(this.#driveSource(spec, { reads: 'fuse' }))
    return sources
  }

  #fuseSource({ as, rootfs }: MountSpec): Source {
    if (as === 'drive') return { filesystem: this.#mountPoint, root: `/${rootfs}`, reads: 'fuse' }
    return { filesystem: this.#parts.trees.mountPoint(rootfs), root: '/', reads: 'fuse' }
  }

  /** The directory of a drive with a scratch. */
  #driveSource({ id }: MountSpec, { reads }: Pick<Source, 'reads'>): Source {
    return { filesystem: this.#parts.drives.mountPoint(id), root: '/', reads }
  }

  /** The overlay of a writable tree. */
  #merged({ id }: MountSpec, { reads }: Pick<Source, 'reads'>): Source {
    return { filesystem: this.#parts.writables.mountPoint(id), root: '/', reads }
  }

  async #isBound(mount: MountInfo): Promise<boolean> {
    return (await ownMounts(this.#roots)).some(({ bound, id }) => bound && id === mount.id)
  }

  /** The mount of the user's directory, wherever that is now; undefined if it is gone. */
  async #find({ identity }: MountSpec): Promise<MountInfo | undefined> {
    return (await readMounts()).find((mount) => identityOf(mount) === identity)
  }

  async #removeLayers({ id, writable, scratchBytes }: MountSpec): Promise<void> {
    if (writable) await this.#parts.writables.remove(id)
    if (scratchBytes === undefined) return
    await this.#parts.drives.remove(id)
    await this.#parts.scratches.remove(id)
  }
}
