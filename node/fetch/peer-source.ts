import { isP2pfsError, type P2pfsError } from '../../protocol/errors.ts'
import { Bandwidth } from '../base/bandwidth.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import { ShareBudget } from '../base/share-budget.ts'
import type { Urgency } from '../base/urgency.ts'
import type { ChunkRequest, Delivery, FetchPriority } from '../model/chunk-request.ts'
import type { Availability } from '../peers/availability.ts'
import { worthBytes } from '../peers/bulk/bulk-limits.ts'
import type { BulkPlane } from '../peers/bulk/bulk-plane.ts'
import type { ChunkClient, StreamClass } from '../peers/chunk/client.ts'
import { standings, type PeerStanding } from '../peers/peer-standing.ts'
import type { SpanStewards } from '../peers/spans/span-stewards.ts'
import { fetchInBulk } from './bulk-fetch.ts'
import type { AskOptions, Holders, Reader } from './holders.ts'
import { PeerFetch } from './peer-fetch.ts'
import type { SourceOptions } from './source.ts'

export interface PeerSourceParts {
  availability: Pick<Availability, 'holders' | 'whenAsked' | 'forgetClaim'>
  chunks: Pick<ChunkClient, 'fetchChunk' | 'meet' | 'standing' | 'usualMs' | 'comingMs' | 'isBusyWithEarlier'>
  bulk: Pick<BulkPlane, 'ready' | 'fetchToStore' | 'isBusyWithEarlier'>
  /** A limit on what is taken from peers. */
  download?: Pick<Bandwidth, 'take' | 'giveBack' | 'charge'>
  spans: Pick<SpanStewards, 'placeOf' | 'ask'>
  log: Log
  clock?: Clock
}

export interface PeerSourceOptions extends Omit<SourceOptions, 'fetchChunk'> {
  /** Why the chunk is fetched, as it is now. Where it is not given, it is as the urgency says. */
  priority?: () => FetchPriority
  /** Called for each peer that did not deliver. */
  onRefusal?: (peer: string, error: P2pfsError) => void
  /** Called when another source should be asked too; once. The peers are waited for all the same. */
  onLate?: () => void
  /**
   * Fires when this host is to read the chunk from the registry, because another member has asked it to: then it asks
   * nobody else to.
   */
  isReader?: AbortSignal
  /** Given who has been asked and has not answered, at any time until the fetch ends. */
  onBegin?: (asked: () => string[]) => void
}

/**
 * How long a want may wait while its peer does not get on with any answer (ms): then the fetch is done with that peer.
 * Reads that somebody waits for have asked others long before.
 */
const stallMs = 5_000
/**
 * Chunks that are asked for twice although the first peer is not known as silent: at most this share of the reads that
 * somebody waits for, and a few besides.
 */
const hedges = { share: 0.05, burst: 16 } as const
/** The same for readers that do not say soon that they read: each that is passed over costs the registry a range. */
const passedOver = { share: 0.02, burst: 2 } as const
/** More than all that is under way to one peer (bytes). */
const untried = 2 ** 40
const nobody: ReadonlySet<string> = new Set()

/**
 * Asks the holders of a chunk. Those that have delivered come first, the least busy of them before the others; those
 * that are silent come last. See {@link PeerFetch} for when a second one is asked.
 */
export class PeerSource {
  readonly #parts: PeerSourceParts
  readonly #clock: Clock
  readonly #download: Pick<Bandwidth, 'take' | 'giveBack' | 'charge'>
  readonly #budget = new ShareBudget(hedges)
  readonly #readerBudget = new ShareBudget(passedOver)
  /** Bytes that are under way from each peer. */
  readonly #loads = new Map<string, number>()

  constructor(parts: PeerSourceParts) {
    this.#parts = parts
    this.#clock = parts.clock ?? systemClock
    this.#download = parts.download ?? new Bandwidth()
  }

