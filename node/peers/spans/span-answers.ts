import type { Digest } from '../../../protocol/digest.ts'
import { groupSpans, levelDepths, type SpanPlace, type SpanQuestion } from '../../../protocol/messages/span.ts'
import { Urgency } from '../../base/urgency.ts'
import type { SpanBook } from './span-book.ts'
import type { StewardQuestions } from './steward-questions.ts'

/** A steward has at least this time to answer a deputy (ms). Up to eight of them connect to it at once, which takes it 16. */
const stewardMs = 230
/** The same for one that is known to be there: after this time any member counts as silent. */
const awakeStewardMs = 1_000
/** A deputy has so much more than the member of the level above that it may have to ask first (ms): to connect to it, and for the way. */
const levelMs = 80

/** How long a member that is asked at this level of a large region may take at least (ms). */
export function patienceMs(level: number): number {
  return stewardMs + level * levelMs
}

/** The same for a member that is known to be there. */
export function awakePatienceMs(level: number): number {
  return awakeStewardMs + level * levelMs
}

export interface SpanAnswersParts {
  /** The places that this host gives, by the level at which it is asked: 0 as a steward. */
  books: readonly Pick<SpanBook, 'place'>[]
  /** The members that answer at a level for a group of spans of this host's part of the region, the first to be asked first. */
  answering: (level: number, table: Digest, group: number) => string[]
  questions: Pick<StewardQuestions, 'ask'>
}

/**
 * Answers members that ask this host for the places of spans. As a steward it answers by itself. As the deputy of a part
 * of a large region it asks the next larger part on behalf of the first who asks it, and sends those who come later to
 * members that it has sent before. So one member of eight parts connects to one of the larger part, and not all members.
 */
export class SpanAnswers {
  readonly #parts: SpanAnswersParts

  constructor(parts: SpanAnswersParts) {
    this.#parts = parts
  }

  /** A place for each span, in the order of the question. Where nobody answers a deputy, the asker reads by itself. */
  async places(asker: string, { onBehalfOf = asker, ...question }: SpanQuestion): Promise<SpanPlace[]> {
    const { books, answering, questions } = this.#parts
    const { table, spans, without, level } = question
    const places = spans.map((span) => ofLevel(level, books[level]!.place(onBehalfOf, table, span, without)))
    const open = spans.filter((_, i) => places[i]!.member === undefined)
    if (level === 0 || open.length === 0) return places
    const above = level - 1
    const asked = { table, spans: open, without, onBehalfOf, level: above }
    const told = await questions.ask(answering(above, table, Math.floor(open[0]! / groupSpans)), asked, {
      urgency: new Urgency(true),
      leastMs: patienceMs(above),
      awakeMs: awakePatienceMs(above),
      answerOwn: async () => await this.places(onBehalfOf, asked),
    })
    let next = 0
    return places.map((place) => (place.member === undefined ? (told?.[next++] ?? place) : place))
  }
}

/** A member that is sent to one of a larger part is less deep than all that are below it in the smaller one. */
function ofLevel(level: number, { depth, member }: SpanPlace): SpanPlace {
  return { depth: member === undefined ? 0 : level * levelDepths + depth, member }
}
