import type { Clock } from '../../node/base/clock.ts'

/** A clock that stands still until a test moves it on. */
export class FakeClock implements Clock {
  #nowMs = 0
  readonly #calls = new Set<{ atMs: number; call: () => void }>()

  readonly now = (): number => this.#nowMs

  readonly after = (ms: number, call: () => void): (() => void) => {
    const entry = { atMs: this.#nowMs + Math.max(ms, 0), call }
    this.#calls.add(entry)
    return () => void this.#calls.delete(entry)
  }

  /** Calls that wait for their time. */
  get waiting(): number {
    return this.#calls.size
  }

  /** Lets so much time pass; each call comes at its time, and all that follows from it is done before the next one. */
  async pass(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms
    await settled()
    for (let next = this.#next(endMs); next !== undefined; next = this.#next(endMs)) {
      this.#nowMs = Math.max(next.atMs, this.#nowMs)
      this.#calls.delete(next)
      next.call()
      await settled()
    }
    this.#nowMs = endMs
  }

  #next(endMs: number): { atMs: number; call: () => void } | undefined {
    let first: { atMs: number; call: () => void } | undefined
    for (const entry of this.#calls) if (entry.atMs <= endMs && entry.atMs < (first?.atMs ?? Infinity)) first = entry
    return first
  }
}

/** All that is ready to run has run, and what follows from it. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 4; turn++) await new Promise(setImmediate)
}
