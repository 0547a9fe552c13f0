import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import { bulkAnswerHeaderBytes, parseBulkAnswerHeader, type BulkAnswerHeader } from '../../../protocol/messages/bulk.ts'

/**
 * Longest target (bytes). libuv reads one socket 32 times before it looks at the others and at messages: those are 2 MiB
 * of a holder, eight chunks.
 */
const maxTargetBytes = 64 * 1024

export interface AnswerHandler {
  /** A header has come. @throws invalid where nobody asked for it: nothing of what follows is kept */
  onHeader: (header: BulkAnswerHeader) => void
  /** The answer is there; `bytes` are the chunk, and belong to the reader: they change after this returns. */
  onAnswer: (header: BulkAnswerHeader, bytes: Uint8Array) => void
}

/**
 * Parses the answers of a connection. The connection is read into {@link target}, so a chunk is where it is verified as
 * soon as it is read. The memory is that of one chunk, and of the header after it, which comes with it.
 */
export class AnswerReader {
  readonly #handler: AnswerHandler
  readonly #memory = Buffer.allocUnsafeSlow(maxChunkBytes + bulkAnswerHeaderBytes)
  /** Bytes of the memory that have come: the chunk of `#current`, and then a header. */
  #filledBytes = 0
  #current: BulkAnswerHeader | undefined

  constructor(handler: AnswerHandler) {
    this.#handler = handler
  }

  /** The place for the next bytes; never empty, whatever the handler has thrown. */
  target(): Uint8Array {
    const endBytes = (this.#current?.lengthBytes ?? 0) + bulkAnswerHeaderBytes
    return this.#memory.subarray(this.#filledBytes, Math.min(endBytes, this.#filledBytes + maxTargetBytes))
  }

  /**
   * So many bytes have been read into the last {@link target}.
   * @throws invalid for what is no answer, or was not asked for
   */
  advance(lengthBytes: number): void {
    let filledBytes = this.#filledBytes + lengthBytes
    this.#filledBytes = filledBytes
    if (this.#current !== undefined && filledBytes >= this.#current.lengthBytes) {
      const header = this.#current
      const chunk = this.#memory.subarray(0, header.lengthBytes)
      this.#current = undefined
      this.#filledBytes = 0
      this.#handler.onAnswer(header, chunk)
      this.#memory.copyWithin(0, chunk.length, filledBytes)
      filledBytes -= chunk.length
      this.#filledBytes = filledBytes
    }
    if (this.#current !== undefined || filledBytes < bulkAnswerHeaderBytes) return
    this.#filledBytes = 0
    const header = parseBulkAnswerHeader(this.#memory)
    this.#handler.onHeader(header)
    if (header.lengthBytes > 0) this.#current = header
    else this.#handler.onAnswer(header, this.#memory.subarray(0, 0))
  }
}
