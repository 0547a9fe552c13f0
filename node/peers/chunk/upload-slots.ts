import { wantPriorities, type WantPriority } from '../../../protocol/messages/chunk.ts'

/**
 * Wants of all peers that wait to be served. It is full for a want when those that come before it, by their priority,
 * fill its slots: so demand is never refused for the sake of anything else. A source that has less than its share is
 * not refused.
 */
export class UploadSlots {
  readonly #slots: number
  /** Wants by source, and in each by priority. */
  readonly #bySource = new Map<string, number[]>()
  readonly #inAll = none()

  /** @param options `slots`: wants that wait at most before others are named */
  constructor({ slots }: { slots: number }) {
    this.#slots = slots
  }

  isFull(source: string, priority: WantPriority): boolean {
    const before = (counts: readonly number[]): number =>
      counts.slice(0, wantPriorities.indexOf(priority) + 1).reduce((sum, count) => sum + count, 0)
    if (before(this.#inAll) < this.#slots) return false
    const own = this.#bySource.get(source)
    return own !== undefined && before(own) >= this.#slots / this.#bySource.size
  }

  /** One more want waits. */
  add(source: string, priority: WantPriority): void {
    const own = this.#bySource.get(source) ?? none()
    this.#bySource.set(source, own)
    this.#change(own, priority, 1)
  }

  /** A want that was added is served, or waits no more. */
  delete(source: string, priority: WantPriority): void {
    const own = this.#bySource.get(source)!
    this.#change(own, priority, -1)
    if (own.every((count) => count === 0)) this.#bySource.delete(source)
  }

  #change(own: number[], priority: WantPriority, by: number): void {
    const rank = wantPriorities.indexOf(priority)
    own[rank]! += by
    this.#inAll[rank]! += by
  }
}

function none(): number[] {
  return wantPriorities.map(() => 0)
}
