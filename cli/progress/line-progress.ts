import type { Progress } from '../../node/control/api.ts'
import { printProgressLine } from '../output.ts'
import { describeProgress, ProgressMeter } from './meter.ts'

/** One line of a terminal, which is rewritten, and is gone when the request ends. */
export class LineProgress {
  readonly #meter: ProgressMeter
  readonly #print: (line: string | undefined) => void

  constructor({ meter = new ProgressMeter(), print = printProgressLine } = {}) {
    this.#meter = meter
    this.#print = print
  }

  show(progress: Progress['progress']): void {
    this.#print(describeProgress(this.#meter.add(progress)))
  }

  end(): void {
    this.#print(undefined)
  }
}
