const nothing = (): void => undefined

/** An event that is to happen at a time. */
export class SimulatedEvent {
  readonly atMs: number
  /** Its place among all events: those of one time happen in the order in which they were made. */
  readonly order: number
  #call: () => void
  #heap: EventHeap | undefined
  isCancelled = false

  constructor(atMs: number, order: number, call: () => void) {
    this.atMs = atMs
    this.order = order
    this.#call = call
  }

  /** It happens no more, and keeps nothing: deadlines of minutes would hold the bytes of every chunk until their time. */
  cancel(): void {
    if (this.isCancelled) return
    this.isCancelled = true
    this.#call = nothing
    this.#heap?.cancelled()
  }

  happen(): void {
    this.#call()
  }

  /** @internal The heap in which it is; undefined once it has left. */
  belongsTo(heap: EventHeap | undefined): void {
    this.#heap = heap
  }
}

/** Fewer cancelled events than these are not worth a look at all events (a count). */
const minCancelled = 1024

/** Events, the next one first: a binary heap. At most half of a large one are cancelled. */
export class EventHeap {
  #events: SimulatedEvent[] = []
  #cancelled = 0

  get size(): number {
    return this.#events.length
  }

  push(event: SimulatedEvent): void {
    event.belongsTo(this)
    this.#insert(event)
  }

  /** The next event that happens. */
  pop(): SimulatedEvent | undefined {
    const event = this.peek()
    if (event !== undefined) this.#take()
    return event
  }

  peek(): SimulatedEvent | undefined {
    while (this.#events[0]?.isCancelled === true) {
      this.#take()
      this.#cancelled--
    }
    return this.#events[0]
  }

  /** One of its events was cancelled. Their order does not depend on when the cancelled ones leave. */
  cancelled(): void {
    this.#cancelled++
    if (this.#cancelled < minCancelled || 2 * this.#cancelled < this.#events.length) return
    const all = this.#events
    this.#events = []
    this.#cancelled = 0
    for (const event of all) if (!event.isCancelled) this.#insert(event)
  }

  #insert(event: SimulatedEvent): void {
    const events = this.#events
    let place = events.length
    events.push(event)
    while (place > 0) {
      const above = (place - 1) >> 1
      if (!isBefore(event, events[above]!)) break
      events[place] = events[above]!
      place = above
    }
    events[place] = event
  }

  /** Takes the first one off. */
  #take(): void {
    const events = this.#events
    events[0]?.belongsTo(undefined)
    const last = events.pop()
    if (last === undefined || events.length === 0) return
    let place = 0
    for (;;) {
      let below = 2 * place + 1
      if (below >= events.length) break
      if (below + 1 < events.length && isBefore(events[below + 1]!, events[below]!)) below++
      if (!isBefore(events[below]!, last)) break
      events[place] = events[below]!
      place = below
    }
    events[place] = last
  }
}

function isBefore(a: SimulatedEvent, b: SimulatedEvent): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
}
