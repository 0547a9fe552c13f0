import { digestHex, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { Boot } from '../boot/boot.ts'
import type { BootReplay } from '../control/api.ts'
import type { RemoteSource } from '../model/chunk-request.ts'
import type { Log } from '../base/log.ts'
import type { FuseDriver } from './fuse/driver.ts'
import type { MountSpec, Placed, Placement } from './placement/placement.ts'
import { MountedRootfs, type MountedRootfsParts } from './mounted-rootfs.ts'
import type { Catalog, MountRecord } from '../store/catalog.ts'

export interface MountsParts extends MountedRootfsParts {
  catalog: Pick<Catalog, 'mounts' | 'putMount' | 'deleteMount' | 'rootfs'>
  driver: FuseDriver
  placement: Placement
  /** The boot of a rootfs that was not mounted before, to be started; undefined where boots are left alone. */
  createBoot: (mounted: MountedRootfs) => Boot | undefined
  log: Log
}

/** What is mounted where. The catalog remembers it, for the daemon that comes after this one. */
export class Mounts {
  readonly #parts: MountsParts
  readonly #images = new Map<string, MountedRootfs>()
  readonly #boots = new Map<string, Boot>()
  readonly #records = new Map<string, MountRecord>()
  /** Directories that something is being done with. */
  readonly #busy = new Set<string>()
  /** The last task of each rootfs: those of one rootfs share its image and tree, so one at a time. */
  readonly #turns = new Map<string, Promise<unknown>>()

  constructor(parts: MountsParts) {
    this.#parts = parts
  }

  /** Takes up the mounts of the daemon before this one; forgets those that are gone. Called before reads are served. */
  async restore(): Promise<void> {
    const { catalog, placement, log } = this.#parts
    const standing = await placement.standing()
    for (const record of await catalog.mounts()) {
      const manifest = await catalog.rootfs(record.rootfsDigest)
      if (!standing.has(record.directory) || manifest === undefined) {
        log.warn('mount is gone since the daemon was last here', {
          directory: record.directory,
          image: record.reference,
        })
        await placement.end([specOf(record)])
        await catalog.deleteMount(record.directory)
        continue
      }
      this.#records.set(record.directory, record)
      await this.#open(manifest, record.rootfsDigest)
    }
    await placement.tidy(this.list().map(specOf))
  }

  list(): MountRecord[] {
    return [...this.#records.values()]
  }

  /** The image of this name in the FUSE mount. */
  image(name: string): MountedRootfs | undefined {
    return this.#images.get(name)
  }

  /** A chunk has come that stands there in a region. */
  arrived(table: Digest, index: number, source: RemoteSource): void {
    for (const mounted of this.#images.values()) mounted.arrived(table, index, source)
  }

  /** How far the replay of the boot of a rootfs is, where it is replayed. */
  profile(digest: Digest): BootReplay | undefined {
    return this.#boots.get(digestHex(digest))?.status()
  }

  /** @throws conflict where the directory is taken; missing where it is not there; unsupported for what this host cannot do */
  async mount(manifest: RootfsManifest, record: MountRecord, { signal }: { signal: AbortSignal }): Promise<Placed> {
    const { catalog, placement } = this.#parts
    const { directory, rootfsDigest } = record
    if (this.#records.has(directory))
      throw new P2pfsError('conflict', `${directory} is a mount already; umount it first`, { directory })
    return await this.#inTurn(directory, rootfsDigest, async () => {
      signal.throwIfAborted()
      await this.#open(manifest, rootfsDigest)
      // Recorded first: a daemon that dies in between finds a record without a mount, which it forgets.
      await catalog.putMount(record)
      try {
        const placed = await placement.place(specOf(record), { signal })
        this.#records.set(directory, record)
        // Not before: it would take from the mount what the mount waits for.
        this.#startBoot(rootfsDigest)
        return placed
      } catch (error) {
        await catalog.deleteMount(directory)
        await this.#closeUnused(rootfsDigest)
        throw error
      }
    })
  }

  /** A fresh scratch drive, or a fresh upper layer. @throws missing where nothing is mounted there; invalid where it has none; conflict where it is in use */
  async reset(directory: string): Promise<Placed> {
    const record = this.#record(directory)
    return await this.#inTurn(
      directory,
      record.rootfsDigest,
      async () => await this.#parts.placement.reset(specOf(record)),
    )
  }

  /** @throws missing where nothing is mounted there; conflict where it is in use */
  async umount(directory: string): Promise<void> {
    const record = this.#record(directory)
    await this.#inTurn(directory, record.rootfsDigest, async () => {
      await this.#parts.placement.remove(specOf(record))
      await this.#parts.catalog.deleteMount(directory)
      this.#records.delete(directory)
      await this.#closeUnused(record.rootfsDigest)
    })
  }

  /** Stops fetching for mounts. They stay, unless they cannot outlive the daemon. */
  async close(): Promise<void> {
    for (const mounted of this.#images.values()) mounted.close()
    await Promise.all([...this.#boots.values()].map(async (boot) => await boot.end()))
    await this.#parts.placement.end(this.list().map(specOf))
  }

  #record(directory: string): MountRecord {
    const record = this.#records.get(directory)
    if (record !== undefined) return record
    throw new P2pfsError('missing', `nothing of p2pfs is mounted on ${directory}; p2pfs status lists the mounts`, {
      directory,
    })
  }

  async #open(manifest: RootfsManifest, digest: Digest): Promise<void> {
    const name = digestHex(digest)
    if (this.#images.has(name)) return
    const mounted = new MountedRootfs(this.#parts, manifest, digest)
    this.#images.set(name, mounted)
    await this.#parts.driver.add(mounted.image)
  }

  /** Once for as long as the rootfs is mounted: another mount finds its pages in the kernel's cache. */
  #startBoot(digest: Digest): void {
    const name = digestHex(digest)
    if (this.#boots.has(name)) return
    const boot = this.#parts.createBoot(this.#images.get(name)!)
    if (boot === undefined) return
    this.#boots.set(name, boot)
    boot.start()
  }

  /** Ends what no mount of this rootfs needs any more. */
  async #closeUnused(digest: Digest): Promise<void> {
    const name = digestHex(digest)
    const users = this.list().filter((record) => record.rootfsDigest === digest)
    if (users.some((record) => record.as === 'tree')) return
    const released = await this.#parts.placement.release(name)
    if (!released) this.#parts.log.warn('tree is in use beyond its mounts; it stays', { rootfs: digest })
    if (!released || users.length > 0) return
    await this.#boots.get(name)?.end()
    this.#boots.delete(name)
    this.#images.get(name)?.close()
    this.#images.delete(name)
    await this.#parts.driver.remove(name)
  }

  /** @throws conflict where something else is being done with the directory */
  async #inTurn<T>(directory: string, digest: Digest, task: () => Promise<T>): Promise<T> {
    if (this.#busy.has(directory))
      throw new P2pfsError('conflict', `${directory} is being mounted or unmounted; try again`, { directory })
    this.#busy.add(directory)
    const turn = (this.#turns.get(digest) ?? Promise.resolve()).then(task)
    const settled = turn.catch(() => undefined)
    this.#turns.set(digest, settled)
    try {
      return await turn
    } finally {
      this.#busy.delete(directory)
      if (this.#turns.get(digest) === settled) this.#turns.delete(digest)
    }
  }
}

function specOf(record: MountRecord): MountSpec {
  return { ...record, rootfs: digestHex(record.rootfsDigest) }
}
