import type { VirtualClock } from './virtual-clock.ts'

/** A message is sent in pieces, so that a short one need not wait for a long one of another connection (bytes). */
const pieceBytes = 64 * 1024

interface Queued {
  bytes: number
  leftBytes: number
  /** Called when the last piece has left. */
  sent: (atMs: number) => void
}

/** One way of a host's link: connections take turns, and each sends its messages in order. */
export class Uplink {
  readonly #clock: VirtualClock
  bitsPerSecond: number
  /** By connection; the one whose turn is next comes first. */
  readonly #queues = new Map<object, Queued[]>()
  /** Whether messages wait, or one of several pieces is under way. */
  #isBusy = false
  /** When the last piece that has begun has left (ms). */
  #freeAtMs = 0
  sentBytes = 0

  constructor(clock: VirtualClock, bitsPerSecond: number) {
    this.#clock = clock
    this.bitsPerSecond = bitsPerSecond
  }

  /**
   * Sends a message.
   * @param sent called with the time at which the last byte leaves (ms): at once where that is known already, else then
   */
  send(connection: object, bytes: number, sent: (atMs: number) => void): void {
    const now = this.#clock.now()
    // An event for each message of an idle link would be a fifth of all.
    if (!this.#isBusy && bytes <= pieceBytes && now >= this.#freeAtMs) return sent(this.#begin(bytes))
    const queue = this.#queues.get(connection)
    const message = { bytes, leftBytes: bytes, sent }
    if (queue === undefined) this.#queues.set(connection, [message])
    else queue.push(message)
    if (this.#isBusy) return
    this.#isBusy = true
    if (now >= this.#freeAtMs) this.#next()
    else this.#clock.after(this.#freeAtMs - now, () => this.#next())
  }

  /** Forgets what the connection has not sent. */
  drop(connection: object): void {
    this.#queues.delete(connection)
  }

  /** A piece begins to leave. @returns when it has left (ms) */
  #begin(bytes: number): number {
    this.sentBytes += bytes
    return (this.#freeAtMs = this.#clock.now() + transferMs(bytes, this.bitsPerSecond))
  }

  #next(): void {
    for (const [connection, queue] of this.#queues) {
      const message = queue[0]!
      const bytes = Math.min(message.leftBytes, pieceBytes)
      message.leftBytes -= bytes
      this.#queues.delete(connection)
      if (message.leftBytes === 0) queue.shift()
      if (queue.length > 0) this.#queues.set(connection, queue)
      this.#clock.after(this.#begin(bytes) - this.#clock.now(), () => {
        if (message.leftBytes === 0) message.sent(this.#clock.now())
        this.#next()
      })
      return
    }
    this.#isBusy = false
  }
}

/** Work that is done one piece after the other, in the order in which it comes: a downlink, the main thread of a daemon. */
export class Worker {
  readonly #clock: VirtualClock
  #freeAtMs = 0
  busyMs = 0

  constructor(clock: VirtualClock) {
    this.#clock = clock
  }

  /**
   * Calls `done` when work of so many milliseconds is over.
   * @param fromMs when it comes, no earlier than what was given before; now where it is not given
   */
  do(ms: number, done: () => void, fromMs = this.#clock.now()): void {
    const now = this.#clock.now()
    this.#freeAtMs = Math.max(fromMs, this.#freeAtMs) + ms
    this.busyMs += ms
    this.#clock.after(this.#freeAtMs - now, done)
  }
}

/** The cores of one machine, shared by the workers of many hosts. */
export class CorePool {
  readonly #clock: VirtualClock
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(clock: VirtualClock, cores: number) {
    this.#clock = clock
    this.#free = cores
  }

  /** Calls `done` when a core has worked for so long. */
  run(ms: number, done: () => void): void {
    const start = (): void => {
      this.#clock.after(ms, () => {
        const next = this.#waiting.shift()
        if (next === undefined) this.#free++
        else next()
        done()
      })
    }
    if (this.#free > 0) {
      this.#free--
      start()
    } else this.#waiting.push(start)
  }
}

/** As {@link Worker}, on a core of a pool. */
export class PooledWorker {
  readonly #pool: CorePool
  readonly #queue: { ms: number; done: () => void }[] = []
  #isBusy = false
  busyMs = 0

  constructor(pool: CorePool) {
    this.#pool = pool
  }

  do(ms: number, done: () => void): void {
    this.#queue.push({ ms, done })
    if (!this.#isBusy) this.#next()
  }

  #next(): void {
    const work = this.#queue.shift()
    this.#isBusy = work !== undefined
    if (work === undefined) return
    this.#pool.run(work.ms, () => {
      this.busyMs += work.ms
      work.done()
      this.#next()
    })
  }
}

export function transferMs(bytes: number, bitsPerSecond: number): number {
  return (bytes * 8 * 1000) / bitsPerSecond
}
