/** Counts values by their size: what Prometheus makes quantiles of. */
export class Histogram {
  /** Upper bounds of the buckets, ascending; values beyond the last one are counted after it. */
  readonly bounds: readonly number[]
  /** One more than there are bounds; a value is counted in one of them. */
  readonly #counts: Float64Array
  #sum = 0

  constructor(bounds: readonly number[]) {
    this.bounds = bounds
    this.#counts = new Float64Array(bounds.length + 1)
  }

  observe(value: number): void {
    const place = this.bounds.findIndex((bound) => value <= bound)
    this.#counts[place === -1 ? this.bounds.length : place]! += 1
    this.#sum += value
  }

  get sum(): number {
    return this.#sum
  }

  get count(): number {
    return this.#counts.reduce((sum, count) => sum + count, 0)
  }

  /** For each bound, how many values do not exceed it. */
  cumulative(): number[] {
    let total = 0
    return this.bounds.map((_bound, place) => (total += this.#counts[place]!))
  }
}
