import { maxChunkBytes } from '../../protocol/chunk-table.ts'
import { systemClock, type Clock } from './clock.ts'
import type { Urgency } from './urgency.ts'

/** So much may pass at once after a pause, in time at the limit (µs): timers are late by less. */
const burstUs = 100_000n
/** A piece that somebody waits for borrows so much of the time to come (µs), besides a chunk's: then it waits, too. */
const borrowUs = 1_000_000n
/** The longest piece (bytes): one that has just passed holds up nothing that somebody waits for. */
const longestPieceBytes = maxChunkBytes
/** How often the first one that waits looks whether the limit has changed, or another thread has used it up (ms). */
const pollMs = 250
/** How often what is last looks whether others still wait before it (ms). */
const lastPollMs = 20
const microsecondsPerSecond = 1_000_000

/** Places of the numbers that threads share. */
const places = {
  freeAtUs: 0,
  bytesPerSecond: 1,
  bytes: 2,
  /** Pieces that had to wait, and of these what somebody waited for, with the time that has cost (µs). */
  waits: 3,
  urgentWaits: 4,
  urgentWaitedUs: 5,
  /** Pieces that wait now; of these, what goes before the last ones and is not urgent. */
  waiting: 6,
  waitingBefore: 7,
} as const
const numberBytes = BigInt64Array.BYTES_PER_ELEMENT

/** Somebody who waits. */
interface Waiter {
  wake: () => void
  isLast: boolean
}

export interface PieceOptions {
  signal: AbortSignal
  urgency: Urgency
  /** Whether it goes after all others, as what a seed asks for. */
  isLast?: boolean
}

/** The use of a limit in all threads since the daemon started: bytes that passed, pieces that waited. */
export interface LimitUse {
  bytes: number
  /** Pieces that wait now. */
  waiting: number
  /** Pieces that have waited, or wait. */
  waits: number
  /** Those of them that somebody waited for. */
  urgentWaits: number
  /** How long those have waited together (ms). */
  urgentWaitedMs: number
}

export interface BandwidthParts {
  clock?: Clock
  /** The clock that all threads share (µs). */
  nowUs?: () => bigint
}

/**
 * A limit on bytes a second, or none, for all threads that have its memory. An urgent piece goes first: it borrows up
 * to a second of the time to come, and the others wait until that is paid; pieces that are last come after the others.
 * A piece of any length passes when nothing is owed, so a limit that is far below a chunk a second works, too.
 */
export class Bandwidth {
  /** For {@link attach}. */
  readonly memory: SharedArrayBuffer
  readonly #numbers: BigInt64Array
  readonly #clock: Clock
  readonly #nowUs: () => bigint
  /** Those of this thread, the first one first. */
  readonly #waiting = new Set<Waiter>()

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

  /** Waiters go on at the new limit, in a quarter of a second at most. Debts are forgotten. */
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

