import type { Digest } from '../../../protocol/digest.ts'
import { holds, maxKeysPerRequest, type Holds, type LocationAnswer } from '../../../protocol/messages/location.ts'
import type { Clock } from '../../base/clock.ts'
import { Semaphore } from '../../base/semaphore.ts'
import type { TrackerClient } from './tracker-client.ts'
import { bucketOf, type NewTracker, type TrackerMap } from './tracker-map.ts'

/**
 * The time at which trackers are told. `now`: others may ask at once. `soon`: the first tracker knows it by a question.
 * `later`: in its turn. `spread`: over a time that grows with the region, since all of it may have the same to tell.
 */
export type Urgency = 'now' | 'soon' | 'later' | 'spread'

/** How long what is to be told at once is gathered (ms). */
const nowMs = 50
/** `soon` is after this time, and at most twice this (ms): hosts that start together do not tell together. */
const soonMs = 1_000
/** Messages to trackers, of what is told in its turn: four in a second. 1,000 trackers take four minutes. */
const turnMs = 250
/** New trackers are told within this (ms), or {@link spreadMsPerMember}. */
const handoverMs = 10_000
/**
 * `spread` is over so long for each member of the region (ms): a tracker then hears from 100 in a second, and has to
 * connect to them first, which takes a fifth of a core. In a region of 10,000 it is 100 s.
 */
const spreadMsPerMember = 10
/** Everything is told anew so often (ms): a tracker may have been started anew without a trace in the roster. */
const refreshMs = 30 * 60_000
/** A tracker that did not take what it was told is told again after this (ms). */
const retryMs = 10_000
/** Trackers that are told at once. */
const atOnce = 8

export interface RegistrarParts {
  trackers: Pick<TrackerMap, 'trackersOfBucket' | 'members'>
  client: Pick<TrackerClient, 'ask'>
  clock: Clock
  /** From 0 to less than 1. */
  random: () => number
  /** Aborts when this host leaves. */
  signal: AbortSignal
}

/**
 * Tells trackers what this host holds. It keeps this host's own keys, 100 bytes for each, and for each tracker the buckets
 * that it is still to hear of: what it tells is read when it is sent.
 */
export class Registrar {
  readonly #parts: RegistrarParts
  /** By bucket; where there are none, there is no map: 1,024 of them would take 200 KB. */
  readonly #own = new Map<number, Map<Digest, Holds>>()
  #size = 0
  /** Keys that trackers are to hear of at once, or soon. */
  readonly #pressing = { now: new Map<string, Set<Digest>>(), soon: new Map<string, Set<Digest>>() }
  readonly #cancels = { now: undefined as (() => void) | undefined, soon: undefined as (() => void) | undefined }
  /** Buckets that trackers are to hear of in their turn. */
  readonly #due = new Map<string, { buckets: Set<number>; notBeforeMs: number }>()
  #cancelTurn: (() => void) | undefined
  #cancelRefresh: (() => void) | undefined
  readonly #sending = new Semaphore(atOnce)
  #isRunning = false

  constructor(parts: RegistrarParts) {
    this.#parts = parts
  }

  /** Keys of this host. */
  get size(): number {
    return this.#size
  }

  /** The last statement of this host about the key. */
  said(key: Digest): Holds {
    return this.#ownOf(bucketOf(key), key) ?? holds.unsaid
  }

