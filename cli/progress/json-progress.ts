import type { Progress } from '../../node/control/api.ts'
import { printJsonNote } from '../output.ts'
import { ProgressMeter } from './meter.ts'

/** `{"progress": {...}}` a line on stderr, for programs: all that the daemon tells, with rate and time left. */
export class JsonProgress {
  readonly #meter: ProgressMeter
  readonly #print: (value: object) => void

  constructor({ meter = new ProgressMeter(), print = printJsonNote } = {}) {
    this.#meter = meter
    this.#print = print
  }

  show(progress: Progress['progress']): void {
    this.#print({ progress: this.#meter.add(progress) })
  }

  end(): void {
    // The result on stdout is the end.
  }
}
