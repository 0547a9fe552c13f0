/** A map of at most `maxEntries`: one more drops the entry that was set the longest time ago. */
export class BoundedMap<Key, Value> {
  readonly #entries = new Map<Key, Value>()
  readonly #maxEntries: number

  /** @param options `maxEntries`: at least 1 */
  constructor({ maxEntries }: { maxEntries: number }) {
    this.#maxEntries = maxEntries
  }

  get size(): number {
    return this.#entries.size
  }

  get(key: Key): Value | undefined {
    return this.#entries.get(key)
  }

  has(key: Key): boolean {
    return this.#entries.has(key)
  }

  /** Sets the entry anew: it is the last to be dropped. */
  set(key: Key, value: Value): void {
    this.#entries.delete(key)
    this.#entries.set(key, value)
    if (this.#entries.size <= this.#maxEntries) return
    const [oldest] = this.#entries.keys()
    this.#entries.delete(oldest!)
  }

  delete(key: Key): void {
    this.#entries.delete(key)
  }

  /** The oldest first. */
  keys(): MapIterator<Key> {
    return this.#entries.keys()
  }

  /** The oldest first. */
  values(): MapIterator<Value> {
    return this.#entries.values()
  }
}
