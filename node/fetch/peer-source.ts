import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { Log } from '../base/log.ts'
import type { Urgency } from '../base/urgency.ts'
import type { ChunkRequest, Delivery } from '../model/chunk-request.ts'
import type { Availability } from '../peers/availability.ts'
import type { BulkPlane } from '../peers/bulk/bulk-plane.ts'
import type { ChunkClient, StreamClass } from '../peers/chunk/client.ts'
import { fetchInBulk } from './bulk-fetch.ts'
import type { SourceOptions } from './source.ts'

export interface PeerSourceParts {
  availability: Pick<Availability, 'holders' | 'whenAsked'>
  chunks: Pick<ChunkClient, 'fetchChunk'>
  bulk: Pick<BulkPlane, 'carries' | 'fetchToStore'>
  log: Log
  /** The clock (ms). */
  now?: () => number
}

/**
 * How long one peer may take to deliver one chunk (ms). The peer layer notices a lost connection sooner; this bounds a
 * peer that is alive and does not answer, on a link that may carry 32 MiB before the chunk.
 */
const timeoutMs = { demand: 10_000, background: 60_000 }

/** A peer that did not deliver is asked last for this long (ms). */
const penaltyMs = 10_000
/** Peers whose failure is remembered; a region has fewer. */
const maxPenalised = 4096

/** Asks the holders of a chunk in turn: the least busy first, those that failed a moment ago last. */
export class PeerSource {
  readonly #availability: PeerSourceParts['availability']
  readonly #chunks: PeerSourceParts['chunks']
  readonly #bulk: PeerSourceParts['bulk']
  readonly #log: Log
  readonly #outstandingBytes = new Map<string, number>()
  readonly #penalised: ExpiringMap<string>

  constructor({ availability, chunks, bulk, log, now = () => performance.now() }: PeerSourceParts) {
    this.#availability = availability
    this.#chunks = chunks
    this.#bulk = bulk
    this.#log = log
    this.#penalised = new ExpiringMap({ maxEntries: maxPenalised, now })
  }

  /**
   * A chunk that nobody waits for comes in bulk where the peer delivers so.
   * @param options `onRefusal` is called for each peer that did not deliver
   * @throws missing where no connected peer delivers it; the signal's reason
   */
  async fetch(
    request: ChunkRequest,
    {
      signal,
      urgency,
      onRefusal,
    }: Omit<SourceOptions, 'fetchChunk'> & { onRefusal?: (peer: string, error: P2pfsError) => void },
  ): Promise<Delivery> {
    // The peer protocol has one stream for each of these two.
    const streamClass = urgency.isUrgent ? 'demand' : 'background'
    const asked = new Set<string>()
    await this.#availability.whenAsked(request.table, { signal, index: request.index })
    for (;;) {
      // Looked up for each try: holders come and go meanwhile.
      const holders = this.#availability.holders(request.table, request.index)
      const peer = this.#best(holders.filter((id) => !asked.has(id)))
      if (peer === undefined) throw new P2pfsError('missing', 'no peer delivers the chunk', { digest: request.digest })
      asked.add(peer)
      this.#outstandingBytes.set(peer, this.#outstanding(peer) + request.lengthBytes)
      try {
        return await this.#ask(peer, request, { signal, streamClass, urgency })
      } catch (error) {
        if (signal.aborted) throw error
        if (!isP2pfsError(error)) throw error
        this.#log.debug('peer did not deliver', { error, peer, digest: request.digest })
        onRefusal?.(peer, error)
        if (error.code !== 'missing') this.#penalised.set(peer, true, penaltyMs)
      } finally {
        const left = this.#outstanding(peer) - request.lengthBytes
        if (left > 0) this.#outstandingBytes.set(peer, left)
        else this.#outstandingBytes.delete(peer)
      }
    }
  }

  async #ask(
    peer: string,
    request: ChunkRequest,
    { signal, streamClass, urgency }: { signal: AbortSignal; streamClass: StreamClass; urgency: Urgency },
  ): Promise<Delivery> {
    const overLibp2p = async (streamClass: StreamClass, signal: AbortSignal): Promise<Uint8Array> =>
      await this.#chunks.fetchChunk(peer, request.digest, request.lengthBytes, {
        signal,
        streamClass,
        timeoutMs: timeoutMs[streamClass],
      })
    const isInBulk =
      streamClass === 'background' && this.#bulk.carries(peer, { underWayBytes: this.#outstanding(peer) })
    if (!isInBulk) return await overLibp2p(streamClass, signal)
    return await fetchInBulk({ bulk: this.#bulk, overLibp2p }, peer, request, { signal, urgency })
  }

  #outstanding(peer: string): number {
    return this.#outstandingBytes.get(peer) ?? 0
  }

  #best(holders: string[]): string | undefined {
    const cost = (peer: string): number =>
      this.#outstanding(peer) + (this.#penalised.has(peer) ? Number.MAX_SAFE_INTEGER / 2 : 0)
    let best: string | undefined
    for (const peer of holders) if (best === undefined || cost(peer) < cost(best)) best = peer
    return best
  }
}
