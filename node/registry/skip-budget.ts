import { ExpiringMap } from '../base/expiring-map.ts'

/** Bytes that a registry without ranges may send in vain in one period, for ranges that are not at the beginning. */
const maxBytes = 24 * 1024 * 1024
/** Milliseconds. */
const periodMs = 300_000
/** Registries that served no range in the last period. */
const maxRegistries = 256

/**
 * Bounds what it costs to read ranges of a registry that serves none. A single odd answer is worth a few bytes; where
 * one follows the other, the blob is better read from its beginning.
 */
export class SkipBudget {
  readonly #spent: ExpiringMap<string, { bytes: number }>

  constructor({ now }: { now: () => number }) {
    this.#spent = new ExpiringMap({ maxEntries: maxRegistries, now })
  }

  /** Bytes left for this registry. */
  left(registry: string): number {
    return Math.max(maxBytes - (this.#spent.get(registry)?.bytes ?? 0), 0)
  }

  spend(registry: string, bytes: number): void {
    const spent = this.#spent.get(registry)
    if (spent === undefined) this.#spent.set(registry, { bytes }, periodMs)
    else spent.bytes += bytes
  }
}
