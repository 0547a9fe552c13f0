/** One for all: there are buckets for each peer. */
const systemNow = (): number => performance.now()

/**
 * Lets through so many a second in the long run, and up to `burst` at once after a pause: messages, requests, dials. Bytes a
 * second are limited by a `Bandwidth`, which its operator sees and changes.
 */
export class TokenBucket {
  readonly #perMs: number
  readonly #burst: number
  readonly #now: () => number
  #tokens: number
  #filledAtMs: number

  /** @param options `now`: the clock, milliseconds from any origin; it never goes back */
  constructor({ perSecond, burst, now = systemNow }: { perSecond: number; burst: number; now?: () => number }) {
    this.#perMs = perSecond / 1000
    this.#burst = burst
    this.#now = now
    this.#tokens = burst
    this.#filledAtMs = now()
  }

  /** Takes tokens where there are enough. @returns false where there are not: nothing is taken */
  tryTake(tokens = 1): boolean {
    this.#fill()
    if (this.#tokens < tokens) return false
    this.#tokens -= tokens
    return true
  }

  /** Takes tokens, also those of the time to come. @returns how long to wait before going on (ms): 0 where there were enough */
  take(tokens = 1): number {
    this.#fill()
    this.#tokens -= tokens
    return this.#tokens >= 0 ? 0 : Math.ceil(-this.#tokens / this.#perMs)
  }

  /** Gives back what was taken for nothing. */
  giveBack(tokens = 1): void {
    this.#tokens = Math.min(this.#tokens + tokens, this.#burst)
  }

  #fill(): void {
    const now = this.#now()
    this.#tokens = Math.min(this.#tokens + (now - this.#filledAtMs) * this.#perMs, this.#burst)
    this.#filledAtMs = now
  }
}
