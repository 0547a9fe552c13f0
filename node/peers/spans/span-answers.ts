import type { Digest } from '../../../protocol/digest.ts'
import { cohortDepth, groupSpans, type SpanPlace, type SpanQuestion } from '../../../protocol/messages/span.ts'
import { Urgency } from '../../base/urgency.ts'
import type { Membership } from '../membership.ts'
import type { SpanBook } from './span-book.ts'
import type { StewardQuestions } from './steward-questions.ts'

/** A steward has at least this time to answer a deputy (ms), and more where it is known to be there: its asker waits for a little longer. */
const stewardMs = { least: 200, awake: 700 } as const
/**
 * The deputies of all cohorts may connect to one steward at once: so much longer for each of them (ms), which is twice what that
 * costs the steward. In a region of 10,000 members a steward that is dead costs a second.
 */
const msPerDeputy = 4

/** How much longer a steward may take because of all the deputies that ask it (ms). */
export function deputiesMs({ cohorts }: Pick<Membership, 'cohorts'>): number {
  return msPerDeputy * cohorts
}

export interface SpanAnswersParts {
  membership: Pick<Membership, 'isSmall' | 'cohorts'>
  /** The places in spans of which this host is the steward. */
  book: Pick<SpanBook, 'place'>
  /** The places in spans of which this host is the deputy of its cohort. */
  cohortBook: Pick<SpanBook, 'place'>
  /** The stewards of a group of spans in a large region, the first to be asked first. */
  stewardsOf: (table: Digest, group: number) => string[]
  questions: Pick<StewardQuestions, 'ask'>
}

/**
 * Answers members that ask this host for the places of spans. As a steward it answers by itself. As the deputy of
 * its cohort, in a large region, it asks the steward on behalf of the first who asks it, and sends those who come later to
 * members of the cohort that it has sent before: one member of each cohort connects to the steward, and not all members.
 */
export class SpanAnswers {
  readonly #parts: SpanAnswersParts

  constructor(parts: SpanAnswersParts) {
    this.#parts = parts
  }

  /** A place for each span, in the order of the question. Where no steward answers a deputy, the asker reads by itself. */
  async places(asker: string, { onBehalfOf, ...question }: SpanQuestion): Promise<SpanPlace[]> {
    const { membership } = this.#parts
    if (onBehalfOf !== undefined || membership.isSmall) return this.#asSteward(onBehalfOf ?? asker, question)
    return await this.#asDeputy(asker, question)
  }

  #asSteward(asker: string, { table, spans, without }: SpanQuestion): SpanPlace[] {
    return spans.map((span) => this.#parts.book.place(asker, table, span, without))
  }

  async #asDeputy(asker: string, question: SpanQuestion): Promise<SpanPlace[]> {
    const { cohortBook, stewardsOf, questions, membership } = this.#parts
    const { table, spans, without } = question
    const places = spans.map((span) => cohortBook.place(asker, table, span, without))
    const open = spans.filter((_, i) => places[i]!.member === undefined)
    if (open.length === 0) return places.map(inCohort)
    const asked = { table, spans: open, without, onBehalfOf: asker }
    const told = await questions.ask(stewardsOf(table, Math.floor(open[0]! / groupSpans)), asked, {
      urgency: new Urgency(true),
      leastMs: stewardMs.least + deputiesMs(membership),
      awakeMs: stewardMs.awake + deputiesMs(membership),
      answerOwn: () => this.#asSteward(asker, asked),
    })
    let next = 0
    return places.map((place) => (place.member === undefined ? (told?.[next++] ?? place) : inCohort(place)))
  }
}

/** A member that is sent to the steward's own members is less deep than all that are below it in the cohort. */
function inCohort({ depth, member }: SpanPlace): SpanPlace {
  return { depth: cohortDepth + depth, member }
}
