type Listener = ((event: Event) => void) | { handleEvent: (event: Event) => void }

/** Values of one entry, which stand side by side: an object for each took three times the memory. */
const entryLength = 3

/**
 * The listeners of one event target, in place of Node's own: a large region has a million streams with five listeners each, and
 * Node and libp2p keep eight objects for each listener. As with these, a listener hears an event once, and one that fails
 * keeps no other from hearing it. Signals and capturing are not there.
 */
export class Listeners {
  /** Type, listener, and whether it hears one event only, of each; replaced when it changes: listeners come and go while an event is told. */
  #entries: readonly (string | Listener | boolean)[] = []

  add(type: string, listener: Listener, { once = false }: { once?: boolean } = {}): void {
    if (this.#find(type, listener) < 0) this.#entries = [...this.#entries, type, listener, once]
  }

  remove(type: string, listener: Listener): void {
    const at = this.#find(type, listener)
    if (at >= 0) this.#entries = this.#entries.toSpliced(at, entryLength)
  }

  count(type: string): number {
    let count = 0
    for (let at = 0; at < this.#entries.length; at += entryLength) if (this.#entries[at] === type) count++
    return count
  }

  tell(event: Event): void {
    const entries = this.#entries
    for (let at = 0; at < entries.length; at += entryLength) {
      if (entries[at] !== event.type) continue
      const listener = entries[at + 1] as Listener
      if (entries[at + 2] === true) this.remove(event.type, listener)
      try {
        if (typeof listener === 'function') listener(event)
        else listener.handleEvent(event)
      } catch (error) {
        process.nextTick(() => {
          throw error
        })
      }
    }
  }

  #find(type: string, listener: Listener): number {
    const entries = this.#entries
    for (let at = 0; at < entries.length; at += entryLength)
      if (entries[at] === type && entries[at + 1] === listener) return at
    return -1
  }
}
