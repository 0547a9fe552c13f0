import { digestHex, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { Clock } from '../base/clock.ts'
import { KeyedQueue } from '../base/keyed-queue.ts'
import type { Log } from '../base/log.ts'
import type { Boots } from '../boot/boots.ts'
import type { BootReplay } from '../model/boot-replay.ts'
import type { Catalog } from '../store/catalog.ts'
import type { MountRecord } from '../store/mount-record.ts'
import { nodeIdOf, type BlockImage } from './fuse/block-image.ts'
import type { FuseDriver, ReadHandler } from './fuse/driver.ts'
import type { MountRecords } from './mount-records.ts'
import { MountedRootfs, type MountedRootfsOptions, type MountedRootfsParts } from './mounted-rootfs.ts'
import { WaitingReads, type WaitingReadsParts } from './waiting-reads.ts'
import type { MountSpec, Place, Placed, Placement, Reads } from './placement/placement.ts'

export interface MountsParts extends Omit<MountedRootfsParts, 'waiting' | 'fetcher'> {
  fetcher: MountedRootfsParts['fetcher'] & WaitingReadsParts['fetcher']
  catalog: Pick<Catalog, 'rootfs' | 'hasRootfs' | 'rootfsDigests'>
  records: Pick<MountRecords, 'list' | 'put' | 'delete'>
  driver: Pick<FuseDriver, 'start' | 'add' | 'setOwners' | 'remove'>
  placement: Placement
  boots: Pick<Boots, 'start' | 'status' | 'end' | 'endAll'>
  /** A rootfs has been mounted, or a mount of it has ended. */
  noteUse?: (rootfs: Digest) => void
  /** Whether the daemon before has left the credentials of a mount, by its id. */
  hasCredentials?: (mount: string) => boolean
  log: Log
  clock?: Clock
}

/** Uses of chunks that nobody has asked for: beyond it those of an image that ends are not known. */
const maxLateUses = 65_536

/** All mounts of this host, and the reads of their rootfs. Their records are kept for the next daemon. */
export class Mounts implements ReadHandler {
  readonly #parts: MountsParts
  readonly #options: MountedRootfsOptions
  /**
   * Rootfs that are served, by their name in the FUSE mount: also some without a mount here, which the kernel has not
   * dropped.
   */
  readonly #rootfs = new Map<string, MountedRootfs>()
  /** Chunks that reads of rootfs which are served no more have used. */
  readonly #lateUses: Digest[] = []
  /** By the directory as the user spelt it. */
  readonly #records = new Map<string, MountRecord>()
  /** Directories that are being mounted, reset or unmounted, without symbolic links. */
  readonly #busy = new Set<string>()
  /** Mounts of one rootfs share its image and tree, so their changes run one after the other. */
  readonly #turns = new KeyedQueue()
  /** The reads of all mounts that wait for data. */
  readonly waiting: WaitingReads

  constructor(parts: MountsParts, options: MountedRootfsOptions) {
    this.#parts = parts
    this.#options = options
    const { fetcher, log, clock } = parts
    const imagesOf = (rootfs: Digest): string[] => [
      ...new Set(this.list().flatMap(({ rootfsDigest, reference }) => (rootfsDigest === rootfs ? reference : []))),
    ]
    this.waiting = new WaitingReads({ fetcher, imagesOf, log, ...(clock && { clock }) })
  }

  /** Takes over the mounts of the previous daemon, and forgets those that are gone. Must come before {@link serve}. */
  async restore(): Promise<void> {
    const { catalog, records: stored, placement, hasCredentials = () => false, log } = this.#parts
    let isComplete = true
    const records = await stored.list((key, error) => {
      isComplete = false
      log.error('mount record cannot be read; it stays, and so do all scratch drives and upper layers', { key, error })
    })
    const standing = await placement.standing(records.map(specOf))
    for (const record of records) {
      const { directory, reference: image, rootfsDigest } = record
      const identity = standing.get(record.id)
      if (identity === undefined) {
        log.warn('mount is gone since the daemon was last here', { directory, image })
        await placement.end([specOf(record)])
        await stored.delete(record)
        continue
      }
      await this.#keep(record, identity)
      const manifest = await catalog.rootfs(rootfsDigest)
      if (manifest !== undefined) await this.#open(manifest, rootfsDigest)
      else log.error('rootfs of a mount is lost, so its reads fail; umount it', { directory, image, rootfsDigest })
    }
    for (const { rootfsDigest } of this.list()) this.#letOwnersIn(rootfsDigest)
    const poorer = this.list().filter(({ id, hadCredentials }) => hadCredentials && !hasCredentials(id))
    if (poorer.length > 0)
      log.warn(
        'credentials of mounts are gone with the daemon before; what is not here is read from peers, or with the credentials ' +
          'of this host; mount the image again with credentials, on another directory, for others',
        { directories: poorer.map(({ directory }) => directory) },
      )
    if (isComplete) await placement.tidy(this.list().map(specOf))
  }

  /** Serves reads from now on. */
  async serve(): Promise<void> {
    await this.#parts.driver.start(this)
  }

  /** Stops fetching for mounts. They stay, unless they cannot outlive the daemon. */
  async close(): Promise<void> {
    for (const mounted of this.#rootfs.values()) mounted.close()
    await this.#parts.boots.endAll()
    await this.#parts.placement.end(this.list().map(specOf))
  }

  list(): MountRecord[] {
    return [...this.#records.values()]
  }

  /** Whether the kernel or the daemon answers the reads of each mount, by its id. */
  async reads(): Promise<Map<string, Reads>> {
    return await this.#parts.placement.reads(this.list().map(specOf))
  }

  /** The rootfs, if it is served. */
  rootfs(digest: Digest): MountedRootfs | undefined {
    return this.#rootfs.get(digestHex(digest))
  }

  /** Calls the listener for each chunk that a read has used since the last call. */
  takeUses(listener: (chunk: Digest) => void): void {
    for (const mounted of this.#rootfs.values()) mounted.takeUses(listener)
    for (const chunk of this.#lateUses.splice(0)) listener(chunk)
  }

  /**
   * Runs the task while the rootfs is neither mounted nor read here, nor comes to be.
   * @throws conflict where it is
   */
  async whileUnused<T>(digest: Digest, task: () => Promise<T>): Promise<T> {
    return await this.#turns.run(digest, async () => {
      const mount = this.list().find(({ rootfsDigest }) => rootfsDigest === digest)
      if (mount !== undefined)
        throw new P2pfsError('conflict', `${mount.reference} is mounted on ${mount.directory}; umount it first`, {
          digest,
        })
      if (this.rootfs(digest) !== undefined)
        throw new P2pfsError('conflict', 'the image is still read by a mount beyond this host, or by an open file', {
          digest,
        })
      return await task()
    })
  }

  /** How far the replay of the boot of a rootfs is; undefined if there is none. */
  bootReplay(digest: Digest): BootReplay | undefined {
    return this.#parts.boots.status(digest)
  }

  async miss(name: string, chunkIndex: number, { signal }: { signal: AbortSignal }): Promise<Uint8Array> {
    const mounted = this.#rootfs.get(name)
    if (mounted === undefined) throw new P2pfsError('missing', 'read of a rootfs that is not mounted')
    return await mounted.miss(chunkIndex, { signal })
  }

  reachedTrigger(name: string, chunkIndex: number): void {
    this.#rootfs.get(name)?.reachedTrigger(chunkIndex)
  }

  async reopen(nodeId: number): Promise<BlockImage | undefined> {
    const { catalog } = this.#parts
    const digest = (await catalog.rootfsDigests()).find((candidate) => nodeIdOf(candidate) === nodeId)
    const manifest = digest && (await catalog.rootfs(digest))
    return manifest && this.#serve(manifest, digest).image
  }

  dropped(name: string): void {
    this.#parts.log.debug('rootfs is served no more', { rootfs: `sha256:${name}` })
    const mounted = this.#rootfs.get(name)
    mounted?.close()
    if (this.#lateUses.length < maxLateUses) mounted?.takeUses((chunk) => this.#lateUses.push(chunk))
    this.#rootfs.delete(name)
  }

  /**
   * @throws conflict if the directory is taken; missing if there is no such directory; unsupported if this host cannot
   * mount it that way
   */
  async mount(manifest: RootfsManifest, record: MountRecord, { signal }: { signal: AbortSignal }): Promise<Placed> {
    const { catalog, records, placement, boots } = this.#parts
    const { directory, rootfsDigest } = record
    const place = await placement.locate(directory)
    if (this.#find(directory, place) !== undefined)
      throw new P2pfsError('conflict', `${directory} is a mount already; umount it first`, { directory })
    return await this.#inTurn(place?.path ?? directory, rootfsDigest, async () => {
      signal.throwIfAborted()
      if (!(await catalog.hasRootfs(rootfsDigest)))
        throw new P2pfsError('conflict', `${record.reference} was removed a moment ago; mount it again`, {
          rootfsDigest,
        })
      const mounted = await this.#open(manifest, rootfsDigest)
      mounted.noteMounted()
      // Recorded first: a daemon that dies before it mounts leaves a record without a mount, which is forgotten.
      await records.put(record)
      try {
        const { placed, reads, identity } = await placement.place(specOf(record), { signal })
        await this.#keep(record, identity)
        this.#letOwnersIn(rootfsDigest)
        this.#parts.noteUse?.(rootfsDigest)
        // Not earlier: a replay would compete with the reads that the mount itself waits for. A whole image needs none, and
        // nobody sees what the kernel reads of it.
        if (reads === 'fuse') boots.start(mounted)
        return placed
      } catch (error) {
        await records.delete(record)
        await this.#closeUnused(rootfsDigest)
        throw error
      }
    })
  }

  /**
   * Gives a mount a fresh scratch drive, or a fresh upper layer.
   * @throws missing if nothing is mounted there; invalid if the mount has neither; conflict if it is in use
   */
  async reset(directory: string): Promise<Placed> {
    return await this.#change(directory, async (record) => {
      const { placed, identity } = await this.#parts.placement.reset(specOf(record))
      await this.#keep(record, identity)
      return placed
    })
  }

  /** @returns the mount that has ended @throws missing if nothing is mounted there; conflict if it is in use */
  async umount(directory: string): Promise<MountRecord> {
    return await this.#change(directory, async (record) => {
      await this.#parts.placement.remove(specOf(record))
      await this.#parts.records.delete(record)
      this.#records.delete(record.directory)
      this.#letOwnersIn(record.rootfsDigest)
      this.#parts.noteUse?.(record.rootfsDigest)
      await this.#closeUnused(record.rootfsDigest)
      return record
    })
  }

  /** Changes the mount on a directory. @throws missing if none of ours is on it */
  async #change<T>(directory: string, change: (record: MountRecord) => Promise<T>): Promise<T> {
    const place = await this.#parts.placement.locate(directory)
    const found = this.#find(directory, place)
    if (found === undefined) throw notMounted(directory)
    return await this.#inTurn(place?.path ?? directory, found.rootfsDigest, async () => {
      const record = this.#records.get(found.directory)
      if (record?.id !== found.id) throw notMounted(directory)
      return await change(record)
    })
  }

  /** The record of the mount at a place, or else of the one that was mounted by this name, wherever it is now. */
  #find(directory: string, place: Place | undefined): MountRecord | undefined {
    const identity = place?.identity
    const record = identity === undefined ? undefined : this.list().find((candidate) => candidate.identity === identity)
    return record ?? this.#records.get(directory)
  }

  /** Keeps which mount a record stands for. */
  async #keep(record: MountRecord, identity: string): Promise<void> {
    // The kernel uses ids again: another mount that had this identity was ended behind our back.
    for (const { identity: former, ...other } of this.list())
      if (former === identity && other.id !== record.id) await this.#put(other)
    if (record.identity === identity) this.#records.set(record.directory, record)
    else await this.#put({ ...record, identity })
  }

  async #put(record: MountRecord): Promise<void> {
    this.#records.set(record.directory, record)
    await this.#parts.records.put(record).catch((error: unknown) =>
      // The next daemon looks for a mount without identity where it was mounted.
      this.#parts.log.warn('mount record cannot be brought up to date', { error, directory: record.directory }),
    )
  }

  #serve(manifest: RootfsManifest, digest: Digest): MountedRootfs {
    const name = digestHex(digest)
    const parts = { ...this.#parts, waiting: this.waiting }
    const served = this.#rootfs.get(name) ?? new MountedRootfs(parts, this.#options, manifest, digest)
    this.#rootfs.set(name, served)
    return served
  }

  async #open(manifest: RootfsManifest, digest: Digest): Promise<MountedRootfs> {
    const served = this.#serve(manifest, digest)
    await this.#parts.driver.add(served.image)
    return served
  }

  /** All mounts of a rootfs show the same file: whoever owns one of them may open it. */
  #letOwnersIn(digest: Digest): void {
    const uids = this.list().flatMap(({ rootfsDigest, owner }) =>
      rootfsDigest === digest && owner !== undefined ? [owner.uid] : [],
    )
    this.#parts.driver.setOwners(digestHex(digest), uids)
  }

  /** Ends the tree, and the rootfs, if no mount needs it any more. */
  async #closeUnused(digest: Digest): Promise<void> {
    const { placement, driver, boots, log } = this.#parts
    const name = digestHex(digest)
    const users = this.list().filter((record) => record.rootfsDigest === digest)
    if (users.some((record) => record.as === 'tree')) return
    const isReleased = await placement.release(name)
    if (!isReleased) log.warn('tree is in use beyond its mounts; it stays', { rootfs: digest })
    if (!isReleased || users.length > 0) return
    await boots.end(digest)
    if (await driver.remove(name)) this.dropped(name)
  }

  /** Runs a change after the other changes of the same rootfs. @throws conflict if the directory is being changed */
  async #inTurn<T>(directory: string, digest: Digest, task: () => Promise<T>): Promise<T> {
    if (this.#busy.has(directory))
      throw new P2pfsError('conflict', `${directory} is being mounted or unmounted; try again`, { directory })
    this.#busy.add(directory)
    try {
      return await this.#turns.run(digest, task)
    } finally {
      this.#busy.delete(directory)
    }
  }
}

function notMounted(directory: string): P2pfsError {
  return new P2pfsError('missing', `nothing of p2pfs is mounted on ${directory}; p2pfs status lists the mounts`, {
    directory,
  })
}

function specOf(record: MountRecord): MountSpec {
  return { ...record, rootfs: digestHex(record.rootfsDigest) }
}
