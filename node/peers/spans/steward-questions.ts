import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import type { SpanPlace, SpanQuestion } from '../../../protocol/messages/span.ts'
import type { Clock } from '../../base/clock.ts'
import { ExpiringMap } from '../../base/expiring-map.ts'
import { LatencyEstimate } from '../../base/latency-estimate.ts'
import type { Log } from '../../base/log.ts'
import type { Urgency } from '../../base/urgency.ts'
import type { Membership } from '../membership.ts'
import type { SpanClient } from './client.ts'

/**
 * How long a steward may take to answer, before there are samples and within bounds (ms): a small message, at a host that
 * starts the same image and is short of cores.
 */
const answerBounds = { firstMs: 250, minMs: 20, maxMs: 500 } as const
/** How long it may take to connect to a member, before there are samples and within bounds (ms): some round trips, and its turn. */
const connectBounds = { firstMs: 500, minMs: 250, maxMs: 1_000 } as const
/**
 * A steward that has answered this host anything for so long (ms) is there: it gets the time that its asker has for such a one. To
 * pass over one that is short of a core has its spans read twice, as all who ask it at once do so.
 */
const awakeForMs = 5_000
/** A steward that was just connected to may take so many times as long as that took: many others may connect to it, too. */
const meetingFactor = 4
/** A question that nobody waits for gives its steward this time (ms), or so many times what stewards usually take. */
const unawaited = { minMs: 3_000, factor: 4 } as const
/** Stewards that are asked for one group: the first in its order, and the next where that one is passed over. */
const maxAsked = 2
/** A steward that was passed over is not asked for so long (ms). */
const avoidMs = 10_000
/** A timer that is so late (ms) tells of a pause of this host: answers may have come that it has not read. */
const ownPauseMs = 5
/** Such a timer is set anew so many times at most. */
const maxPauses = 5

export interface StewardQuestionsParts {
  /** The id of this host. */
  own: string
  membership: Pick<Membership, 'members' | 'reach'>
  client: Pick<SpanClient, 'ask'>
  log: Log
  /** Ends the connecting to members. */
  signal: AbortSignal
  clock: Clock
}

export interface AskOptions {
  urgency: Urgency
  /** A steward has at least this time to be connected to, and again to answer (ms). */
  leastMs: number
  /** One that has answered this host anything a moment ago has at least this time to answer (ms). */
  awakeMs: number
  /** The answer of this host, where it is the steward. */
  answerOwn: () => SpanPlace[] | Promise<SpanPlace[]>
  /** Called with what a steward says that was passed over. */
  onLate?: (places: SpanPlace[]) => void
}

/** Asks stewards, none for longer than one may take that is well. */
export class StewardQuestions {
  readonly #parts: StewardQuestionsParts
  readonly #avoided: ExpiringMap<string>
  readonly #latency = new LatencyEstimate(answerBounds)
  readonly #connecting = new LatencyEstimate(connectBounds)

  constructor(parts: StewardQuestionsParts) {
    this.#parts = parts
    this.#avoided = new ExpiringMap({ maxEntries: 1024, now: () => parts.clock.now() })
  }

  /**
   * Asks the first of the stewards, and the next where that one does not answer in time.
   * @param stewards ids, in the order in which they answer for the question
   * @returns undefined where none answers in time
   */
  async ask(
    stewards: readonly string[],
    question: SpanQuestion,
    { urgency, leastMs, awakeMs, answerOwn, onLate }: AskOptions,
  ): Promise<SpanPlace[] | undefined> {
    const { own, client, log, clock } = this.#parts
    const asked = stewards.filter((id) => !this.#avoided.has(id)).slice(0, maxAsked)
    // The one that was asked first knows what others were told: what it says late counts while the next one is asked.
    const late = Promise.withResolvers<SpanPlace[]>()
    for (const steward of asked) {
      if (steward === own) return await answerOwn()
      try {
        const connectMs = await this.connect(steward, { leastMs })
        const startedAtMs = clock.now()
        // An asker that has waited once for a steward that has gone does not wait as long again.
        const isAwake = steward === asked[0] && startedAtMs - this.#lastSignMs(steward) < awakeForMs
        const asking = client.ask(steward, question)
        asking.then(
          () => this.#latency.add(clock.now() - startedAtMs),
          () => undefined,
        )
        const meetingMs = Math.min(connectMs * meetingFactor, answerBounds.maxMs)
        const patienceMs = Math.max(this.#latency.p95Ms, meetingMs, leastMs, isAwake ? awakeMs : 0)
        const places = await Promise.race([late.promise, asking, this.#patience(patienceMs, urgency, asking)])
        if (places !== undefined) return places
        // It may be busy: what it says later counts from then on, or hosts that did not wait would read all by themselves.
        asking.then(
          (answer) => {
            this.#avoided.delete(steward)
            late.resolve(answer)
            onLate?.(answer)
          },
          () => undefined,
        )
        log.debug('steward does not answer in time; it is passed over', { peer: steward, table: question.table })
      } catch (error) {
        if (!isP2pfsError(error)) throw error
        log.debug('steward does not answer; it is passed over', { error, peer: steward, table: question.table })
      }
      this.#avoided.set(steward, true, avoidMs)
    }
    return undefined
  }

  /**
   * Connects to a member, where this host is not.
   * @param options `leastMs`: it may take so long at least
   * @returns the time that it took (ms)
   * @throws unavailable where it cannot be reached in time
   */
  async connect(id: string, { leastMs = 0 }: { leastMs?: number } = {}): Promise<number> {
    const { membership, signal } = this.#parts
    if (membership.members().some((member) => member.id === id)) return 0
    const startedAtMs = this.#parts.clock.now()
    const late = new AbortController()
    const timeoutMs = Math.max(this.#connecting.p95Ms, leastMs)
    const cancel = this.#parts.clock.after(timeoutMs, () =>
      late.abort(new P2pfsError('unavailable', 'the member cannot be reached in time', { timeoutMs })),
    )
    try {
      await membership.reach(id, { signal: AbortSignal.any([signal, late.signal]) })
    } finally {
      cancel()
    }
    const ms = this.#parts.clock.now() - startedAtMs
    this.#connecting.add(ms)
    return ms
  }

  #lastSignMs(id: string): number {
    return this.#parts.membership.members().find((member) => member.id === id)?.standing.lastSignMs ?? -Infinity
  }

  /** Resolves when the steward has had its time, without that in which this host itself was late. */
  async #patience(usualMs: number, urgency: Urgency, asking: Promise<unknown>): Promise<undefined> {
    const over = Promise.withResolvers<undefined>()
    let pauses = 0
    let cancel: () => void = () => undefined
    let isOver = false
    const wait = (ms: number): void => {
      if (isOver) return
      const dueMs = this.#parts.clock.now() + ms
      cancel = this.#parts.clock.after(ms, () => {
        const lateMs = this.#parts.clock.now() - dueMs
        if (lateMs <= ownPauseMs || ++pauses > maxPauses) return over.resolve(undefined)
        wait(lateMs)
      })
    }
    wait(urgency.isUrgent ? usualMs : Math.max(unawaited.minMs, unawaited.factor * usualMs))
    urgency.onRaise(() => {
      cancel()
      wait(usualMs)
    })
    asking.then(
      () => over.resolve(undefined),
      () => over.resolve(undefined),
    )
    try {
      return await over.promise
    } finally {
      isOver = true
      cancel()
    }
  }
}
