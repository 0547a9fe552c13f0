import type { Digest } from '../../../protocol/digest.ts'
import { maxNamedHolders } from '../../../protocol/messages/chunk.ts'
import { ServedLately } from '../chunk/served-lately.ts'

/** A peer that chunks are sent to. */
export interface Taker {
  readonly peer: string
  /** Whether it has said of a chunk lately that it holds it, or none has been on its way for long. */
  readonly isGettingOn: boolean
}

/** Which chunks have been sent to whom: on their way, or held by the peer, as it says. */
export class GivenCopies {
  /** Bounded by the connections and what each has on its way. */
  readonly #onWay = new Map<Digest, Set<Taker>>()
  readonly #kept = new ServedLately()

  sent(digest: Digest, taker: Taker): void {
    const takers = this.#onWay.get(digest)
    if (takers === undefined) this.#onWay.set(digest, new Set([taker]))
    else takers.add(taker)
  }

  kept(digest: Digest, taker: Taker): void {
    this.forget(digest, taker)
    this.#kept.add(digest, taker.peer)
  }

  /** The chunk is no longer on its way to the peer. */
  forget(digest: Digest, taker: Taker): void {
    const takers = this.#onWay.get(digest)
    if (takers?.delete(taker) === true && takers.size === 0) this.#onWay.delete(digest)
  }

  /** Peers other than this one that hold the chunk; the last ones, as many as an answer names. */
  holdersFor(digest: Digest, peer: string): readonly string[] {
    const takers = this.#kept.of(digest)
    return takers.length === 0 ? takers : takers.filter((taker) => taker !== peer).slice(0, maxNamedHolders)
  }

  /** Whether another peer, which gets on, will hold the chunk soon. */
  isComingTo(digest: Digest, { except }: { except: Taker }): boolean {
    for (const taker of this.#onWay.get(digest) ?? []) if (taker !== except && taker.isGettingOn) return true
    return false
  }
}
