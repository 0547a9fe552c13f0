/** What is to happen at a time. */
export interface SimulatedEvent {
  atMs: number
  /** Its place among all events: those of one time happen in the order in which they were made. */
  order: number
  call: () => void
  isCancelled: boolean
}

/** Events, the next one first: a binary heap. Cancelled events stay in it until their time. */
export class EventHeap {
  readonly #events: SimulatedEvent[] = []

  get size(): number {
    return this.#events.length
  }

  push(event: SimulatedEvent): void {
    const events = this.#events
    let at = events.length
    events.push(event)
    while (at > 0) {
      const above = (at - 1) >> 1
      if (!isBefore(event, events[above]!)) break
      events[at] = events[above]!
      at = above
    }
    events[at] = event
  }

  peek(): SimulatedEvent | undefined {
    return this.#events[0]
  }

  pop(): SimulatedEvent | undefined {
    const events = this.#events
    const first = events[0]
    const last = events.pop()
    if (last === undefined || events.length === 0) return first
    let at = 0
    for (;;) {
      let below = 2 * at + 1
      if (below >= events.length) break
      if (below + 1 < events.length && isBefore(events[below + 1]!, events[below]!)) below++
      if (!isBefore(events[below]!, last)) break
      events[at] = events[below]!
      at = below
    }
    events[at] = last
    return first
  }
}

function isBefore(a: SimulatedEvent, b: SimulatedEvent): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
}
