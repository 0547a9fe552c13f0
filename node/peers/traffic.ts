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

  /** Counts chunks that were sent, with so many bytes together. */
  sent(bytes: number, chunks = 1): void {
    this.#counts.bytesSent += bytes
    this.#counts.chunksSent += chunks
    this.#total?.sent(bytes, chunks)
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
