import type { Log } from '../base/log.ts'
import { blocksOf, RoomCounter } from '../base/room-counter.ts'
import { storeFull } from '../base/disk-full.ts'
import type { Amount } from '../model/progress.ts'
import type { Room } from './disk-room.ts'

/** How often the free space is looked at (ms): what others write in that time is no more than a disk writes in a second. */
const lookMs = 1_000
/** Chunks that wait for room: 16 MiB of memory. More are not kept. */
const maxWaiting = 64
/** How long a chunk waits for room (ms): as long as a sync of what was evicted may take. */
const waitMs = 10_000
/** Nothing waits for so long after it was found that nothing can be evicted (ms). */
const stuckMs = 1_000

/**
 * Room between the limit and where eviction begins, and again between that and where it ends: a share, and bounds
 * (bytes).
 */
const slack = { share: 0.02, leastBytes: 4 * 2 ** 20, mostBytes: 2 ** 30, mostShare: 1 / 8 } as const

export interface StoreRoomParts {
  /** The filesystem of the chunks. */
  disk: () => Promise<Room>
  log: Log
}

export interface StoreRoomOptions {
  /** The most that the files of this host may take (bytes); no limit by default. */
  limitBytes?: number
  /** Returns how much stays free on a disk of that size (bytes). */
  keepFree?: (diskBytes: number) => number
}

/**
 * The room that chunks, and the files of whole images, may take on the disk: up to a limit, and as long as enough of
 * the disk stays free. Only bytes of this host are counted, and every byte is, from before its file is written until
 * after it is gone.
 */
