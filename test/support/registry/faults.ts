/**
 * What goes wrong with an answer. Effects of several faults that match one request add up; of two of a kind the later
 * wins.
 */
export interface Effect {
  /** Before the answer begins. */
  latencyMs?: number
  /** Of the body. */
  rateBytesPerSecond?: number
  /**
   * `ignore`: 200 with the whole blob; `ignore-multi`, `refuse-multi`: so, or 416, where more than one range is asked
   * for.
   */
  ranges?: 'ignore' | 'ignore-multi' | 'refuse-multi'
  /** 206 with the range that begins so many bytes later than the one asked for; negative: earlier. */
  shiftRangeBytes?: number
  /** Instead of the answer. */
  status?: number
  /** `Retry-After` with the status: seconds, or a date. */
  retryAfter?: number | Date
  /** A connection reset (RST) when so many bytes of the body are sent. */
  resetAfterBytes?: number
  /** The connection closed (FIN) when so many bytes of a body of stated length are sent. */
  closeAfterBytes?: number
  /** The body ends there as if it were whole: no stated length. */
  truncateAfterBytes?: number
  /** Nothing more is sent after so many bytes of the body, and the connection stays open. */
  stallAfterBytes?: number
  /** One bit of the byte that stands there in the blob is wrong. */
  corruptByteAt?: number
  /** So is one bit of the first of each so many bytes of the blob. */
  corruptEveryBytes?: number
  /** Accepts the request and never answers. */
  drop?: boolean
}

export interface Fault extends Effect {
  /** Of the path with its query; every path where not given. */
  path?: RegExp
  method?: string
  /** Of so many matching requests; all where not given. */
  times?: number
  /** Lets so many matching requests through first. */
  after?: number
}

/** Faults on command: they may be added and removed while requests come. */
export class Faults {
  #faults: { fault: Fault; seen: number }[] = []

  /** @returns what takes it away again */
  add(fault: Fault): () => void {
    const entry = { fault, seen: 0 }
    this.#faults.push(entry)
    return () => void (this.#faults = this.#faults.filter((other) => other !== entry))
  }

  clear(): void {
    this.#faults = []
  }

  /** What befalls this request, which counts. */
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
