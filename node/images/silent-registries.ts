import { ExpiringMap } from '../base/expiring-map.ts'

/** A registry that did not answer is asked again, beside the mounts, once in this time (ms). */
const askAgainMs = 10_000
/**
 * One that nobody has asked again for so long is not known to be silent any more (ms). It covers the time between two looks at
 * the tags that are mounted often (`--hot-tag-interval`), which find out for the region.
 */
const forgetMs = 5 * 60_000
/** Silent registries that are remembered. */
const maxSilent = 256

/**
 * Registries that did not answer when they were asked last. Nobody who has something to use waits for such a one: it is
 * asked beside those who come, until it has answered.
 */
export class SilentRegistries {
  /** When to ask again (ms). */
  readonly #silent: ExpiringMap<string, number>
  readonly #now: () => number

  /** @param parts `now`: the clock (ms) */
  constructor({ now }: { now: () => number }) {
    this.#now = now
    this.#silent = new ExpiringMap({ maxEntries: maxSilent, now })
  }

  has(registry: string): boolean {
    return this.#silent.has(registry)
  }

  silent(registry: string): void {
    this.#silent.set(registry, this.#now() + askAgainMs, forgetMs)
  }

  answered(registry: string): void {
    this.#silent.delete(registry)
  }

  /** Whether it is time to ask a silent registry again; if so, nobody else is told that until this time has passed again. */
  isDue(registry: string): boolean {
    const atMs = this.#silent.get(registry)
    if (atMs === undefined || atMs > this.#now()) return false
    this.silent(registry)
    return true
  }

  registries(): Iterable<string> {
    return this.#silent.keys()
  }
}
