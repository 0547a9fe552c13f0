/** Chunks that were exchanged, and their bytes. */
export interface Traffic {
  bytesSent: number
  chunksSent: number
  bytesReceived: number
  chunksReceived: number
}

/** Counts the chunks that are exchanged with one peer, or with all of them. */
export class TrafficCounter {
  readonly #total: TrafficCounter | undefined
  readonly #counts: Traffic = { bytesSent: 0, chunksSent: 0, bytesReceived: 0, chunksReceived: 0 }

  /** @param total counts everything that this one counts */
  constructor(total?: TrafficCounter) {
    this.#total = total
  }

  /** Counts one chunk that was sent. */
  sent(lengthBytes: number): void {
    this.#counts.bytesSent += lengthBytes
    this.#counts.chunksSent++
    this.#total?.sent(lengthBytes)
  }

  /** Counts one verified chunk that was received. */
  received(lengthBytes: number): void {
    this.#counts.bytesReceived += lengthBytes
    this.#counts.chunksReceived++
    this.#total?.received(lengthBytes)
  }

  snapshot(): Traffic {
    return { ...this.#counts }
  }
}
