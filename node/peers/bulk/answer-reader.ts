import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import { bulkAnswerHeaderBytes, parseBulkAnswerHeader, type BulkAnswerHeader } from '../../../protocol/messages/bulk.ts'

export interface AnswerHandler {
  /** A header has come. @throws invalid where nobody asked for it: nothing of what follows is kept */
  onHeader: (header: BulkAnswerHeader) => void
  /** The answer is there; `bytes` are the chunk, and belong to the reader: they change after this returns. */
  onAnswer: (header: BulkAnswerHeader, bytes: Uint8Array) => void
}

/** Takes the answers of a connection apart, as their bytes come. It has memory for one chunk. */
export class AnswerReader {
  readonly #handler: AnswerHandler
  readonly #header = Buffer.alloc(bulkAnswerHeaderBytes)
  #headerBytes = 0
  readonly #chunk = Buffer.allocUnsafeSlow(maxChunkBytes)
  #chunkBytes = 0
  #current: BulkAnswerHeader | undefined

  constructor(handler: AnswerHandler) {
    this.#handler = handler
  }

  /** @throws invalid for what is no answer, or was not asked for */
  push(bytes: Uint8Array): void {
    let offset = 0
    while (offset < bytes.length) {
      if (this.#current === undefined) {
        const end = Math.min(bytes.length, offset + bulkAnswerHeaderBytes - this.#headerBytes)
        this.#header.set(bytes.subarray(offset, end), this.#headerBytes)
        this.#headerBytes += end - offset
        offset = end
        if (this.#headerBytes < bulkAnswerHeaderBytes) return
        this.#headerBytes = 0
        const header = parseBulkAnswerHeader(this.#header)
        this.#handler.onHeader(header)
        this.#current = header
      } else {
        const end = Math.min(bytes.length, offset + this.#current.lengthBytes - this.#chunkBytes)
        this.#chunk.set(bytes.subarray(offset, end), this.#chunkBytes)
        this.#chunkBytes += end - offset
        offset = end
      }
      if (this.#chunkBytes < this.#current.lengthBytes) continue
      const header = this.#current
      this.#current = undefined
      this.#chunkBytes = 0
      this.#handler.onAnswer(header, this.#chunk.subarray(0, header.lengthBytes))
    }
  }
}
