import { P2pfsError } from '../../protocol/errors.ts'
import { BoundedMap } from '../base/bounded-map.ts'
import { maxCountedPeers, type PeerImportLimits } from './peer-import-limits.ts'

const minuteMs = 60_000

/** How often a peer asks: a bucket that fills up within a minute. */
interface Bucket {
  tokens: number
  countedAtMs: number
}

/** Counts the requests of peers for imports, those that wait and those of the last minute, and refuses too many. */
export class PeerQuota {
  readonly #limits: Pick<PeerImportLimits, 'waiting' | 'waitingPerPeer' | 'requestsPerMinutePerPeer'>
  readonly #now: () => number
  readonly #waiting = new Map<string, number>()
  readonly #buckets = new BoundedMap<string, Bucket>({ maxEntries: maxCountedPeers })
  #waitingInAll = 0

  /** @param parts `now`: the clock (ms) */
  constructor(
    { now = () => performance.now() }: { now?: (() => number) | undefined },
    limits: Pick<PeerImportLimits, 'waiting' | 'waitingPerPeer' | 'requestsPerMinutePerPeer'>,
  ) {
    this.#now = now
    this.#limits = limits
  }

  /**
   * Counts a request that begins to wait.
   * @returns a function to call when it has its answer
   * @throws busy where there are too many
   */
  enter(peer: string): () => void {
    const { waiting, waitingPerPeer } = this.#limits
    const ofPeer = this.#waiting.get(peer) ?? 0
    if (!this.#take(peer)) throw new P2pfsError('busy', 'the peer asks for imports too often')
    if (ofPeer >= waitingPerPeer) throw new P2pfsError('busy', `${waitingPerPeer} requests of the peer wait already`)
    if (this.#waitingInAll >= waiting) throw new P2pfsError('busy', `${waiting} requests of peers wait already`)
    this.#waiting.set(peer, ofPeer + 1)
    this.#waitingInAll++
    return () => {
      const left = (this.#waiting.get(peer) ?? 1) - 1
      if (left === 0) this.#waiting.delete(peer)
      else this.#waiting.set(peer, left)
      this.#waitingInAll--
    }
  }

  #take(peer: string): boolean {
    const { requestsPerMinutePerPeer: most } = this.#limits
    const nowMs = this.#now()
    const { tokens, countedAtMs } = this.#buckets.get(peer) ?? { tokens: most, countedAtMs: nowMs }
    const left = Math.min(most, tokens + ((nowMs - countedAtMs) / minuteMs) * most)
    const isFree = left >= 1
    this.#buckets.set(peer, { tokens: isFree ? left - 1 : left, countedAtMs: nowMs })
    return isFree
  }
}
