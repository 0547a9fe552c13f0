/**
 * Lets a few of many through: `share` of all that is counted, and `burst` besides. Passes that are not used are kept, up to
 * `burst`.
 */
export class ShareBudget {
  readonly #share: number
  readonly #burst: number
  #left: number

  /** @param options `share`: 0 to 1; `burst`: at least 1 */
  constructor({ share, burst }: { share: number; burst: number }) {
    this.#share = share
    this.#burst = burst
    this.#left = burst
  }

  /** Counts one of the many. */
  count(): void {
    this.#left = Math.min(this.#left + this.#share, this.#burst)
  }

  /** @returns false where nothing is left */
  take(): boolean {
    if (this.#left < 1) return false
    this.#left--
    return true
  }
}
