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

/** A thread or program that wants a core: who has had least of them comes first. */
export interface Runner {
  usedMs: number
}

/** How long a core works for one before it looks for who comes next (ms): the kernel's base slice. */
const sliceMs = 3

/** The cores of one machine, which threads and programs of many hosts share, each the same part, as Linux does it. */
export class CorePool {
  readonly #clock: VirtualClock
  #free: number
  readonly #waiting: { runner: Runner; leftMs: number; done: () => void }[] = []
  /** The time that the last one to get a core had used: one that has slept comes no further ahead. */
  #floorMs = 0

  constructor(clock: VirtualClock, cores: number) {
    this.#clock = clock
    this.#free = cores
  }

  /** Calls `done` when a core has worked for so long for the runner, which wants one core at a time. */
  run(runner: Runner, ms: number, done: () => void): void {
    runner.usedMs = Math.max(runner.usedMs, this.#floorMs)
    this.#waiting.push({ runner, leftMs: ms, done })
    if (this.#free === 0) return
    this.#free--
    this.#next()
  }

  #next(): void {
    if (this.#waiting.length === 0) return void this.#free++
    const usedMs = Math.min(...this.#waiting.map(({ runner }) => runner.usedMs))
    this.#floorMs = Math.max(this.#floorMs, usedMs)
    const at = this.#waiting.findIndex(({ runner }) => runner.usedMs === usedMs)
    const [work] = this.#waiting.splice(at, 1)
    const { runner, leftMs, done } = work!
    const ms = Math.min(leftMs, sliceMs)
    this.#clock.after(ms, () => {
      runner.usedMs += ms
      if (leftMs > ms) this.#waiting.push({ runner, leftMs: leftMs - ms, done })
      else done()
      this.#next()
    })
  }
}

/** As {@link Worker}, on a core of a pool. */
export class PooledWorker {
  readonly #pool: CorePool
  readonly #queue: { ms: number; done: () => void }[] = []
  readonly #runner: Runner = { usedMs: 0 }
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
    this.#pool.run(this.#runner, work.ms, () => {
      this.busyMs += work.ms
      work.done()
      this.#next()
    })
  }
}

/** Bytes on the wire for each of a stream: full packets of Ethernet, with the headers of IP and TCP. */
const wireBytes = 1514 / 1448

/** The rate at which a link carries the bytes of streams (bits a second). */
export function streamRate(bitsPerSecond: number): number {
  return bitsPerSecond / wireBytes
}

export function transferMs(bytes: number, bitsPerSecond: number): number {
  return (bytes * 8 * 1000) / bitsPerSecond
}
