type Listener = ((event: Event) => void) | { handleEvent: (event: Event) => void }

interface Entry {
  type: string
  listener: Listener
  once: boolean
}

/**
 * What listens to one event target, in place of Node's own: a large region has a million streams with five listeners each, and
 * Node and libp2p keep eight objects for each listener. As with these, a listener hears an event once, and one that fails
 * keeps no other from hearing it. Signals and capturing are not there.
 */
export class Listeners {
  /** Replaced when it changes: listeners come and go while an event is told. */
  #entries: readonly Entry[] = []

  add(type: string, listener: Listener, { once = false }: { once?: boolean } = {}): void {
    if (this.#entries.some((entry) => entry.type === type && entry.listener === listener)) return
    this.#entries = [...this.#entries, { type, listener, once }]
  }

  remove(type: string, listener: Listener): void {
    this.#entries = this.#entries.filter((entry) => entry.type !== type || entry.listener !== listener)
  }

  count(type: string): number {
    return this.#entries.reduce((sum, entry) => sum + Number(entry.type === type), 0)
  }

  tell(event: Event): void {
    for (const entry of this.#entries) {
      if (entry.type !== event.type) continue
      const { listener } = entry
      if (entry.once) this.remove(entry.type, listener)
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
}