  /** States that this host holds the key, or no longer. A statement that was made already is not made again. */
  say(key: Digest, said: Holds, urgency: Urgency): void {
    const bucket = bucketOf(key)
    const before = this.#ownOf(bucket, key)
    if (before === said || (before === undefined && said === holds.nothing)) return
    const own = this.#own.get(bucket) ?? new Map<Digest, Holds>()
    if (said === holds.nothing) own.delete(key)
    else own.set(key, said)
    if (own.size > 0) this.#own.set(bucket, own)
    else this.#own.delete(bucket)
    this.#size += Number(said !== holds.nothing) - Number(before !== undefined)
    if (this.#isRunning) this.#tell(key, bucket, urgency)
  }

  /** Says again what this host holds of the key. */
  repeat(key: Digest, urgency: Urgency): void {
    if (this.#isRunning && this.said(key) !== holds.unsaid) this.#tell(key, bucketOf(key), urgency)
  }

  /** Begins to tell trackers: all that this host has, in its turn. */
  start(): void {
    if (this.#isRunning) return
    this.#isRunning = true
    this.#tellAll()
  }

  /** Tells nobody any more, until it is started again. */
  stop(): void {
    this.#isRunning = false
    for (const cancel of [...Object.values(this.#cancels), this.#cancelTurn, this.#cancelRefresh]) cancel?.()
    this.#cancels.now = undefined
    this.#cancels.soon = undefined
    this.#cancelTurn = undefined
    for (const pressing of Object.values(this.#pressing)) pressing.clear()
    this.#due.clear()
  }

  /** The roster has changed. */
  changed({ added, gone }: { added: readonly NewTracker[]; gone: readonly string[] }): void {
    if (!this.#isRunning) return
    for (const tracker of gone) {
      this.#due.delete(tracker)
      for (const pressing of Object.values(this.#pressing)) pressing.delete(tracker)
    }
    const { clock, random } = this.#parts
    const notBeforeMs = clock.now() + random() * this.#handoverMs
    for (const { tracker, bucket } of added) if (this.#own.has(bucket)) this.#owe(tracker, bucket, notBeforeMs)
  }

  /** Within this all members have told one tracker what they all have to tell (ms). */
  get #spreadMs(): number {
    return this.#parts.trackers.members * spreadMsPerMember
  }

  get #handoverMs(): number {
    return Math.max(handoverMs, this.#spreadMs)
  }

  #ownOf(bucket: number, key: Digest): Holds | undefined {
    return this.#own.get(bucket)?.get(key)
  }

  #tellAll(): void {
    const { clock, random, trackers } = this.#parts
    for (const bucket of this.#own.keys()) {
      for (const tracker of trackers.trackersOfBucket(bucket))
        this.#owe(tracker, bucket, clock.now() + random() * this.#handoverMs)
    }
    this.#cancelRefresh = clock.after(refreshMs * (0.75 + random() / 4), () => this.#tellAll())
  }

  #tell(key: Digest, bucket: number, urgency: Urgency): void {
    const { trackers, clock, random } = this.#parts
    for (const tracker of trackers.trackersOfBucket(bucket)) {
      if (urgency === 'later' || urgency === 'spread') {
        this.#owe(tracker, bucket, clock.now() + (urgency === 'spread' ? random() * this.#spreadMs : 0))
        continue
      }
      const pressing = this.#pressing[urgency]
      const keys = pressing.get(tracker) ?? new Set()
      pressing.set(tracker, keys.add(key))
    }
    if (urgency === 'later' || urgency === 'spread') return
    const ms = urgency === 'now' ? nowMs : soonMs * (1 + random())
    this.#cancels[urgency] ??= clock.after(ms, () => this.#flush(urgency))
  }

  #flush(urgency: 'now' | 'soon'): void {
    this.#cancels[urgency] = undefined
    const pressing = [...this.#pressing[urgency]]
    this.#pressing[urgency].clear()
    for (const [tracker, keys] of pressing) void this.#sendKeys(tracker, [...keys])
  }

  #owe(tracker: string, bucket: number, notBeforeMs: number): void {
    const due = this.#due.get(tracker)
    if (due === undefined) this.#due.set(tracker, { buckets: new Set([bucket]), notBeforeMs })
    else {
      due.buckets.add(bucket)
      due.notBeforeMs = Math.min(due.notBeforeMs, notBeforeMs)
    }
    this.#cancelTurn ??= this.#parts.clock.after(turnMs, () => this.#takeTurn())
  }

  /** Tells one tracker of the buckets that it is owed. */
  #takeTurn(): void {
    this.#cancelTurn = undefined
    if (this.#due.size === 0) return
    const { clock } = this.#parts
    this.#cancelTurn = clock.after(turnMs, () => this.#takeTurn())
    for (const [tracker, { buckets, notBeforeMs }] of this.#due) {
      if (notBeforeMs > clock.now()) continue
      this.#due.delete(tracker)
      const keys = [...buckets].flatMap((bucket) => [...(this.#own.get(bucket)?.keys() ?? [])])
      void this.#sendKeys(tracker, keys)
      return
    }
  }

  /** Sends the present state of the keys. Keys that are not taken are owed. */
  async #sendKeys(tracker: string, keys: readonly Digest[]): Promise<void> {
    for (let start = 0; start < keys.length; start += maxKeysPerRequest) {
      const some = keys.slice(start, start + maxKeysPerRequest)
      try {
        await this.#sending.run(async () => await this.#send(tracker, some))
      } catch {
        if (this.#parts.signal.aborted || !this.#isRunning) return
        const { clock, trackers } = this.#parts
        for (const key of keys.slice(start)) {
          const bucket = bucketOf(key)
          if (trackers.trackersOfBucket(bucket).includes(tracker)) this.#owe(tracker, bucket, clock.now() + retryMs)
        }
        return
      }
    }
  }

  async #send(tracker: string, keys: readonly Digest[]): Promise<LocationAnswer> {
    const { client, signal } = this.#parts
    const said = keys.map((key) => ({ key, holds: this.#ownOf(bucketOf(key), key) ?? holds.nothing }))
    return await client.ask(tracker, { keys: said, wanted: 0, order: 0 }, { signal })
  }
}
