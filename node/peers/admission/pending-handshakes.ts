import { limits } from '../limits.ts'

/** How often handshakes that take too long are looked for (ms). */
const sweepMs = 250

/** One inbound connection whose other side has not proved anything yet. */
export interface PendingHandshake {
  source: string
  /** Closes the connection. */
  drop: () => void
}

/**
 * The inbound connections whose other side has not proved yet that it belongs to the region. Each has a short time.
 * Beyond a bound the oldest one is dropped, not the newest refused: an honest host needs two round trips, so it is
 * through before its turn comes, however many connections a stranger holds open.
 */
export class PendingHandshakes {
  readonly #now: () => number
  /** Both in the order in which they began. */
  readonly #bySource = new Map<string, Set<PendingHandshake>>()
  readonly #endsAtMs = new Map<PendingHandshake, number>()
  #timer: NodeJS.Timeout | undefined
  /** Handshakes that were dropped for the sake of newer ones. */
  dropped = 0

  constructor({ now = () => performance.now() }: { now?: () => number }) {
    this.#now = now
  }

  get count(): number {
    return this.#endsAtMs.size
  }

  /** @returns ends the handshake's place when it is called: it has succeeded or failed */
  add(handshake: PendingHandshake): () => void {
    const ofSource = this.#bySource.get(handshake.source)
    if (ofSource !== undefined && ofSource.size >= limits.handshakes.perSource) this.#dropOldest(ofSource)
    else if (this.#endsAtMs.size >= limits.handshakes.inAll) this.#dropOldest(this.#endsAtMs.keys())
    // A source whose last handshake was dropped has been forgotten.
    const handshakes = this.#bySource.get(handshake.source) ?? new Set()
    this.#bySource.set(handshake.source, handshakes.add(handshake))
    this.#endsAtMs.set(handshake, this.#now() + limits.handshakes.timeoutMs)
    this.#timer ??= setTimeout(() => this.sweep(), sweepMs).unref()
    return () => this.#remove(handshake)
  }

  /** Drops those whose time is over. It runs by itself as long as there are any. */
  sweep(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    for (const [handshake, endsAtMs] of this.#endsAtMs) {
      if (endsAtMs > this.#now()) break
      this.#remove(handshake)
      handshake.drop()
    }
    if (this.count > 0) this.#timer ??= setTimeout(() => this.sweep(), sweepMs).unref()
  }

  #dropOldest(handshakes: Iterable<PendingHandshake>): void {
    for (const oldest of handshakes) {
      this.#remove(oldest)
      this.dropped++
      oldest.drop()
      return
    }
  }

  #remove(handshake: PendingHandshake): void {
    this.#endsAtMs.delete(handshake)
    const ofSource = this.#bySource.get(handshake.source)
    ofSource?.delete(handshake)
    if (ofSource?.size === 0) this.#bySource.delete(handshake.source)
  }
}
