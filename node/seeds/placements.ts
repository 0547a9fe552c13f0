import { Bitmap } from '../../protocol/bitmap.ts'
import { sketchOf } from '../../protocol/boot-profile.ts'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { PlaceRequest } from '../../protocol/messages/seed.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { SeedProgress } from '../../protocol/seed-job.ts'
import type { Bandwidth } from '../base/bandwidth.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import { KeyedQueue } from '../base/keyed-queue.ts'
import { Semaphore } from '../base/semaphore.ts'
import { Urgency } from '../base/urgency.ts'
import { profileChunks, type BootProfiles } from '../boot/profiles.ts'
import type { Fetcher } from '../fetch/fetcher.ts'
import { PeerQuota } from '../images/peer-quota.ts'
import type { ImageResolver } from '../images/resolver.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import type { Room } from '../store/disk-room.ts'
import type { Inventory } from '../store/inventory.ts'
import type { PinRecord } from '../store/pin-record.ts'
import { ChunkCopy, countOf } from './chunk-copy.ts'
import type { HotRoom } from './hot-room.ts'
import { pinKey, type Pins } from './pins.ts'
import { seedLimits, type SeedLimits } from './seed-limits.ts'

type ChunkFetcher = Pick<Fetcher, 'fetchToStore' | 'settled'>

export interface PlacementsParts {
  /** Peer id of this host. */
  own: string
  resolver: Pick<ImageResolver, 'findForSeed'>
  profiles: Pick<BootProfiles, 'find'>
  inventory: Pick<Inventory, 'has' | 'scrub' | 'localBytes'>
  pins: Pins
  /** For images that no operator has ordered. */
  hotRoom: Pick<HotRoom, 'make'>
  /** From members and the registry. */
  fetcher: ChunkFetcher
  /** From members alone. */
  regionFetcher: ChunkFetcher
  /** Whether this host reads the image's registry for what members want here. */
  readsFor: (reference: string) => Promise<boolean>
  /** How much room the disk of the chunks has. */
  room: () => Promise<Room>
  /** A limit on what comes of images that are mounted often. */
  hotBandwidth: Pick<Bandwidth, 'take'>
  log: Log
}

export interface PlaceOptions {
  /** The host that asks: a member, or this host for its operator. */
  peer: string
  signal: AbortSignal
  onProgress: (progress: SeedProgress) => void
}

/**
 * Makes images whole on this host because a job wants them here. For a member this is work that others choose: it is
 * bounded in number, bytes and time, and the operator may refuse all of it.
 */
export class Placements {
  readonly #parts: PlacementsParts
  readonly #limits: SeedLimits
  readonly #isForPeers: boolean
  readonly #clock: Clock
  readonly #takesHot: boolean
  readonly #quota: PeerQuota
  /** A member has one at a time here, so that no member has all that run. */
  readonly #ofPeer = new KeyedQueue()
  readonly #forPeers: Semaphore
  /** Not held up by what members want here. */
  readonly #forOperator: Semaphore
  /** The chunks that were hashed since the image was pinned, by pin. */
  readonly #verified = new Map<string, Bitmap>()

  /**
   * @param options `takesHot`: whether images are placed here that no operator has ordered, because they are mounted
   *   often
   */
  constructor(
    parts: PlacementsParts,
    {
      isForPeers,
      takesHot = false,
      limits = seedLimits,
      clock,
    }: { isForPeers: boolean; takesHot?: boolean; limits?: SeedLimits; clock?: Clock },
  ) {
    this.#takesHot = takesHot
    this.#clock = clock ?? systemClock
    this.#parts = parts
    this.#limits = limits
    this.#isForPeers = isForPeers
    this.#quota = new PeerQuota({ now: this.#clock.now }, limits)
    this.#forPeers = new Semaphore(limits.placementsAtOnce)
    this.#forOperator = new Semaphore(limits.placementsAtOnce)
  }

