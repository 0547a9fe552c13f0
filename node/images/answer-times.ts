import { BoundedMap } from '../base/bounded-map.ts'

/** Registries that are remembered, and answers of each: few enough that a bad hour is soon forgotten. */
const maxRegistries = 256
const maxAnswers = 32
/** So many of its answers a registry gives within its usual time: one of 32 is allowed to be odd. */
const share = 0.95

/** How long registries take to begin an answer, as this host has seen it. */
export class AnswerTimes {
  readonly #answers = new BoundedMap<string, readonly number[]>({ maxEntries: maxRegistries })

  /** A registry has begun its answer after so long (ms). */
  note(registry: string, ms: number): void {
    this.#answers.set(registry, [...(this.#answers.get(registry) ?? []), ms].slice(-maxAnswers))
  }

  /** The time that 95 of 100 answers keep to, the longest of few (ms); undefined where none has been seen. */
  usualMs(registry: string): number | undefined {
    const sorted = this.#answers.get(registry)?.toSorted((a, b) => a - b)
    return sorted?.[Math.ceil(share * sorted.length) - 1]
  }

  registries(): Iterable<string> {
    return this.#answers.keys()
  }
}
