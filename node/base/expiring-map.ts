import { BoundedMap } from './bounded-map.ts'

interface Entry<Value> {
  value: Value
  untilMs: number
}

/** A map whose entries end after a time of their own; beyond `maxEntries` the oldest ends early. */
export class ExpiringMap<Key, Value = true> {
  readonly #entries: BoundedMap<Key, Entry<Value>>
  readonly #now: () => number

  /** @param options `now`: the clock, milliseconds from any origin; it never goes back */
  constructor({ maxEntries, now = () => performance.now() }: { maxEntries: number; now?: () => number }) {
    this.#entries = new BoundedMap({ maxEntries })
    this.#now = now
  }

  /** Sets an entry that ends after `forMs`. */
  set(key: Key, value: Value, forMs: number): void {
    this.#entries.set(key, { value, untilMs: this.#now() + forMs })
  }

  get(key: Key): Value | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    if (entry.untilMs > this.#now()) return entry.value
    this.#entries.delete(key)
    return undefined
  }

  has(key: Key): boolean {
    return this.get(key) !== undefined
  }

  delete(key: Key): void {
    this.#entries.delete(key)
  }

  /** The keys whose entries have not ended. It looks at all of them. */
  keys(): Key[] {
    return [...this.#entries.keys()].filter((key) => this.has(key))
  }

  /** Entries that have not ended. It looks at all of them. */
  get size(): number {
    const now = this.#now()
    return [...this.#entries.values()].filter(({ untilMs }) => untilMs > now).length
  }
}
