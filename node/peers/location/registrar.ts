import type { Digest } from '../../../protocol/digest.ts'
import { holds, maxKeysPerRequest, type Holds, type LocationAnswer } from '../../../protocol/messages/location.ts'
import type { Clock } from '../../base/clock.ts'
import { Semaphore } from '../../base/semaphore.ts'
import type { TrackerClient } from './tracker-client.ts'
import { bucketCount, bucketOf, type NewTracker, type TrackerMap } from './tracker-map.ts'

/** When trackers are told: at once, since others may ask now; soon, since the first tracker knows it by a question; or in its turn. */
export type Urgency = 'now' | 'soon' | 'later'

/** How long what is to be told at once is gathered (ms). */
const nowMs = 50
/** What is to be told soon is told after this, and at most twice this (ms): hosts that start together do not tell together. */
const soonMs = 1_000
/** Messages to trackers, of what is told in its turn: four in a second. 1,000 trackers take four minutes. */
const turnMs = 250
/** New trackers are told within this (ms): one that joins a region of 1,000 hears from 100 of them in a second. */
const handoverMs = 10_000
/** Everything is told anew so often (ms): a tracker may have been started anew without a trace in the roster. */
const refreshMs = 30 * 60_000
/** A tracker that did not take what it was told is told again after this (ms). */
const retryMs = 10_000
/** Trackers that are told at once. */
const atOnce = 8

export interface RegistrarParts {
  trackers: Pick<TrackerMap, 'trackersOfBucket'>
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
  readonly #own: Map<Digest, Holds>[] = Array.from({ length: bucketCount }, () => new Map())
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

  /** What this host has said of the key. */
  said(key: Digest): Holds {
    return this.#own[bucketOf(key)]!.get(key) ?? holds.unsaid
  }

  /** This host holds the key, or no longer. What it has said already is not said again. */
  say(key: Digest, said: Holds, urgency: Urgency): void {
    const bucket = bucketOf(key)
    const own = this.#own[bucket]!
    const before = own.get(key)
    if (before === said || (before === undefined && said === holds.nothing)) return
    if (said === holds.nothing) own.delete(key)
    else own.set(key, said)
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
    const notBeforeMs = clock.now() + random() * handoverMs
    for (const { tracker, bucket } of added) if (this.#own[bucket]!.size > 0) this.#owe(tracker, bucket, notBeforeMs)
  }

  #tellAll(): void {
    const { clock, random, trackers } = this.#parts
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      if (this.#own[bucket]!.size === 0) continue
      for (const tracker of trackers.trackersOfBucket(bucket))
        this.#owe(tracker, bucket, clock.now() + random() * handoverMs)
    }
    this.#cancelRefresh = clock.after(refreshMs * (0.75 + random() / 4), () => this.#tellAll())
  }

  #tell(key: Digest, bucket: number, urgency: Urgency): void {
    const { trackers, clock, random } = this.#parts
    for (const tracker of trackers.trackersOfBucket(bucket)) {
      if (urgency === 'later') {
        this.#owe(tracker, bucket, clock.now())
        continue
      }
      const pressing = this.#pressing[urgency]
      const keys = pressing.get(tracker) ?? new Set()
      pressing.set(tracker, keys.add(key))
    }
    if (urgency === 'later') return
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
    else due.buckets.add(bucket)
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
      const keys = [...buckets].flatMap((bucket) => [...this.#own[bucket]!.keys()])
      void this.#sendKeys(tracker, keys)
      return
    }
  }

  /** Sends what holds of the keys now. What is not taken is owed. */
  async #sendKeys(tracker: string, keys: readonly Digest[]): Promise<void> {
    for (let at = 0; at < keys.length; at += maxKeysPerRequest) {
      const some = keys.slice(at, at + maxKeysPerRequest)
      try {
        await this.#sending.run(async () => await this.#send(tracker, some))
      } catch {
        if (this.#parts.signal.aborted || !this.#isRunning) return
        const { clock, trackers } = this.#parts
        for (const key of keys.slice(at)) {
          const bucket = bucketOf(key)
          if (trackers.trackersOfBucket(bucket).includes(tracker)) this.#owe(tracker, bucket, clock.now() + retryMs)
        }
        return
      }
    }
  }

  async #send(tracker: string, keys: readonly Digest[]): Promise<LocationAnswer> {
    const { client, signal } = this.#parts
    const said = keys.map((key) => ({ key, holds: this.#own[bucketOf(key)]!.get(key) ?? holds.nothing }))
    return await client.ask(tracker, { keys: said, wanted: 0, order: 0 }, { signal })
  }
}
