/** How long a peer that sent wrong bytes is kept away, milliseconds. */
const banMs = 10 * 60_000
/** Peers remembered; beyond it the oldest ban ends early. */
const maxBans = 1024

/** Peers that are not spoken to for a while. */
export class BanList {
  readonly #until = new Map<string, number>()
  readonly #now: () => number

  constructor(now: () => number = Date.now) {
    this.#now = now
  }

  add(peer: string): void {
    this.#until.delete(peer)
    this.#until.set(peer, this.#now() + banMs)
    if (this.#until.size > maxBans) this.#until.delete([...this.#until.keys()][0]!)
  }

  has(peer: string): boolean {
    const until = this.#until.get(peer)
    if (until === undefined) return false
    if (until > this.#now()) return true
    this.#until.delete(peer)
    return false
  }
}