  /**
   * A read that somebody waits for asks a second holder when the first does not get on, and a third. A chunk that nobody
   * waits for comes in bulk where its holder delivers so.
   * @throws missing where no connected peer delivers it; the signal's reason
   */
  async fetch(request: ChunkRequest, options: PeerSourceOptions): Promise<Delivery> {
    const { table, index, lengthBytes } = request
    await this.#parts.availability.whenAsked(table, { signal: options.signal, index })
    const run = async (): Promise<Delivery> =>
      await new PeerFetch({ holders: this, clock: this.#clock }, request, options).run()
    // The limit on what peers bring holds up no chunk that nobody is known to hold.
    if (this.next(request, nobody) === undefined) {
      const delivery = await run()
      this.#download.charge(lengthBytes)
      return delivery
    }
    const { signal, urgency, priority } = options
    await this.#download.take(lengthBytes, { signal, urgency, isLast: priority?.() === 'background' })
    try {
      return await run()
    } catch (error) {
      this.#download.giveBack(lengthBytes)
      throw error
    }
  }

  /**
   * The holder to ask next.
   * @param except those that have been asked
   * @param named connected members that others have named, besides those that have said so themselves
   */
  next(
    request: ChunkRequest,
    except: ReadonlySet<string>,
    named: ReadonlySet<string> = nobody,
  ): { id: string; standing: PeerStanding; underWayBytes: number } | undefined {
    const { availability } = this.#parts
    let best: (ReturnType<Holders['next']> & { place: number; busyBytes: number }) | undefined
    for (const id of [...availability.holders(request.table, request.index), ...named]) {
      if (except.has(id)) continue
      const standing = this.standing(id)
      if (standing === undefined) continue
      const { current } = standing
      const loadBytes = this.#loads.get(id) ?? 0
      // A peer that has not delivered yet is tried, one chunk at a time, where one that has is busy with more than that:
      // soon all that deliver are known, and a liar gets little.
      const trial = current !== standings.unproven ? 0 : loadBytes === 0 ? request.lengthBytes : untried
      const candidate = {
        id,
        standing,
        place: current === standings.unproven ? standings.proven : current,
        busyBytes: loadBytes + trial,
        underWayBytes: loadBytes,
      }
      if (
        best === undefined ||
        candidate.place < best.place ||
        (candidate.place === best.place && candidate.busyBytes < best.busyBytes)
      )
        best = candidate
    }
    return best
  }

  /** Whether a member is known to hold the chunk. */
  isHeld(request: ChunkRequest): boolean {
    return this.next(request, nobody) !== undefined
  }

  /**
   * The member from which this host gets a chunk that nobody holds; `registry` where it is to read it by itself; undefined
   * where a steward has to be asked.
   */
  reader({ table, index }: ChunkRequest): Reader | 'registry' | undefined {
    const { spans, chunks } = this.#parts
    const place = spans.placeOf(table, index)
    if (place === undefined) return undefined
    const { member: id, depth } = place
    return id === undefined ? 'registry' : { id, depth, standing: chunks.standing(id) }
  }

  /** How the peer has behaved; undefined where it is not connected. */
  standing(id: string): PeerStanding | undefined {
    try {
      return this.#parts.chunks.standing(id)
    } catch (error) {
      if (!isP2pfsError(error, 'unavailable')) throw error
      return undefined
    }
  }

  /** Connects to a member that is said to hold a chunk. @returns whether it is connected */
  async meet(id: string, { signal }: { signal: AbortSignal }): Promise<boolean> {
    try {
      await this.#parts.chunks.meet(id, { signal })
      return true
    } catch (error) {
      signal.throwIfAborted()
      if (!isP2pfsError(error)) throw error
      return false
    }
  }

  /** Resolves when a steward has said, or none has in time, who reads the chunk: {@link reader} tells. Never rejects. */
  async findReader({ table, index }: ChunkRequest, urgency: Urgency): Promise<void> {
    await this.#parts.spans.ask(table, index, { urgency })
  }

  /** How long a peer that owes a chunk takes to get on, in 95 of 100 cases (ms). */
  usualMs(streamClass: StreamClass): number {
    return this.#parts.chunks.usualMs(streamClass)
  }

  /** How long members take to say that they read a chunk, in 95 of 100 cases (ms). */
  get comingMs(): number {
    return this.#parts.chunks.comingMs
  }

  /** Somebody waits for one more chunk. */
  countDemand(): void {
    this.#budget.count()
    this.#readerBudget.count()
  }

  /** Whether a reader that does not say soon that it reads may be passed over at once. */
  mayPassOver(): boolean {
    return this.#readerBudget.take()
  }

  /** Whether a chunk may be asked for twice although the peer that was asked is not silent. */
  mayAskAgain(): boolean {
    return this.#budget.take()
  }

  /**
   * Whether the peer is busy with what it was asked for before this want, and gets on: the want waits for its turn.
   * @param askedAtMs when the want was sent (ms of the clock)
   */
  isBusyWithEarlier(id: string, streamClass: StreamClass, askedAtMs: number): boolean {
    const { chunks, bulk } = this.#parts
    if (streamClass === 'background' && bulk.isBusyWithEarlier(id, askedAtMs)) return true
    return chunks.isBusyWithEarlier(id, streamClass, askedAtMs)
  }

  /** Asks one holder. @throws what the peer refused with; the signal's reason */
  async ask(id: string, request: ChunkRequest, options: AskOptions): Promise<Delivery> {
    const { availability, chunks, log } = this.#parts
    const { digest, lengthBytes, table, index } = request
    const { signal } = options
    const standing = chunks.standing(id)
    this.#loads.set(id, (this.#loads.get(id) ?? 0) + lengthBytes)
    try {
      return await this.#fetch(id, request, options)
    } catch (error) {
      if (signal.aborted || !isP2pfsError(error)) throw error
      log.debug('peer did not deliver', { error, peer: id, digest })
      // One that has much to serve is not to blame.
      if (error.code !== 'busy') standing.failed()
      if (error.code === 'missing') availability.forgetClaim(id, table, index)
      throw error
    } finally {
      const left = this.#loads.get(id)! - lengthBytes
      if (left > 0) this.#loads.set(id, left)
      else this.#loads.delete(id)
    }
  }

  /**
   * Asks a member to get the chunk, if it does not hold it.
   * @param options `onComing`: called when it says that it is doing so
   * @throws missing where it cannot, or does not track the segment; busy; what else it refused with; the signal's reason
   */
  async askReader(
    { id, depth }: Reader,
    { digest, lengthBytes }: ChunkRequest,
    options: { signal: AbortSignal; urgency: Urgency; priority: FetchPriority; onComing: () => void },
  ): Promise<Delivery> {
    const { chunks, log } = this.#parts
    const { signal, urgency, priority, onComing } = options
    const streamClass = urgency.isUrgent ? 'demand' : 'background'
    try {
      const wanted = { signal, streamClass, priority, stallMs, relay: { urgency, depth }, onComing } as const
      return await chunks.fetchChunk(id, digest, lengthBytes, wanted)
    } catch (error) {
      if (signal.aborted || !isP2pfsError(error)) throw error
      log.debug('peer does not read a chunk for this host', { error, peer: id, digest })
      // Whoever lacks it may have been named by a steward that lies.
      if (error.code !== 'busy' && error.code !== 'missing') chunks.standing(id).failed()
      throw error
    }
  }

  async #fetch(
    id: string,
    request: ChunkRequest,
    { signal, streamClass, urgency, priority, waits, isNamed }: AskOptions,
  ): Promise<Delivery> {
    const { chunks, bulk, clock } = this.#parts
    const overLibp2p = async (streamClass: StreamClass, signal: AbortSignal): Promise<Uint8Array> =>
      await chunks.fetchChunk(id, request.digest, request.lengthBytes, {
        signal,
        streamClass,
        priority: streamClass === 'demand' ? streamClass : priority,
        waits,
        stallMs,
      })
    if (streamClass === 'demand') return await overLibp2p(streamClass, signal)
    // A holder that others are named by has much to give: more will come from who is named.
    const underWayBytes = isNamed ? Math.max(this.#loads.get(id)!, worthBytes) : this.#loads.get(id)!
    const isInBulk = await bulk.ready(id, { underWayBytes, signal, urgency })
    if (!isInBulk) return await overLibp2p(urgency.isUrgent ? 'demand' : 'background', signal)
    const isLast = priority === 'background'
    const options = { signal, urgency, isLast, waits }
    return await fetchInBulk({ bulk, overLibp2p, ...(clock && { clock }) }, id, request, options)
  }
}
