import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import { groupSpans, spanChunks, type SpanPlace } from '../../../protocol/messages/span.ts'
import { systemClock, type Clock } from '../../base/clock.ts'
import { ExpiringMap } from '../../base/expiring-map.ts'
import { LatencyEstimate } from '../../base/latency-estimate.ts'
import type { Log } from '../../base/log.ts'
import { Urgency } from '../../base/urgency.ts'
import type { Membership } from '../membership.ts'
import { standings } from '../peer-standing.ts'
import type { SpanClient } from './client.ts'
import type { SpanBook } from './span-book.ts'

/** How long a steward may take to answer, before there are samples and within bounds (ms): a small message. */
const answerBounds = { firstMs: 50, minMs: 20, maxMs: 500 } as const
/** How long it may take to connect to a member, before there are samples and within bounds (ms): some round trips, and its turn. */
const connectBounds = { firstMs: 500, minMs: 250, maxMs: 1_000 } as const
/** A steward that was just connected to may take so many times as long as that took: many others may connect to it, too. */
const meetingFactor = 4
/** A question that nobody waits for gives its steward this time (ms), or so many times what stewards usually take. */
const unawaited = { minMs: 1_000, factor: 4 } as const
/** Stewards that are asked for one group: the first in its order, and the next where that one is passed over. */
const maxAsked = 2
/** A steward that was passed over is not asked for so long (ms). */
const avoidMs = 10_000
/** A steward's answer is kept for so long (ms), and asked for anew then. */
const placeMs = 30_000
/** The same where no steward answered (ms): this host reads by itself, as if it were alone. */
const unansweredMs = 5_000
/** Spans whose places are kept: those of 16 GB of chunks. */
const maxPlaces = 8192
/** A timer that is so late (ms) tells of a pause of this host: answers may have come that it has not read. */
const ownPauseMs = 5
/** Such a timer is set anew so many times at most. */
const maxPauses = 5

const readItself: SpanPlace = { depth: 0, member: undefined }

export interface SpanStewardsParts {
  /** The id of this host. */
  own: string
  membership: Pick<Membership, 'members' | 'firstByResponsibility' | 'reach'>
  client: Pick<SpanClient, 'ask'>
  /** For the spans of which this host is the steward. */
  book: Pick<SpanBook, 'place'>
  log: Log
  /** Ends the connecting to members. */
  signal: AbortSignal
  clock?: Clock
}

/** Spans of one group that are asked for together. */
interface Question {
  table: Digest
  group: number
  without: string | undefined
  urgencies: Urgency[]
  spans: Map<number, PromiseWithResolvers<undefined>>
}

/**
 * Finds out from whom to get spans of segments that nobody is known to hold. The **steward** of a group of spans is the
 * first member in the rendezvous order of the text `TABLE GROUP`; it says for each span who was told to read it.
 */
export class SpanStewards {
  readonly #parts: SpanStewardsParts
  readonly #clock: Clock
  readonly #places: ExpiringMap<string, SpanPlace>
  readonly #avoided: ExpiringMap<string>
  readonly #latency = new LatencyEstimate(answerBounds)
  readonly #connecting = new LatencyEstimate(connectBounds)
  /** Bounded by the fetches that are under way. */
  readonly #asking = new Map<string, Promise<undefined>>()
  #gathered = new Map<string, Question>()

  constructor(parts: SpanStewardsParts) {
    this.#parts = parts
    this.#clock = parts.clock ?? systemClock
    const now = (): number => this.#clock.now()
    this.#places = new ExpiringMap({ maxEntries: maxPlaces, now })
    this.#avoided = new ExpiringMap({ maxEntries: 1024, now })
  }

  /**
   * From whom this host gets the chunk, as far as it knows: undefined where it has to {@link ask}. A host that is alone
   * reads by itself.
   */
  placeOf(table: Digest, index: number): SpanPlace | undefined {
    const members = this.#parts.membership.members()
    if (members.length === 0) return readItself
    const place = this.#places.get(keyOf(table, index))
    if (place?.member === undefined) return place
    const member = members.find(({ id }) => id === place.member)
    return member === undefined || member.standing.current > standings.unproven ? undefined : place
  }

  /** How deep this host is in the span's tree of relays: undefined where no steward has placed it there. */
  depthOf(table: Digest, index: number): number | undefined {
    return this.#places.get(keyOf(table, index))?.depth
  }

  /**
   * Resolves when a steward has said who reads the span of the chunk, or none has in time: then this host does. The member
   * that was named before, if any, has not delivered.
   * Spans that are asked for in one turn of the event loop are asked for together. Never rejects.
   */
  async ask(table: Digest, index: number, { urgency }: { urgency: Urgency }): Promise<void> {
    const key = keyOf(table, index)
    const span = Math.floor(index / spanChunks)
    const group = Math.floor(span / groupSpans)
    const without = this.#places.get(key)?.member
    const together = `${table} ${group} ${without ?? ''}`
    let asking = this.#asking.get(key)
    if (asking === undefined) {
      let question = this.#gathered.get(together)
      if (question === undefined) {
        question = { table, group, without, urgencies: [], spans: new Map() }
        this.#gathered.set(together, question)
        if (this.#gathered.size === 1) setImmediate(() => this.#askGathered())
      }
      question.urgencies.push(urgency)
      const answered = Promise.withResolvers<undefined>()
      question.spans.set(span, answered)
      asking = answered.promise
      this.#asking.set(key, asking)
    } else this.#gathered.get(together)?.urgencies.push(urgency)
    await asking
  }

  #askGathered(): void {
    const questions = this.#gathered
    this.#gathered = new Map()
    for (const question of questions.values()) void this.#settle(question)
  }

