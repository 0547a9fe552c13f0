import { isP2pfsError, type P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import type { ChunkRequest, FetchPriority } from '../model/chunk-request.ts'
import type { Availability } from '../peers/availability.ts'
import type { ChunkClient } from '../peers/chunk/client.ts'

export interface PeerSourceParts {
  availability: Pick<Availability, 'holders'>
  chunks: Pick<ChunkClient, 'fetchChunk'>
  log: Log
  /** The clock (ms). */
  now?: () => number
}

/**
 * How long one peer may take to deliver one chunk, milliseconds. A lost connection is noticed sooner, by the
 * peer layer; this bounds one that is alive and does not answer, on a link that may carry 32 MiB ahead of it.
 */
const timeoutMs = { demand: 10_000, background: 60_000 }

/** A peer that did not deliver is asked last for this long, milliseconds. */
const penaltyMs = 10_000

/** Asks the holders of a chunk in turn: the least busy first, those that failed a moment ago last. */
export class PeerSource {
  readonly #availability: PeerSourceParts['availability']
  readonly #chunks: PeerSourceParts['chunks']
  readonly #log: Log
  readonly #now: () => number
  readonly #outstandingBytes = new Map<string, number>()
  readonly #penalisedUntil = new Map<string, number>()

  constructor({ availability, chunks, log, now = Date.now }: PeerSourceParts) {
    this.#availability = availability
    this.#chunks = chunks
    this.#log = log
    this.#now = now
  }

  /** The chunk, or undefined where no connected peer delivers it. Rejects on abort alone. */
  async fetch(
    request: ChunkRequest,
    options: { signal: AbortSignal; priority: FetchPriority; onRefusal?: (peer: string, error: P2pfsError) => void },
  ): Promise<Uint8Array | undefined> {
    const { signal } = options
    const streamClass = options.priority === 'demand' ? 'demand' : 'background'
    const asked = new Set<string>()
    for (;;) {
      // Asked anew each time: holders come and go while we try.
      const holders = this.#availability.holders(request.table, request.index)
      const peer = this.#best(holders.filter((id) => !asked.has(id)))
      if (peer === undefined) return undefined
      asked.add(peer)
      this.#outstandingBytes.set(peer, (this.#outstandingBytes.get(peer) ?? 0) + request.lengthBytes)
      try {
        return await this.#chunks.fetchChunk(peer, request.digest, request.lengthBytes, {
          signal,
          streamClass,
          timeoutMs: timeoutMs[streamClass],
        })
      } catch (error) {
        if (signal.aborted) throw error
        if (!isP2pfsError(error)) throw error
        this.#log.debug('peer did not deliver', { error, peer, digest: request.digest })
        options.onRefusal?.(peer, error)
        if (error.code !== 'missing') this.#penalise(peer)
      } finally {
        const left = (this.#outstandingBytes.get(peer) ?? 0) - request.lengthBytes
        if (left > 0) this.#outstandingBytes.set(peer, left)
        else this.#outstandingBytes.delete(peer)
      }
    }
  }

  #penalise(peer: string): void {
    const now = this.#now()
    for (const [id, until] of this.#penalisedUntil) if (until <= now) this.#penalisedUntil.delete(id)
    this.#penalisedUntil.set(peer, now + penaltyMs)
  }

  #best(holders: string[]): string | undefined {
    const now = this.#now()
    const cost = (peer: string): number =>
      (this.#outstandingBytes.get(peer) ?? 0) +
      ((this.#penalisedUntil.get(peer) ?? 0) > now ? Number.MAX_SAFE_INTEGER / 2 : 0)
    let best: string | undefined
    for (const peer of holders) if (best === undefined || cost(peer) < cost(best)) best = peer
    return best
  }
}
