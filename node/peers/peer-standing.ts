/**
 * How long a peer that fell silent is asked last, unless it answers before (ms): doubles with each time that it falls
 * silent again without an answer in between. An honest peer that hung is back within the first; the last keeps those
 * that never answer from costing a read now and then.
 */
const silentMs = { first: 30_000, last: 10 * 60_000 } as const
/** A silence that is noticed by many who wait is one: noticed again after this time it is another one (ms). */
const nextSilenceMs = 1_000
/** Silences in a row after which nothing is expected of the peer any more: it takes a few seconds to get there. */
const lostAfter = 3
/** How long a peer is asked last after it lacked what it had announced, or did not answer as it should (ms). */
const failedMs = 10_000
/** So many failures within {@link failedMs} of each other, and the peer is asked last for longer (ms). */
const manyFailures = { count: 16, forMs: 10 * 60_000 } as const

/**
 * Standings of a peer, the best first: it has delivered; nothing is known of it; it has failed a moment ago; it fell
 * silent; it has been silent again and again.
 */
export const standings = { proven: 0, unproven: 1, failing: 2, silent: 3, lost: 4 } as const
export type Standing = (typeof standings)[keyof typeof standings]

/** How one peer has behaved to all who have asked it for anything: it decides who is asked first. */
export class PeerStanding {
  readonly #now: () => number
  #hasDelivered = false
  #hasAnswered = false
  #lastSignMs = -Infinity
  #silences = 0
  #silentSinceMs = -Infinity
  #silentUntilMs = -Infinity
  #failures = 0
  #failedAtMs = -Infinity
  #failingUntilMs = -Infinity

  /** @param parts `now`: the clock (ms) */
  constructor({ now }: { now: () => number }) {
    this.#now = now
  }

  get current(): Standing {
    const now = this.#now()
    if (now < this.#silentUntilMs) return this.#silences >= lostAfter ? standings.lost : standings.silent
    if (now < this.#failingUntilMs) return standings.failing
    return this.#hasDelivered ? standings.proven : standings.unproven
  }

  /** Whether it fell silent a short time ago while somebody waited for an answer. */
  get isSilent(): boolean {
    return this.#now() < this.#silentUntilMs
  }

  /** Whether it has ever answered in time. */
  get hasAnswered(): boolean {
    return this.#hasAnswered
  }

  /** The last time at which it got on with any answer (ms of the clock). */
  get lastSignMs(): number {
    return this.#lastSignMs
  }

  /** A part of an answer has come, or a late one: it is there, whether it is of use or not. */
  gotOn(): void {
    this.#lastSignMs = this.#now()
  }

  /**
   * A whole answer has come in time: it is not silent. One that was silent again and again is believed when it delivers
   * a chunk: to answer small questions costs a liar nothing.
   */
  answered(): void {
    this.gotOn()
    this.#hasAnswered = true
    if (this.#silences >= lostAfter) return
    this.#silences = 0
    this.#silentUntilMs = -Infinity
  }

  /** A chunk that it was asked for has come in time. */
  delivered(): void {
    this.gotOn()
    this.#hasAnswered = true
    this.#hasDelivered = true
    this.#silences = 0
    this.#silentUntilMs = -Infinity
  }

  /** It has let somebody wait for too long without a sign of life. */
  fellSilent(): void {
    const now = this.#now()
    if (now < this.#silentUntilMs && now - this.#silentSinceMs < nextSilenceMs) return
    // A peer that is slow, but got on in between, has been silent once only.
    this.#silences = this.#lastSignMs > this.#silentSinceMs ? 1 : this.#silences + 1
    this.#silentSinceMs = now
    this.#silentUntilMs = now + Math.min(silentMs.first * 2 ** (this.#silences - 1), silentMs.last)
  }

  /** It lacks what it had announced, or it did not answer as it should. */
  failed(): void {
    const now = this.#now()
    this.#failures = now - this.#failedAtMs < failedMs ? this.#failures + 1 : 1
    this.#failedAtMs = now
    const forMs = this.#failures >= manyFailures.count ? manyFailures.forMs : failedMs
    this.#failingUntilMs = Math.max(this.#failingUntilMs, now + forMs)
  }
}
