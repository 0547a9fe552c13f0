import type { Digest } from '../../../protocol/digest.ts'
import { groupSpans, spanChunks, type SpanPlace } from '../../../protocol/messages/span.ts'
import { ExpiringMap } from '../../base/expiring-map.ts'
import { Urgency } from '../../base/urgency.ts'
import type { Membership } from '../membership.ts'
import { standings } from '../peer-standing.ts'
import { awakePatienceMs, patienceMs, type SpanAnswers } from './span-answers.ts'
import type { StewardQuestions } from './steward-questions.ts'

/** A steward's answer is kept for so long (ms), and asked for anew then. */
const placeMs = 30_000
/** The same where no steward answered (ms): this host reads by itself, as if it were alone. */
const unansweredMs = 5_000
/** Spans whose places are kept: those of 16 GB of chunks. */
const maxPlaces = 8192

const readItself: SpanPlace = { depth: 0, member: undefined }

export interface SpanStewardsParts {
  /** The id of this host. */
  own: string
  membership: Pick<Membership, 'members' | 'byResponsibility' | 'cohort' | 'cohortLevel'>
  questions: Pick<StewardQuestions, 'ask' | 'connect'>
  /** For the spans that this host answers for itself. */
  answers: Pick<SpanAnswers, 'places'>
  /** The clock (ms). */
  now?: () => number
}

/** Spans of one group that are asked for together. */
interface Question {
  table: Digest
  group: number
  without: string | undefined
  /** As urgent as the most urgent read that waits for any of them. */
  urgency: Urgency
  /** The time that the most patient of those gives the steward (ms). */
  leastMs: number
  spans: Map<number, PromiseWithResolvers<undefined>>
}

/**
 * Finds out from whom to get spans of segments that nobody is known to hold. For each group of spans one member of this
 * host's cohort answers: the first in the rendezvous order of the text `TABLE GROUP`. It is the **steward** of the group in a
 * small region, and the cohort's **deputy** in a larger one. It says for each span who was told to read it.
 */
export class SpanStewards {
  readonly #parts: SpanStewardsParts
  readonly #places: ExpiringMap<string, SpanPlace>
  /** Bounded by the fetches that are under way. */
  readonly #asking = new Map<string, { question: Question; answered: Promise<undefined> }>()
  #gathered = new Map<string, Question>()

  constructor(parts: SpanStewardsParts) {
    this.#parts = parts
    this.#places = new ExpiringMap({ maxEntries: maxPlaces, now: parts.now ?? (() => performance.now()) })
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

  /** The place that was named for the chunk, whether its member is connected and well or not: whoever can wait for one may reach it. */
  namedPlaceOf(table: Digest, index: number): SpanPlace | undefined {
    return this.#places.get(keyOf(table, index))
  }

  /** How deep this host is in the span's tree of relays: undefined where no steward has placed it there. */
  depthOf(table: Digest, index: number): number | undefined {
    return this.namedPlaceOf(table, index)?.depth
  }

  /**
   * Resolves when a steward has said who reads the span of the chunk, or none has in time: then this host does. The member
   * that was named before, if any, has not delivered.
   * Spans that are asked for in one turn of the event loop are asked for together. Never rejects.
   * @param options `leastMs`: a steward has at least this time; one that has been asked already has what it was given then
   */
  async ask(
    table: Digest,
    index: number,
    { urgency, leastMs = 0 }: { urgency: Urgency; leastMs?: number },
  ): Promise<void> {
    const key = keyOf(table, index)
    let asking = this.#asking.get(key)
    if (asking === undefined) {
      const span = Math.floor(index / spanChunks)
      const question = this.#gather(table, Math.floor(span / groupSpans), this.#places.get(key)?.member)
      const answered = Promise.withResolvers<undefined>()
      question.spans.set(span, answered)
      asking = { question, answered: answered.promise }
      this.#asking.set(key, asking)
    }
    const { question, answered } = asking
    question.leastMs = Math.max(question.leastMs, leastMs)
    if (urgency.isUrgent) question.urgency.raise()
    else urgency.onRaise(() => question.urgency.raise())
    await answered
  }

  /** The question that is asked at the end of this turn of the event loop. */
  #gather(table: Digest, group: number, without: string | undefined): Question {
    const together = `${table} ${group} ${without ?? ''}`
    let question = this.#gathered.get(together)
    if (question === undefined) {
      question = { table, group, without, urgency: new Urgency(false), leastMs: 0, spans: new Map() }
      this.#gathered.set(together, question)
      if (this.#gathered.size === 1) setImmediate(() => this.#askGathered())
    }
    return question
  }

  #askGathered(): void {
    const questions = this.#gathered
    this.#gathered = new Map()
    for (const question of questions.values()) void this.#settle(question)
  }

  async #settle(question: Question): Promise<void> {
    const { table, group, without, spans } = question
    const numbers = [...spans.keys()]
    const { own, membership, questions, answers } = this.#parts
    const level = membership.cohortLevel
    const asked = { table, spans: numbers, without, level }
    // The first of those that were passed over has the last word.
    let said: SpanPlace[] | undefined
    const onLate = (late: SpanPlace[]): void => {
      if (said !== undefined) return
      said = late
      this.#keep(table, numbers, late)
    }
    const places = await questions.ask(membership.byResponsibility(`${table} ${group}`, membership.cohort()), asked, {
      urgency: question.urgency,
      leastMs: Math.max(question.leastMs, level === 0 ? 0 : patienceMs(level)),
      awakeMs: awakePatienceMs(level),
      answerOwn: async () => await answers.places(own, asked),
      onLate,
    })
    if (places !== undefined) await this.#meet(places)
    this.#keep(table, numbers, said ?? places)
    for (const [span, answered] of spans) {
      this.#asking.delete(keyOf(table, span * spanChunks))
      answered.resolve(undefined)
    }
  }

  #keep(table: Digest, spans: readonly number[], places: readonly SpanPlace[] | undefined): void {
    for (const [i, span] of spans.entries()) {
      const key = keyOf(table, span * spanChunks)
      this.#places.set(key, this.#sane(places?.[i] ?? readItself), places === undefined ? unansweredMs : placeMs)
    }
  }

  /** Connects to members that were named; those that are not reached are not asked. */
  async #meet(places: readonly SpanPlace[]): Promise<void> {
    const { own, membership, questions } = this.#parts
    const connected = new Set(membership.members().map(({ id }) => id))
    const named = new Set(places.flatMap(({ member }) => (member === undefined || connected.has(member) ? [] : member)))
    named.delete(own)
    await Promise.allSettled([...named].map(async (id) => await questions.connect(id)))
  }

  /** A steward that sends this host to itself knows nothing. */
  #sane(place: SpanPlace): SpanPlace {
    return place.member === this.#parts.own ? readItself : place
  }
}

function keyOf(table: Digest, index: number): string {
  return `${table} ${Math.floor(index / spanChunks)}`
}
