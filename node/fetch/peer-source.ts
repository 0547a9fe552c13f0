import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import { ShareBudget } from '../base/share-budget.ts'
import type { ChunkRequest } from '../model/chunk-request.ts'
import type { Availability } from '../peers/availability.ts'
import type { ChunkClient, StreamClass } from '../peers/chunk/client.ts'
import { standings, type PeerStanding } from '../peers/peer-standing.ts'
import { PeerFetch } from './peer-fetch.ts'
import type { ChunkSource, SourceOptions } from './source.ts'

export interface PeerSourceParts {
  availability: Pick<Availability, 'holders' | 'forget'>
  chunks: Pick<ChunkClient, 'fetchChunk' | 'standing' | 'usualMs'>
  log: Log
  clock?: Clock
}

export interface PeerSourceOptions extends Omit<SourceOptions, 'fetchChunk'> {
  /** Called for each peer that did not deliver. */
  onRefusal?: (peer: string, error: P2pfsError) => void
  /** Called when another source should be asked too; once. The peers are waited for all the same. */
  onLate?: () => void
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
/** A peer that has not delivered yet is tried with one chunk, where one that has is busier than that (bytes). */
const trialBytes = 256 * 1024
/** More than all that is under way to one peer (bytes). */
const untried = 2 ** 40
/** Wants that are sent within this time count as sent together (ms). */
const togetherMs = 20

/** What is under way to one peer. */
interface Load {
  bytes: number
  /** The last want of each class that the peer has met: when it was sent, and met (ms of the clock). */
  met: Partial<Record<StreamClass, { askedAtMs: number; metAtMs: number }>>
}

/**
 * Asks the holders of a chunk. Those that have delivered come first, the least busy of them before the others; those
 * that are silent come last. See {@link PeerFetch} for when a second one is asked.
 */
export class PeerSource implements ChunkSource {
  readonly #parts: PeerSourceParts
  readonly #clock: Clock
  readonly #budget = new ShareBudget(hedges)
  /** Of peers with something under way. */
  readonly #loads = new Map<string, Load>()
  /** Chunks that peers have been asked for, and those of them that were asked for again while the first answer was due. */
  readonly asked = { chunks: 0, again: 0 }

  constructor(parts: PeerSourceParts) {
    this.#parts = parts
    this.#clock = parts.clock ?? systemClock
  }

  /**
   * A read that somebody waits for asks a second holder when the first does not get on, and a third.
   * @throws missing where no connected peer delivers it; the signal's reason
   */
  async fetch(request: ChunkRequest, options: PeerSourceOptions): Promise<Uint8Array> {
    return await new PeerFetch({ holders: this, clock: this.#clock }, request, options).run()
  }

  /** The holder to ask next. @param except those that have been asked */
  next(request: ChunkRequest, except: ReadonlySet<string>): { id: string; standing: PeerStanding } | undefined {
    const { availability, chunks } = this.#parts
    let best: { id: string; standing: PeerStanding; place: number; busyBytes: number } | undefined
    for (const id of availability.holders(request.table, request.index)) {
      if (except.has(id)) continue
      const standing = chunks.standing(id)
      const { current } = standing
      const loadBytes = this.#loads.get(id)?.bytes ?? 0
      // One chunk at a time goes to a peer that is not known: more than one peer delivers soon, and a liar gets little.
      const trial = current !== standings.unproven ? 0 : loadBytes === 0 ? trialBytes : untried
      const candidate = {
        id,
        standing,
        place: current === standings.unproven ? standings.proven : current,
        busyBytes: loadBytes + trial,
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

  /** How long a peer that owes a chunk takes to get on, in 95 of 100 cases (ms). */
  usualMs(streamClass: StreamClass): number {
    return this.#parts.chunks.usualMs(streamClass)
  }

  /** Somebody waits for one more chunk. */
  countDemand(): void {
    this.#budget.count()
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
    const met = this.#loads.get(id)?.met[streamClass]
    if (met === undefined) return false
    const isRecent = this.#clock.now() - met.metAtMs <= this.usualMs(streamClass)
    return isRecent && met.askedAtMs <= askedAtMs + togetherMs
  }

  /** Asks one holder. @throws what the peer refused with; the signal's reason */
  async ask(
    id: string,
    { digest, lengthBytes, table, index }: ChunkRequest,
    { signal, streamClass, isAgain }: { signal: AbortSignal; streamClass: StreamClass; isAgain: boolean },
  ): Promise<Uint8Array> {
    const { availability, chunks, log } = this.#parts
    const askedAtMs = this.#clock.now()
    const standing = chunks.standing(id)
    const load = this.#loads.get(id) ?? { bytes: 0, met: {} }
    this.#loads.set(id, load)
    load.bytes += lengthBytes
    this.asked.chunks++
    if (isAgain) this.asked.again++
    try {
      const bytes = await chunks.fetchChunk(id, digest, lengthBytes, { signal, streamClass, stallMs })
      load.met[streamClass] = { askedAtMs, metAtMs: this.#clock.now() }
      return bytes
    } catch (error) {
      if (signal.aborted || !isP2pfsError(error)) throw error
      log.debug('peer did not deliver', { error, peer: id, digest })
      standing.failed()
      if (error.code === 'missing') availability.forget(id, table, index)
      throw error
    } finally {
      load.bytes -= lengthBytes
      if (load.bytes <= 0) this.#loads.delete(id)
    }
  }
}
