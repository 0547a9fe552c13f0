import type { Digest } from '../../../protocol/digest.ts'
import { maxKeysPerQuestion, type Holds, type LocationAnswer } from '../../../protocol/messages/location.ts'
import type { Clock } from '../../base/clock.ts'
import { ExpiringMap } from '../../base/expiring-map.ts'
import { LatencyEstimate } from '../../base/latency-estimate.ts'
import { orAbort } from '../../base/single-flight.ts'
import { limits } from '../limits.ts'
import type { TrackerClient } from './tracker-client.ts'

/** How long a tracker is waited for before the next one is asked too (ms); later what 95 of 100 keep to. */
const hedgeMs = { firstMs: 50, minMs: 20, maxMs: 250 } as const
/** A tracker that did not answer is asked last for so long (ms). */
const slowMs = 30_000

/** The answers of the trackers of a key. */
export interface Found {
  /** Peer ids of members that hold or track it, this host excluded. */
  members: string[]
  /** Whether a tracker has answered. */
  isAnswered: boolean
}

interface Waiting {
  key: Digest
  holds: Holds
  result: PromiseWithResolvers<string[]>
}

export interface QuestionsParts {
  client: Pick<TrackerClient, 'ask'>
  trackersOf: (key: Digest) => string[]
  clock: Clock
  /** Aborts when this host leaves. */
  signal: AbortSignal
}

/**
 * Asks the trackers of keys. The first tracker of a key is asked, the next one where it does not answer soon, and all of
 * them where it knows nobody: it may be new.
 */
export class Questions {
  readonly #parts: QuestionsParts
  readonly #latency = new LatencyEstimate(hedgeMs)
  readonly #slow: ExpiringMap<string>
  /** Questions of this turn of the event loop, by tracker, number of members wanted, and order. */
  readonly #batches = new Map<string, { tracker: string; wanted: number; order: number; waiting: Waiting[] }>()

  constructor(parts: QuestionsParts) {
    this.#parts = parts
    this.#slow = new ExpiringMap({ maxEntries: limits.members.inAll, now: parts.clock.now })
  }

  /** @param said what this host says of itself with the question @throws the signal's reason */
  async find(
    key: Digest,
    said: Holds,
    { wanted, order, signal }: { wanted: number; order: number; signal: AbortSignal },
  ): Promise<Found> {
    const { trackersOf, clock } = this.#parts
    const trackers = trackersOf(key).toSorted((a, b) => Number(this.#slow.has(a)) - Number(this.#slow.has(b)))
    if (trackers.length === 0) return { members: [], isAnswered: false }
    const found = Promise.withResolvers<Found>()
    let next = 0
    let open = 0
    let isAnswered = false
    let cancelHedge = (): void => undefined
    const askNext = (): void => {
      cancelHedge()
      const tracker = trackers[next]
      if (tracker === undefined) return
      next++
      open++
      cancelHedge = clock.after(this.#latency.p95Ms, askNext)
      this.#ask(tracker, { key, holds: said, wanted, order })
        .then(
          (members) => {
            isAnswered = true
            if (members.length > 0) return found.resolve({ members, isAnswered })
            while (next < trackers.length) askNext()
          },
          () => askNext(),
        )
        .finally(() => {
          open--
          if (open === 0 && next === trackers.length) found.resolve({ members: [], isAnswered })
        })
    }
    askNext()
    try {
      return await orAbort(found.promise, signal)
    } finally {
      cancelHedge()
      next = trackers.length
    }
  }

  /** All questions of a turn to one tracker are one message. */
  async #ask(
    tracker: string,
    { key, holds, wanted, order }: { key: Digest; holds: Holds; wanted: number; order: number },
  ): Promise<string[]> {
    const name = `${tracker} ${wanted} ${order}`
    let batch = this.#batches.get(name)
    if (batch === undefined) {
      batch = { tracker, wanted, order, waiting: [] }
      this.#batches.set(name, batch)
      queueMicrotask(() => {
        if (this.#batches.get(name) === batch) this.#send(name)
      })
    }
    const result = Promise.withResolvers<string[]>()
    batch.waiting.push({ key, holds, result })
    if (batch.waiting.length === maxKeysPerQuestion) this.#send(name)
    return await result.promise
  }

  #send(name: string): void {
    const { tracker, wanted, order, waiting } = this.#batches.get(name)!
    this.#batches.delete(name)
    const { client, clock, signal } = this.#parts
    const startedAtMs = clock.now()
    const keys = waiting.map(({ key, holds }) => ({ key, holds }))
    // It registers this host too, so it is not broken off when another tracker has answered.
    client.ask(tracker, { keys, wanted, order }, { signal }).then(
      (answer: LocationAnswer) => {
        this.#slow.delete(tracker)
        this.#latency.add(clock.now() - startedAtMs)
        for (const [i, { result }] of waiting.entries()) result.resolve(answer[i] ?? [])
      },
      (error: unknown) => {
        this.#slow.set(tracker, true, slowMs)
        for (const { result } of waiting) result.reject(error)
      },
    )
  }
}
