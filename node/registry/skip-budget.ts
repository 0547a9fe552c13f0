/** Bytes that a registry without ranges may send in vain in one period, for ranges that are not at the beginning. */
const maxBytes = 24 * 1024 * 1024
/** Milliseconds. */
const periodMs = 300_000

/**
 * What it may cost to read ranges of a registry that serves none: a single odd answer is not worth more than a few bytes,
 * but where one comes after the other the blob is better read from its beginning.
 */
export class SkipBudget {
  /** One entry for each registry that did not serve a range in the last period. */
  readonly #spent = new Map<string, { bytes: number; sinceMs: number }>()
  readonly #now: () => number

  constructor({ now }: { now: () => number }) {
    this.#now = now
  }

  /** What is left for this registry, bytes. */
  left(registry: string): number {
    const now = this.#now()
    for (const [name, { sinceMs }] of this.#spent) if (now - sinceMs >= periodMs) this.#spent.delete(name)
    return Math.max(maxBytes - (this.#spent.get(registry)?.bytes ?? 0), 0)
  }

  spend(registry: string, bytes: number): void {
    const spent = this.#spent.get(registry)
    if (spent === undefined) this.#spent.set(registry, { bytes, sinceMs: this.#now() })
    else spent.bytes += bytes
  }
}
