/** Samples that are remembered: a few seconds of a busy host, and few enough to sort. */
const maxSamples = 128
/** Below so many samples the estimate is the given first value. */
const minSamples = 8
/** New samples after which the estimate is made again. */
const refreshAfter = 8
const share = 0.95

export interface LatencyBounds {
  /** The estimate before there are samples (ms). */
  firstMs: number
  minMs: number
  maxMs: number
}

/** Estimates the time within which 95 of 100 answers come, from the last {@link maxSamples} of them, within bounds. */
export class LatencyEstimate {
  readonly #bounds: LatencyBounds
  readonly #samples: number[] = []
  #next = 0
  #sinceRefresh = 0
  #p95Ms: number

  constructor(bounds: LatencyBounds) {
    this.#bounds = bounds
    this.#p95Ms = bounds.firstMs
  }

  /** How long 95 of 100 answers take at most (ms). */
  get p95Ms(): number {
    return this.#p95Ms
  }

  /** Notes how long an answer took (ms). */
  add(ms: number): void {
    this.#samples[this.#next] = ms
    this.#next = (this.#next + 1) % maxSamples
    if (this.#samples.length < minSamples || ++this.#sinceRefresh < refreshAfter) return
    this.#sinceRefresh = 0
    const sorted = Float64Array.from(this.#samples).sort()
    const { minMs, maxMs } = this.#bounds
    this.#p95Ms = Math.min(Math.max(sorted[Math.ceil(share * sorted.length) - 1]!, minMs), maxMs)
  }
}