  /**
   * 1. The request of a member is allowed and within the bounds.
   * 2. The rootfs is one that this host believes, as for a mount that does not ask the registry.
   * 3. There is room, and the image is pinned. An image that is mounted often takes the room of images that are mounted
   *    less often.
   * 4. Its chunks come, from the registry only where the operator has named it, and all are hashed.
   * @throws denied where the operator does not want it; busy where a bound is reached; missing where nobody has the
   *   image whom this host believes; what the fetch throws
   */
  async place(request: PlaceRequest, options: PlaceOptions): Promise<SeedProgress> {
    const { peer, signal } = options
    const place = async (): Promise<SeedProgress> => {
      signal.throwIfAborted()
      return await this.#place(request, options)
    }
    if (this.#isOfOperator(request, peer)) return await this.#forOperator.run(place)
    if (request.demand !== undefined && !this.#takesHot)
      throw new P2pfsError('denied', 'this host takes no images because they are mounted often (--hot-images off)')
    if (!this.#isForPeers) throw new P2pfsError('denied', 'this host takes no seeds of members')
    const leave = this.#quota.enter(peer)
    try {
      return await this.#ofPeer.run(peer, async () => await this.#forPeers.run(place))
    } finally {
      leave()
    }
  }

  #isOfOperator({ demand }: Pick<PlaceRequest, 'demand'>, peer: string): boolean {
    return peer === this.#parts.own && demand === undefined
  }

  async #place(request: PlaceRequest, { peer, signal, onProgress }: PlaceOptions): Promise<SeedProgress> {
    const { resolver, pins, hotRoom, fetcher, regionFetcher, readsFor, inventory, room, log } = this.#parts
    const { job, extent, untilMs, rootfsDigest, demand } = request
    const isOwn = this.#isOfOperator(request, peer)
    // First: what is looked up is kept.
    if (!isOwn) await this.#checkRoom(0)
    const found = await resolver.findForSeed(request, { signal })
    if (found === undefined)
      throw new P2pfsError('missing', 'no member that this host believes has the image', { digest: rootfsDigest })
    const { manifest } = found
    const tables = tablesOf(manifest)
    const wanted = extent === 'full' ? undefined : await this.#hot(rootfsDigest, manifest, signal)
    const copy = new ChunkCopy(tables, { wanted, verified: this.#verifiedOf(pinKey(request), countOf(tables)) })
    const { sizeBytes } = copy
    const missingBytes = wanted === undefined ? sizeBytes - inventory.localBytes(tables) : sizeBytes
    if (!isOwn) await this.#checkRoom(missingBytes)
    const wasPinned = pins.has(request)
    if (demand !== undefined) await hotRoom.make({ job, rootfsDigest, sizeBytes, demand }, { signal })
    const { reference, platform, format, manifestDigest } = request
    const { held, total } = copy.count(inventory)
    const pin: PinRecord = {
      reference,
      platform,
      format,
      manifestDigest,
      rootfsDigest,
      job,
      extent,
      untilMs,
      peer,
      sizeBytes,
      ...(demand && { demand }),
      ...(demand && held < total && { evictable: true }),
    }
    await pins.put(pin, await room())
    const watch = isOwn ? undefined : this.#watch()
    try {
      const parts = {
        inventory,
        fetcher: isOwn || (await readsFor(reference)) ? fetcher : regionFetcher,
        pace: demand && this.#paceHot,
        clock: this.#clock,
      }
      const progress = await copy.complete(parts, {
        signal: watch === undefined ? signal : AbortSignal.any([signal, watch.signal]),
        onProgress: (progress) => {
          watch?.note(progress)
          onProgress(progress)
        },
      })
      if (demand !== undefined && !pins.has(request))
        throw new P2pfsError('busy', 'the image has made room for another one that is mounted more often')
      if (!wasPinned) log.info('image placed for a seed', { digest: rootfsDigest, job, extent, peer })
      return progress
    } catch (error) {
      // A coordinator that goes away may be followed by another one, which goes on with what is here.
      if (!signal.aborted && !wasPinned) await pins.release(job, peer)
      throw error
    } finally {
      watch?.stop()
      // Chunks that have come since the pin ended take room again.
      if (pin.evictable === true && !pins.has(request)) await pins.noteEnded(pin)
    }
  }

  readonly #paceHot = async (bytes: number, { signal }: { signal: AbortSignal }): Promise<void> => {
    await this.#parts.hotBandwidth.take(bytes, { signal, urgency: new Urgency(false) })
  }

  /** Positions of the metadata and of the boot profile's chunks. */
  async #hot(rootfs: Digest, manifest: RootfsManifest, signal: AbortSignal): Promise<Bitmap> {
    const tables = tablesOf(manifest)
    const wanted = new Bitmap(countOf(tables))
    for (let position = 0; position < manifest.metadata.count; position++) wanted.set(position)
    const segments = manifest.layers.map(({ chunks }) => chunks)
    const found = await this.#parts.profiles.find(
      { rootfs, sketch: sketchOf(segments) },
      segments.map(({ id }) => id),
      { signal },
    )
    for (const position of profileChunks(found?.profile.chunks ?? [], tables)) wanted.set(position)
    return wanted
  }

  /** As many bitmaps as there are pins. */
  #verifiedOf(key: string, count: number): Bitmap {
    const pinned = new Set(this.#parts.pins.list().map(pinKey))
    for (const known of this.#verified.keys()) if (!pinned.has(known)) this.#verified.delete(known)
    const verified = this.#verified.get(key) ?? new Bitmap(count)
    this.#verified.set(key, verified)
    return verified
  }

  /** Ends a placement for a member when the disk gets full, or when nothing comes for too long. */
  #watch(): { signal: AbortSignal; note: (progress: SeedProgress) => void; stop: () => void } {
    const { roomIntervalMs, stallMs } = this.#limits
    const ended = new AbortController()
    let last = { verified: -1, atMs: this.#clock.now() }
    let cancel = (): void => undefined
    const look = (): void => {
      if (this.#clock.now() - last.atMs > stallMs)
        return ended.abort(
          new P2pfsError('unavailable', 'no chunk of the image has come for too long', { timeoutMs: stallMs }),
        )
      this.#checkRoom(0).catch((error: unknown) => ended.abort(error))
      cancel = this.#clock.after(roomIntervalMs, look)
    }
    look()
    return {
      signal: ended.signal,
      note: ({ verified }) => {
        if (verified !== last.verified) last = { verified, atMs: this.#clock.now() }
      },
      stop: () => cancel(),
    }
  }

  /** @throws busy where too little room would be left */
  async #checkRoom(moreBytes: number): Promise<void> {
    const { freeShare, freeBytes: mostFreeBytes } = this.#limits
    const { freeBytes, sizeBytes } = await this.#parts.room()
    if (freeBytes - moreBytes >= Math.min(mostFreeBytes, freeShare * sizeBytes)) return
    throw new P2pfsError('busy', 'too little room on the disk for seeds of members', { freeBytes, moreBytes })
  }
}
