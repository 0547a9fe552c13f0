import { setTimeout as sleep } from 'node:timers/promises'
import { BoundedMap } from '../base/bounded-map.ts'
import { TokenBucket } from '../base/token-bucket.ts'
import type { Peer } from './peer.ts'

/** Sources whose requests are counted: more than there can be connections. */
const maxSources = 4096

/**
 * Paces the requests of the peers of one source: those beyond it wait, in the order in which they came. A peer that
 * makes up identities gets no more by them.
 */
export class SourcePace {
  readonly #rate: { perSecond: number; burst: number }
  readonly #buckets = new BoundedMap<string, TokenBucket>({ maxEntries: maxSources })

  constructor(rate: { perSecond: number; burst: number }) {
    this.#rate = rate
  }

  /** Resolves when the source may have so many more requests, or bytes. @throws the signal's reason */
  async wait(
    { source }: Pick<Peer, 'source'>,
    { requests = 1, signal }: { requests?: number; signal: AbortSignal },
  ): Promise<void> {
    const bucket = this.#buckets.get(source) ?? new TokenBucket(this.#rate)
    this.#buckets.set(source, bucket)
    const waitMs = bucket.take(requests)
    if (waitMs > 0) await sleep(waitMs, undefined, { signal, ref: false })
  }
}
