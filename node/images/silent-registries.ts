import { BoundedMap } from '../base/bounded-map.ts'

/** A registry that did not answer is asked again, beside the mounts, once in this time (ms). */
const askAgainMs = 10_000
/** Silent registries that are remembered. */
const maxSilent = 256

/**
 * Registries that did not answer when they were asked last. Nobody who has something to use waits for such a one: it is
 * asked beside those who come, until it has answered.
 */
export class SilentRegistries {
  readonly #askAgainAtMs = new BoundedMap<string, number>({ maxEntries: maxSilent })
  readonly #now: () => number

  /** @param parts `now`: the clock (ms) */
  constructor({ now }: { now: () => number }) {
    this.#now = now
  }

  has(registry: string): boolean {
    return this.#askAgainAtMs.has(registry)
  }

  silent(registry: string): void {
    this.#askAgainAtMs.set(registry, this.#now() + askAgainMs)
  }

  answered(registry: string): void {
    this.#askAgainAtMs.delete(registry)
  }

  /** Whether it is time to ask a silent registry again; if so, nobody else is told that until this time has passed again. */
  isDue(registry: string): boolean {
    const atMs = this.#askAgainAtMs.get(registry)
    if (atMs === undefined || atMs > this.#now()) return false
    this.silent(registry)
    return true
  }
}