  /** Bytes that have passed, and pieces that have waited. */
  use(): LimitUse {
    const number = (place: keyof typeof places): number => Number(this.#load(place))
    return {
      bytes: number('bytes'),
      waiting: number('waiting'),
      waits: number('waits'),
      urgentWaits: number('urgentWaits'),
      urgentWaitedMs: number('urgentWaitedUs') / 1000,
    }
  }

  /**
   * Notes that a piece begins to wait, where it is not {@link take} that waits.
   * @param options `goesBefore`: what is last waits until this one has passed. A thread that may end before says so of
   *   none.
   * @returns call it when the piece passes, or is not wanted any more; once
   */
  beginWait({ isUrgent, goesBefore = false }: { isUrgent: boolean; goesBefore?: boolean }): () => void {
    const sinceUs = this.#nowUs()
    this.#add('waits', 1n)
    this.#add('waiting', 1n)
    if (isUrgent) this.#add('urgentWaits', 1n)
    if (goesBefore) this.#add('waitingBefore', 1n)
    return () => {
      this.#add('waiting', -1n)
      if (isUrgent) this.#add('urgentWaitedUs', this.#nowUs() - sinceUs)
      if (goesBefore) this.#add('waitingBefore', -1n)
    }
  }

  /**
   * Resolves when so many bytes may pass, and counts them. A piece that is not urgent waits for its turn; one that
   * becomes urgent overtakes.
   * @throws the signal's reason
   */
  async take(bytes: number, { signal, urgency, isLast = false }: PieceOptions): Promise<void> {
    if (this.#tryTake(bytes, urgency, isLast)) return
    let wakeUp = Promise.withResolvers<void>()
    const waiter: Waiter = { wake: () => wakeUp.resolve(), isLast }
    this.#waiting.add(waiter)
    let endWait = this.beginWait({ isUrgent: urgency.isUrgent, goesBefore: !urgency.isUrgent && !isLast })
    const forgetRaise = urgency.onRaise(() => {
      endWait()
      endWait = this.beginWait({ isUrgent: true })
      this.#add('waits', -1n)
      waiter.wake()
    })
    signal.addEventListener('abort', waiter.wake, { once: true })
    try {
      for (;;) {
        signal.throwIfAborted()
        const { isUrgent } = urgency
        const isFirst = isUrgent || this.#first() === waiter
        if (isFirst && this.#spend(bytes, isUrgent, isLast)) return
        const waitMs = isFirst ? Math.min(this.waitMs(isUrgent, { isLast }), pollMs) : undefined
        const cancel = waitMs === undefined ? undefined : this.#clock.after(waitMs, waiter.wake)
        await wakeUp.promise
        cancel?.()
        wakeUp = Promise.withResolvers()
      }
    } finally {
      forgetRaise()
      signal.removeEventListener('abort', waiter.wake)
      this.#waiting.delete(waiter)
      endWait()
      this.#wakeFirst()
    }
  }

  /** How long until something may pass (ms); 0 where it may now. */
  waitMs(isUrgent: boolean, { isLast = false }: { isLast?: boolean } = {}): number {
    const rate = this.bytesPerSecond
    if (rate === undefined) return 0
    // Another thread, too, may have what goes before it.
    if (!isUrgent && isLast && this.#load('waitingBefore') > 0n) return lastPollMs
    const mayOweUs = isUrgent ? borrowUs + costUsOf(longestPieceBytes, rate) : 0n
    const owedUs = this.#load('freeAtUs') - this.#nowUs() - mayOweUs
    return owedUs <= 0n ? 0 : Math.ceil(Number(owedUs) / 1000)
  }

  /** Counts bytes that pass now, whatever is owed. */
  charge(bytes: number): void {
    Atomics.add(this.#numbers, places.bytes, BigInt(bytes))
    const rate = this.bytesPerSecond
    if (rate === undefined) return
    const costUs = costUsOf(bytes, rate)
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
    Atomics.sub(this.#numbers, places.freeAtUs, costUsOf(bytes, rate))
    this.#wakeFirst()
  }

  /** Nobody overtakes those that wait already, unless somebody waits for it. */
  #tryTake(bytes: number, { isUrgent }: Urgency, isLast: boolean): boolean {
    return (isUrgent || this.#waiting.size === 0) && this.#spend(bytes, isUrgent, isLast)
  }

  #spend(bytes: number, isUrgent: boolean, isLast: boolean): boolean {
    if (this.waitMs(isUrgent, { isLast }) > 0) return false
    this.charge(bytes)
    return true
  }

  /** The one whose turn it is: the first of those that are not last, if there are such. */
  #first(): Waiter | undefined {
    let last: Waiter | undefined
    for (const waiter of this.#waiting) {
      if (!waiter.isLast) return waiter
      last ??= waiter
    }
    return last
  }

  #wakeFirst(): void {
    this.#first()?.wake()
  }

  #add(place: keyof typeof places, value: bigint): void {
    Atomics.add(this.#numbers, places[place], value)
  }

  #load(place: keyof typeof places): bigint {
    return Atomics.load(this.#numbers, places[place])
  }
}

function costUsOf(bytes: number, bytesPerSecond: number): bigint {
  return BigInt(Math.ceil((bytes / bytesPerSecond) * microsecondsPerSecond))
}
