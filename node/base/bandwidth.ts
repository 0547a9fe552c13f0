import { systemClock, type Clock } from './clock.ts'
import type { Urgency } from './urgency.ts'

/** What may pass at once after a pause, in time at the limit (µs): timers are late by less. */
const burstUs = 100_000n
/** What somebody waits for borrows so much of the time to come (µs): then it waits, too. */
const borrowUs = 1_000_000n
/** How often the first one that waits looks whether the limit has changed, or another thread has used it up (ms). */
const pollMs = 250
const microsecondsPerSecond = 1_000_000

/** Places of the numbers that threads share. */
const places = { freeAtUs: 0, bytesPerSecond: 1, bytes: 2 } as const
const numberBytes = 8

/** Somebody who waits. */
interface Waiter {
  wake: () => void
}

export interface BandwidthParts {
  clock?: Clock
  /** The clock that all threads share (µs). */
  nowUs?: () => bigint
}

/**
 * A limit on bytes a second, or none, for all threads that have its memory. What somebody waits for goes first: it borrows
 * up to a second of the time to come, and the rest waits until that is paid. A piece of any length passes when nothing is
 * owed, so a limit that is far below a chunk a second works, too.
 */
export class Bandwidth {
  /** For {@link attach}. */
  readonly memory: SharedArrayBuffer
  readonly #numbers: BigInt64Array
  readonly #clock: Clock
  readonly #nowUs: () => bigint
  /** Those of this thread, the first one first. */
  readonly #waiting = new Set<Waiter>()
  #waits = 0

  constructor(
    { clock = systemClock, nowUs = () => process.hrtime.bigint() / 1000n }: BandwidthParts = {},
    memory = new SharedArrayBuffer(Object.keys(places).length * numberBytes),
  ) {
    this.memory = memory
    this.#numbers = new BigInt64Array(memory)
    this.#clock = clock
    this.#nowUs = nowUs
  }

  /** The same limit, in another thread. */
  static attach(memory: SharedArrayBuffer): Bandwidth {
    return new Bandwidth({}, memory)
  }

  /** Undefined where there is no limit. */
  get bytesPerSecond(): number | undefined {
    return Number(this.#load('bytesPerSecond')) || undefined
  }

  /** What waits goes on at the new limit, in a quarter of a second at most. What is owed is forgotten. */
  set bytesPerSecond(limit: number | undefined) {
    Atomics.store(
      this.#numbers,
      places.bytesPerSecond,
      BigInt(limit === undefined ? 0 : Math.max(1, Math.round(limit))),
    )
    Atomics.store(this.#numbers, places.freeAtUs, 0n)
    this.#wakeFirst()
  }

  /** Bytes that have passed so far, limited or not. */
  get bytes(): number {
    return Number(this.#load('bytes'))
  }

  /** Pieces that have waited, or wait, in this thread. */
  get waits(): number {
    return this.#waits
  }

  /**
   * Resolves when so many bytes may pass, and counts them. Who is not urgent waits for its turn; one that becomes urgent
   * overtakes.
   * @throws the signal's reason
   */
  async take(bytes: number, { signal, urgency }: { signal: AbortSignal; urgency: Urgency }): Promise<void> {
    if (this.#tryTake(bytes, urgency)) return
    let wakeUp = Promise.withResolvers<void>()
    const waiter: Waiter = { wake: () => wakeUp.resolve() }
    this.#waiting.add(waiter)
    this.#waits++
    urgency.onRaise(waiter.wake)
    signal.addEventListener('abort', waiter.wake, { once: true })
    try {
      for (;;) {
        signal.throwIfAborted()
        const isFirst = urgency.isUrgent || this.#waiting.values().next().value === waiter
        if (isFirst && this.#spend(bytes, urgency.isUrgent)) return
        const waitMs = isFirst ? Math.min(this.waitMs(urgency.isUrgent), pollMs) : undefined
        const cancel = waitMs === undefined ? undefined : this.#clock.after(waitMs, waiter.wake)
        await wakeUp.promise
        cancel?.()
        wakeUp = Promise.withResolvers()
      }
    } finally {
      signal.removeEventListener('abort', waiter.wake)
      this.#waiting.delete(waiter)
      this.#wakeFirst()
    }
  }

  /** How long until something may pass (ms); 0 where it may now. */
  waitMs(isUrgent: boolean): number {
    if (this.bytesPerSecond === undefined) return 0
    const owedUs = this.#load('freeAtUs') - this.#nowUs() - (isUrgent ? borrowUs : 0n)
    return owedUs <= 0n ? 0 : Math.ceil(Number(owedUs) / 1000)
  }

  /** Counts bytes that pass now, whatever is owed. */
  charge(bytes: number): void {
    Atomics.add(this.#numbers, places.bytes, BigInt(bytes))
    const rate = this.bytesPerSecond
    if (rate === undefined) return
    const costUs = BigInt(Math.ceil((bytes / rate) * microsecondsPerSecond))
    for (;;) {
      const before = this.#load('freeAtUs')
      const earliest = this.#nowUs() - burstUs
      const after = (before > earliest ? before : earliest) + costUs
      if (Atomics.compareExchange(this.#numbers, places.freeAtUs, before, after) === before) return
    }
  }

  /** Gives back what was taken, and did not pass. */
  giveBack(bytes: number): void {
    Atomics.sub(this.#numbers, places.bytes, BigInt(bytes))
    const rate = this.bytesPerSecond
    if (rate === undefined) return
    Atomics.sub(this.#numbers, places.freeAtUs, BigInt(Math.ceil((bytes / rate) * microsecondsPerSecond)))
    this.#wakeFirst()
  }

  /** Nobody overtakes those that wait already, unless somebody waits for it. */
  #tryTake(bytes: number, { isUrgent }: Urgency): boolean {
    return (isUrgent || this.#waiting.size === 0) && this.#spend(bytes, isUrgent)
  }

  #spend(bytes: number, isUrgent: boolean): boolean {
    if (this.waitMs(isUrgent) > 0) return false
    this.charge(bytes)
    return true
  }

  #wakeFirst(): void {
    const [first] = this.#waiting
    first?.wake()
  }

  #load(place: keyof typeof places): bigint {
    return Atomics.load(this.#numbers, places[place])
  }
}
