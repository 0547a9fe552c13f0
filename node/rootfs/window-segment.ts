import { constants, zstdCompressSync } from 'node:zlib'
import { blockBytes, ChunkTableBuilder, type ChunkTable } from '../../protocol/chunk-table.ts'
import { digestOf } from '../../protocol/digest.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'

/** Size of the chunks, bytes. A resume reads one of them, and it holds the windows of the neighbours too. */
const chunkBytes = 32 * 1024
/** Windows are mostly zeros: higher levels save a twentieth of the bytes and take several times as long. */
const level = 1

/** The window segment of a blob: collects the windows of its checkpoints, compressed, into chunks. */
export class WindowSegment {
  readonly #sink: ChunkSink
  readonly #table = new ChunkTableBuilder()
  readonly #puts: Promise<void>[] = []
  #pending: Buffer[] = []
  #pendingBytes = 0
  #start = 0

  constructor(sink: ChunkSink) {
    this.#sink = sink
  }

  /** @returns where the window is in the segment; the length of an empty one is 0 */
  add(window: Uint8Array): { offset: number; lengthBytes: number } {
    if (window.length === 0) return { offset: this.#start + this.#pendingBytes, lengthBytes: 0 }
    const compressed = zstdCompressSync(window, { params: { [constants.ZSTD_c_compressionLevel]: level } })
    if (this.#pendingBytes + compressed.length > chunkBytes) this.#cut()
    const offset = this.#start + this.#pendingBytes
    this.#pending.push(compressed)
    this.#pendingBytes += compressed.length
    return { offset, lengthBytes: compressed.length }
  }

  /** Waits until all chunks are kept. @throws the sink's error */
  async finish(): Promise<ChunkTable> {
    this.#cut()
    await Promise.all(this.#puts)
    return this.#table.build()
  }

  #cut(): void {
    if (this.#pendingBytes === 0) return
    const length = Math.ceil(this.#pendingBytes / blockBytes) * blockBytes
    // A buffer outside Node's pool, not touched again: the sink may transfer its memory.
    const bytes = Buffer.alloc(length)
    Buffer.concat(this.#pending).copy(bytes)
    const digest = digestOf(bytes)
    this.#table.add(digest, length)
    this.#puts.push(this.#sink.put(digest, bytes))
    this.#start += length
    this.#pending = []
    this.#pendingBytes = 0
  }
}
