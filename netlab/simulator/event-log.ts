import type { VirtualClock } from './virtual-clock.ts'

/** What happens in a run: a hash of all of it, and the lines of the hosts that are traced. */
export class EventLog {
  readonly #clock: VirtualClock
  readonly #traced: ReadonlySet<number>
  readonly #print: (line: string) => void
  readonly #words = new Uint32Array(new Float64Array(1).buffer)
  readonly #number = new Float64Array(this.#words.buffer)
  #low = 0x811c9dc5
  #high = 0x01000193

  constructor(clock: VirtualClock, { traced, print }: { traced: ReadonlySet<number>; print: (line: string) => void }) {
    this.#clock = clock
    this.#traced = traced
    this.#print = print
    clock.onEvent = ({ atMs, order }) => {
      this.#add(atMs)
      this.#add(order)
    }
  }

  /** Two runs with the same hash had the same events at the same times, in the same order. */
  get hash(): string {
    return [this.#high, this.#low].map((word) => (word >>> 0).toString(16).padStart(8, '0')).join('')
  }

  isTraced(host: number): boolean {
    return this.#traced.has(host)
  }

  note(host: number, message: string, fields: Record<string, unknown> = {}): void {
    this.#add(host)
    if (!this.#traced.has(host)) return
    const text = Object.entries(fields)
      .map(([name, value]) => ` ${name}=${value instanceof Error ? value.message : String(value)}`)
      .join('')
    this.#print(`${(this.#clock.now() / 1000).toFixed(4).padStart(10)} s  host ${host}  ${message}${text}`)
  }

  /** FNV-1a over the number's bytes, 32 bits at a time, in two lanes. */
  #add(value: number): void {
    this.#number[0] = value
    this.#low = Math.imul(this.#low ^ this.#words[0]! ^ (this.#high >>> 13), 0x01000193)
    this.#high = Math.imul(this.#high ^ this.#words[1]! ^ (this.#low >>> 15), 0x85ebca6b)
  }
}
