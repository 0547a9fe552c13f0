import { maxChunkBytes } from '../../protocol/chunk-table.ts'

/**
 * Buffers for chunks, used again and again: new ones would cost the kernel's clearing of their pages each time. There
 * are as many as were in use at once.
 */
export class ChunkBuffers {
  readonly #free: ArrayBuffer[] = []

  /** @returns {@link maxChunkBytes}, with anything in them */
  take(): Buffer<ArrayBuffer> {
    const free = this.#free.pop()
    return free === undefined ? Buffer.allocUnsafeSlow(maxChunkBytes) : Buffer.from(free)
  }

  /** Takes back the memory of bytes that nobody reads any more, if it is that of a buffer. */
  give({ buffer }: Uint8Array): void {
    if (buffer instanceof ArrayBuffer && buffer.byteLength === maxChunkBytes) this.#free.push(buffer)
  }
}
