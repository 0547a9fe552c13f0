import { setTimeout as sleep } from 'node:timers/promises'
import { TokenBucket } from '../base/token-bucket.ts'
import type { Peer } from './peer.ts'

/** What each peer may ask for: beyond it, its requests wait, in the order in which they came. */
export class PeerPace {
  readonly #rate: { perSecond: number; burst: number }
  readonly #buckets = new WeakMap<Peer, TokenBucket>()

  constructor(rate: { perSecond: number; burst: number }) {
    this.#rate = rate
  }

  /** Resolves when the peer may have so many more. @throws the signal's reason */
  async wait(peer: Peer, { requests = 1, signal }: { requests?: number; signal: AbortSignal }): Promise<void> {
    let bucket = this.#buckets.get(peer)
    if (bucket === undefined) {
      bucket = new TokenBucket(this.#rate)
      this.#buckets.set(peer, bucket)
    }
    const waitMs = bucket.take(requests)
    if (waitMs > 0) await sleep(waitMs, undefined, { signal })
  }
}
