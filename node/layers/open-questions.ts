import { BoundedMap } from '../base/bounded-map.ts'

/** Questions whose age is remembered. */
const maxQuestions = 1024
/** A question that nobody has asked for so long is a new one (ms): a read that waits asks every few seconds. */
const forgottenMs = 120_000

/** How long questions have been open: asked again and again without an answer. */
export class OpenQuestions {
  readonly #open = new BoundedMap<string, { firstMs: number; lastMs: number }>({ maxEntries: maxQuestions })
  readonly #now: () => number

  constructor({ now = () => performance.now() }: { now?: () => number } = {}) {
    this.#now = now
  }

  /** Notes that the question was asked without an answer. @returns how long it has been open (ms) */
  ask(question: string): number {
    const lastMs = this.#now()
    const earlier = this.#open.get(question)
    const firstMs = earlier === undefined || lastMs - earlier.lastMs > forgottenMs ? lastMs : earlier.firstMs
    this.#open.set(question, { firstMs, lastMs })
    return lastMs - firstMs
  }

  answered(question: string): void {
    this.#open.delete(question)
  }

  /** How long the question has been open (ms); 0 where it is not. */
  openMs(question: string): number {
    const found = this.#open.get(question)
    return found === undefined || this.#now() - found.lastMs > forgottenMs ? 0 : found.lastMs - found.firstMs
  }
}