export class StoreRoom implements Disposable {
  /** For threads that write chunk files. */
  readonly counter = new RoomCounter()
  /** Chunks that were evicted since the daemon started. */
  readonly evicted: Amount = { bytes: 0, chunks: 0 }
  readonly #parts: StoreRoomParts
  readonly #limitBytes: number
  readonly #keepFree: (diskBytes: number) => number
  #isCounted: boolean
  #allowedBytes: number
  #wake: () => void = () => undefined
  #stuckUntilMs = 0
  #waiting: { blocks: number; settle: (hasRoom: boolean) => void }[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(
    parts: StoreRoomParts,
    { limitBytes = Number.MAX_SAFE_INTEGER, keepFree = () => 0 }: StoreRoomOptions = {},
  ) {
    this.#parts = parts
    this.#limitBytes = limitBytes
    this.#allowedBytes = limitBytes
    this.#keepFree = keepFree
    // With a limit, the files that are here are counted first.
    this.#isCounted = !this.isLimited
    this.#apply()
  }

  /** Looks at the disk from now on, until this is disposed of. */
  async start(): Promise<void> {
    await this.look()
    const watch = (): void => {
      this.#timer = setTimeout(
        () =>
          void this.look()
            .catch((error: unknown) => this.#parts.log.debug('free space cannot be read', { error }))
            .finally(watch),
        lookMs,
      ).unref()
    }
    watch()
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
    this.#settleWaiting()
  }

  /** Whether the operator has given a limit in bytes. */
  get isLimited(): boolean {
    return this.#limitBytes !== Number.MAX_SAFE_INTEGER
  }

  get usedBytes(): number {
    return this.counter.usedBytes
  }

  /** Why there is no room where there is none, and what to do, for a person. */
  get whyFull(): string {
    return this.#allowedBytes < this.#limitBytes
      ? 'the disk is full but for what stays free (--store-keep-free), and nothing more of p2pfs can be evicted now: make ' +
          'room on it, or end pins (p2pfs images says what is pinned)'
      : 'the store has reached its limit, and nothing more in it can be evicted now: give it more with --store-limit, or ' +
          'end pins (p2pfs images says what is pinned)'
  }

  /** The room that may be used now (bytes): as the option says, or less where the disk has less. */
  get limitBytes(): number {
    return this.#allowedBytes
  }

  /** Whether a chunk would find no room now. */
  get isFull(): boolean {
    return this.counter.usedBytes + slack.leastBytes / 4 > this.counter.limitBytes
  }

  /** Eviction begins when the free room is less, and ends when it is twice as much (bytes). */
  get slackBytes(): number {
    const { share, leastBytes, mostBytes, mostShare } = slack
    const limitBytes = this.#allowedBytes
    return Math.min(limitBytes * mostShare, Math.max(leastBytes, Math.min(mostBytes, limitBytes * share)))
  }

  /** @param goneBytes files that are gone but for the next sync. @returns how much is to be evicted (bytes); 0: nothing */
  excessBytes(goneBytes: number): number {
    if (!this.#isCounted) return 0
    const usedBytes = this.usedBytes - goneBytes
    const beyondBytes = usedBytes - (this.#allowedBytes - this.slackBytes)
    return beyondBytes <= 0 && !(this.#waiting.length > 0 && goneBytes === 0) ? 0 : beyondBytes + this.slackBytes
  }

  /** Room for what is to stay: with all that can be evicted. @param pinnedBytes what cannot */
  async forPins(pinnedBytes: number): Promise<Room> {
    const { freeBytes, sizeBytes } = await this.#parts.disk()
    const allFreeBytes = freeBytes + Math.max(0, this.usedBytes - pinnedBytes)
    return {
      freeBytes: Math.max(0, Math.min(allFreeBytes, this.#limitBytes - pinnedBytes)),
      sizeBytes: Math.min(sizeBytes, this.#limitBytes),
    }
  }

  /** Calls the listener when there is too little room. */
  onPressure(wake: () => void): void {
    this.#wake = wake
  }

  /** A thread has found no room. */
  press(): void {
    if (!this.#isStuck) this.#wake()
  }

  get #isStuck(): boolean {
    return performance.now() < this.#stuckUntilMs
  }

  /** All files that were here are counted. */
  counted(): void {
    this.#isCounted = true
    this.#apply()
    this.#admit()
  }

  /**
   * Takes room for a file. Waits some seconds for what is being evicted, while few others do.
   * @throws an error of `isStoreFull` where there is none
   */
  async take(lengthBytes: number): Promise<void> {
    const blocks = blocksOf(lengthBytes)
    if (this.#waiting.length === 0 && this.counter.take(blocks)) return
    this.press()
    if (this.#waiting.length >= maxWaiting || this.#isStuck) throw storeFull()
    const hasRoom = await new Promise<boolean>((resolve) => {
      const waiter = {
        blocks,
        settle: (hasRoom: boolean): void => {
          clearTimeout(timer)
          resolve(hasRoom)
        },
      }
      const timer = setTimeout(() => {
        this.#waiting = this.#waiting.filter((other) => other !== waiter)
        resolve(false)
      }, waitMs).unref()
      this.#waiting.push(waiter)
    })
    if (!hasRoom) throw storeFull()
  }

  /** Gives room back. */
  give(blocks: number): void {
    this.counter.give(blocks)
    this.#admit()
  }

  /** Whether somebody waits for room. */
  get isAwaited(): boolean {
    return this.#waiting.length > 0
  }

  /** Nothing more can be evicted: nobody waits for it. */
  noteStuck(): void {
    this.#stuckUntilMs = performance.now() + stuckMs
    this.#settleWaiting()
  }

  noteEvicted(bytes: number): void {
    this.evicted.bytes += bytes
    this.evicted.chunks++
  }

  async look(): Promise<void> {
    const { freeBytes, sizeBytes } = await this.#parts.disk()
    const spareBytes = freeBytes - this.#keepFree(sizeBytes)
    this.#allowedBytes = Math.max(0, Math.min(this.#limitBytes, this.usedBytes + spareBytes))
    this.#apply()
    this.#admit()
    if (this.excessBytes(0) > 0) this.#wake()
  }

  #apply(): void {
    this.counter.limitBytes = this.#isCounted ? this.#allowedBytes : 0
  }

  #admit(): void {
    while (this.#waiting.length > 0 && this.counter.take(this.#waiting[0]!.blocks)) this.#waiting.shift()!.settle(true)
  }

  #settleWaiting(): void {
    for (const { settle } of this.#waiting.splice(0)) settle(false)
  }
}
