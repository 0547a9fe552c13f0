import type { Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { HeldElsewhereError } from '../../../node/peers/chunk/stream.ts'
import type { PeerSourceParts } from '../../../node/fetch/peer-source.ts'

/** A bulk plane that delivers what the test tells it to. */
export class FakeBulk {
  /** Peers with a bulk connection. */
  readonly open = new Set<string>()
  /** Calls of {@link fetchToStore} that have no answer yet. */
  readonly wanted = new Map<Digest, PromiseWithResolvers<void>>()
  /** How much was under way to each peer whenever it was asked for more. */
  readonly underWay: number[] = []
  /** Peers that were asked for chunks. */
  readonly asked: string[] = []
  readonly cancelled: Digest[] = []
  readonly raised: Digest[] = []
  /** Peers that have too much to serve, and whom they name to those who can ask others. */
  readonly elsewhere = new Map<string, readonly string[]>()
  /** Chunks that come after all others. */
  readonly last: Digest[] = []

  readonly isBusyWithEarlier: PeerSourceParts['bulk']['isBusyWithEarlier'] = () => false

  readonly ready: PeerSourceParts['bulk']['ready'] = async (peer, { underWayBytes }) => {
    this.underWay.push(underWayBytes)
    return await Promise.resolve(this.open.has(peer))
  }

  readonly fetchToStore: PeerSourceParts['bulk']['fetchToStore'] = async (
    peer,
    digest,
    _length,
    { signal, urgency, isLast = false, waits = false },
  ) => {
    if (!this.open.has(peer)) throw new P2pfsError('unavailable', 'no bulk connection')
    this.asked.push(waits ? `${peer} waits` : peer)
    const others = this.elsewhere.get(peer)
    if (others !== undefined && !waits) throw new HeldElsewhereError(others, { peer, digest })
    if (isLast) this.last.push(digest)
    const answer = Promise.withResolvers<void>()
    this.wanted.set(digest, answer)
    urgency.onRaise(() => this.raised.push(digest))
    signal.addEventListener('abort', () => {
      if (this.wanted.get(digest) === answer) this.cancelled.push(digest)
      answer.reject(signal.reason as Error)
    })
    try {
      await answer.promise
    } finally {
      this.wanted.delete(digest)
    }
  }
}