  async #settle(question: Question): Promise<void> {
    const { table, spans } = question
    const numbers = [...spans.keys()]
    const places = await this.#askStewards(question, numbers)
    this.#keep(table, numbers, places)
    for (const [span, answered] of spans) {
      this.#asking.delete(keyOf(table, span * spanChunks))
      answered.resolve(undefined)
    }
  }

  #keep(table: Digest, spans: readonly number[], places: readonly SpanPlace[] | undefined): void {
    for (const [i, span] of spans.entries()) {
      const key = keyOf(table, span * spanChunks)
      this.#places.set(key, places?.[i] ?? readItself, places === undefined ? unansweredMs : placeMs)
    }
  }

  /** @returns undefined where no steward answers in time */
  async #askStewards(question: Question, spans: number[]): Promise<SpanPlace[] | undefined> {
    const { own, membership, client, book, log } = this.#parts
    const { table, group, without } = question
    const stewards = membership.firstByResponsibility(`${table} ${group}`, maxAsked, { except: this.#avoided })
    const urgency = Urgency.ofAny(question.urgencies)
    // The one that was asked first knows what others were told: it has the last word, also while the next one is asked.
    let said: SpanPlace[] | undefined
    const late = Promise.withResolvers<SpanPlace[]>()
    for (const steward of stewards) {
      if (steward === own) return await this.#met(spans.map((span) => book.place(own, table, span, without)))
      try {
        const connectMs = await this.#connect(steward)
        const startedAtMs = this.#clock.now()
        const asking = client.ask(steward, { table, spans, without })
        asking.then(
          () => this.#latency.add(this.#clock.now() - startedAtMs),
          () => undefined,
        )
        const patienceMs = Math.max(this.#latency.p95Ms, Math.min(connectMs * meetingFactor, answerBounds.maxMs))
        const places = await Promise.race([late.promise, asking, this.#patience(patienceMs, urgency, asking)])
        if (places !== undefined) {
          const met = await this.#met(places.map((place) => this.#sane(place)))
          return said ?? met
        }
        // It may be busy: what it says later counts from then on, or hosts that did not wait would read all by themselves.
        asking.then(
          (answer) => {
            this.#avoided.delete(steward)
            said ??= answer.map((place) => this.#sane(place))
            late.resolve(said)
            this.#keep(table, spans, said)
          },
          () => undefined,
        )
        log.debug('steward does not answer in time; it is passed over', { peer: steward, table, group })
      } catch (error) {
        if (!isP2pfsError(error)) throw error
        log.debug('steward does not answer; it is passed over', { error, peer: steward, table, group })
      }
      this.#avoided.set(steward, true, avoidMs)
    }
    return undefined
  }

  /**
   * Connects to a member, where this host is not.
   * @returns the time that it took (ms)
   * @throws unavailable where it cannot be reached in time
   */
  async #connect(id: string): Promise<number> {
    const { membership, signal } = this.#parts
    if (membership.members().some((member) => member.id === id)) return 0
    const startedAtMs = this.#clock.now()
    const late = new AbortController()
    const timeoutMs = this.#connecting.p95Ms
    const cancel = this.#clock.after(timeoutMs, () =>
      late.abort(new P2pfsError('unavailable', 'the member cannot be reached in time', { timeoutMs })),
    )
    try {
      await membership.reach(id, { signal: AbortSignal.any([signal, late.signal]) })
    } finally {
      cancel()
    }
    const ms = this.#clock.now() - startedAtMs
    this.#connecting.add(ms)
    return ms
  }

  /** Connects to members that were named; those that are not reached are not asked. */
  async #met(places: SpanPlace[]): Promise<SpanPlace[]> {
    const named = new Set(places.flatMap(({ member }) => member ?? []))
    await Promise.allSettled([...named].map(async (id) => await this.#connect(id)))
    return places
  }

  /** A steward that sends this host to itself knows nothing. */
  #sane(place: SpanPlace): SpanPlace {
    return place.member === this.#parts.own ? readItself : place
  }

  /** Resolves when the steward has had its time, without that in which this host itself was late. */
  async #patience(usualMs: number, urgency: Urgency, asking: Promise<unknown>): Promise<undefined> {
    const over = Promise.withResolvers<undefined>()
    let pauses = 0
    let cancel: () => void = () => undefined
    let isOver = false
    const wait = (ms: number): void => {
      if (isOver) return
      const dueMs = this.#clock.now() + ms
      cancel = this.#clock.after(ms, () => {
        const lateMs = this.#clock.now() - dueMs
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

function keyOf(table: Digest, index: number): string {
  return `${table} ${Math.floor(index / spanChunks)}`
}
