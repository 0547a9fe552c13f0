/** Defects of an answer. The effects of all faults that match a request add up; of two of a kind the later one wins. */
export interface Effect {
  /** A pause before the answer begins. */
  latencyMs?: number
  /** The rate of the body. */
  rateBytesPerSecond?: number
  /**
   * `ignore`: 200 with the whole blob. `ignore-multi`, `refuse-multi`: the same, or 416, for requests of several
   * ranges.
   */
  ranges?: 'ignore' | 'ignore-multi' | 'refuse-multi'
  /** 206 with a range that begins so many bytes later than the requested one; earlier if negative. */
  shiftRangeBytes?: number
  /** The status that replaces the answer. */
  status?: number
  /** `Retry-After` with the status: seconds, or a date. */
  retryAfter?: number | Date
  /** The connection is reset (RST) after so many bytes of the body. */
  resetAfterBytes?: number
  /** The connection is closed (FIN) after so many bytes of a body of stated length. */
  closeAfterBytes?: number
  /** The body ends after so many bytes as if it were whole, without a stated length. */
  truncateAfterBytes?: number
  /** The body stops after so many bytes, and the connection stays open. */
  stallAfterBytes?: number
  /** One bit of the blob's byte at this offset is wrong. */
  corruptByteAt?: number
  /** One bit is wrong in the first of every so many bytes of the blob. */
  corruptEveryBytes?: number
  /** The request is accepted and never answered. */
  drop?: boolean
}

export interface Fault extends Effect {
  /** Matches the path with its query; every path by default. */
  path?: RegExp
  method?: string
  /** The number of matching requests that are affected; all by default. */
  times?: number
  /** The number of matching requests that pass unharmed before. */
  after?: number
}

/** Faults on command, which may be added and removed while requests come. */
export class Faults {
  #faults: { fault: Fault; seen: number }[] = []

  /** @returns a function that removes the fault */
  add(fault: Fault): () => void {
    const entry = { fault, seen: 0 }
    this.#faults.push(entry)
    return () => void (this.#faults = this.#faults.filter((candidate) => candidate !== entry))
  }

  clear(): void {
    this.#faults = []
  }

  /** The effect on this request, which counts as a match. */
  take(method: string, path: string): Effect {
    const effect: Effect = {}
    for (const entry of this.#faults) {
      const { path: pattern, method: only, times = Infinity, after = 0, ...rest } = entry.fault
      if ((pattern !== undefined && !pattern.test(path)) || (only !== undefined && only !== method)) continue
      const seen = entry.seen++
      if (seen >= after && seen < after + times) Object.assign(effect, rest)
    }
    return effect
  }
}
