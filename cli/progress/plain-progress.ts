import type { Progress } from '../../node/control/api.ts'
import { printNote } from '../output.ts'
import { describeProgress, ProgressMeter } from './meter.ts'

/** A request that takes less time than this prints no line (ms). */
const firstMs = 2_000
/** Then so often (ms): a log of an hour's import has a few hundred lines. */
const intervalMs = 10_000

/** A line now and then, for a log. */
export class PlainProgress {
  readonly #meter: ProgressMeter
  readonly #print: (line: string) => void
  readonly #now: () => number
  #nextAtMs: number

  constructor({ now = () => performance.now(), print = printNote } = {}) {
    this.#meter = new ProgressMeter({ now })
    this.#print = print
    this.#now = now
    this.#nextAtMs = now() + firstMs
  }

  show(progress: Progress['progress']): void {
    const metered = this.#meter.add(progress)
    if (this.#now() < this.#nextAtMs) return
    this.#nextAtMs = this.#now() + intervalMs
    this.#print(describeProgress(metered))
  }

  end(): void {
    this.#nextAtMs = Infinity
  }
}
