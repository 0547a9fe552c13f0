/**
 * A map that begins with the entries of another one, which many share and which stays as it is. It keeps only what has been
 * changed in it. Its order is that of the shared map, then that of what was added.
 */
export class SharedMap<Key, Value> extends Map<Key, Value> {
  readonly #shared: ReadonlyMap<Key, Value>
  readonly #deleted = new Set<Key>()
  /** Entries of the shared map that have another value here. */
  #replaced = 0

  constructor(shared: ReadonlyMap<Key, Value>) {
    super()
    this.#shared = shared
  }

  override get size(): number {
    return this.#shared.size - this.#deleted.size - this.#replaced + super.size
  }

  override get(key: Key): Value | undefined {
    return super.get(key) ?? (this.#deleted.has(key) ? undefined : this.#shared.get(key))
  }

  override has(key: Key): boolean {
    return super.has(key) || (this.#shared.has(key) && !this.#deleted.has(key))
  }

  override set(key: Key, value: Value): this {
    // A key that was deleted comes last when it is here again.
    if (!super.has(key) && this.#shared.has(key) && !this.#deleted.has(key)) this.#replaced++
    return super.set(key, value)
  }

  override delete(key: Key): boolean {
    if (!this.has(key)) return false
    if (super.delete(key) && this.#shared.has(key) && !this.#deleted.has(key)) this.#replaced--
    if (this.#shared.has(key)) this.#deleted.add(key)
    return true
  }

  override entries(): MapIterator<[Key, Value]> {
    return super.size === 0 && this.#deleted.size === 0 ? this.#shared.entries() : this.#changedEntries()
  }

  *#changedEntries(): MapIterator<[Key, Value]> {
    for (const [key, value] of this.#shared)
      if (!this.#deleted.has(key)) yield [key, super.has(key) ? super.get(key)! : value]
    for (const [key, value] of super.entries()) if (!this.#shared.has(key) || this.#deleted.has(key)) yield [key, value]
  }

  override *keys(): MapIterator<Key> {
    for (const [key] of this.entries()) yield key
  }

  override *values(): MapIterator<Value> {
    for (const [, value] of this.entries()) yield value
  }

  override [Symbol.iterator](): MapIterator<[Key, Value]> {
    return this.entries()
  }

  override forEach(call: (value: Value, key: Key, map: Map<Key, Value>) => void): void {
    for (const [key, value] of this.entries()) call(value, key, this)
  }
}
