import type { BlobMap, Checkpoint, Compression } from '../../protocol/blob-map.ts'
import type { ChunkSink } from './chunk-sink.ts'
import type { DecompressObserver } from './decompress.ts'
import { GzipScanner, type BlockStart } from './gzip/gzip-scanner.ts'
import { WindowRegion } from './window-region.ts'

/**
 * Of the tar, between two checkpoints: what a chunk costs to read at least. Each has a window of some 10 KB. Bytes.
 */
export const checkpointSpacingBytes = 512 * 1024
/** Output that is kept for windows: the scanner may come to know of a block a little after its output, bytes. */
const historyBytes = 256 * 1024

/**
 * Chooses checkpoints while a blob is decompressed: told of its bytes before they are, and of the tar's as they come. At
 * least `spacingBytes` of the tar are between two.
 */
export class Checkpointer implements DecompressObserver {
  readonly #windows: WindowRegion
  readonly #spacingBytes: number
  readonly #checkpoints: Checkpoint[] = [{ bitOffset: 0, tarOffset: 0, window: { offset: 0, lengthBytes: 0 } }]
  readonly #history: Buffer[] = []
  #historyStart = 0
  #output = 0
  #pending: BlockStart[] = []
  #last = 0
  #scanner: GzipScanner | undefined
  #compression: Compression = 'none'

  /** @param sink takes the chunks of the window region */
  constructor(sink: ChunkSink, { spacingBytes }: { spacingBytes: number }) {
    this.#windows = new WindowRegion(sink)
    this.#spacingBytes = spacingBytes
  }

  start(compression: Compression): void {
    this.#compression = compression
    if (compression !== 'gzip') return
    this.#scanner = new GzipScanner((start) => {
      if (start.outputOffset - this.#last < this.#spacingBytes) return
      this.#last = start.outputOffset
      this.#pending.push(start)
    })
  }

  compressed(bytes: Buffer): void {
    try {
      this.#scanner?.push(bytes)
    } catch {
      // The decompressor will say what is wrong; where it has nothing to say, there are just no more checkpoints.
      this.#scanner = undefined
    }
  }

  frame(byteOffset: number): void {
    if (this.#output - this.#last < this.#spacingBytes) return
    this.#last = this.#output
    this.#checkpoints.push({ bitOffset: byteOffset * 8, tarOffset: this.#output, window: { offset: this.#checkpoints.at(-1)!.window.offset, lengthBytes: 0 } })
  }

  /** Bytes of the tar, in order; they are not changed afterwards. */
  output(bytes: Buffer): void {
    this.#history.push(bytes)
    this.#output += bytes.length
    while (this.#pending.length > 0 && this.#pending[0]!.outputOffset <= this.#output) this.#add(this.#pending.shift()!)
    while (this.#output - this.#historyStart - (this.#history[0]?.length ?? 0) >= historyBytes) this.#historyStart += this.#history.shift()!.length
  }

  /** All has been told; resolves when the windows are kept. @throws what the sink threw */
  async finish(): Promise<Pick<BlobMap, 'compression' | 'checkpoints' | 'windows'>> {
    return { compression: this.#compression, checkpoints: this.#checkpoints, windows: await this.#windows.finish() }
  }

  #add({ bitOffset, outputOffset, windowBytes }: BlockStart): void {
    const from = outputOffset - windowBytes - this.#historyStart
    // Its output is gone: the next block will do.
    if (from < 0) return
    this.#checkpoints.push({ bitOffset, tarOffset: outputOffset, window: this.#windows.add(this.#copy(from, windowBytes)) })
  }

  /** @param from counted from the start of the history */
  #copy(from: number, length: number): Buffer {
    const copy = Buffer.allocUnsafe(length)
    let start = 0
    for (const piece of this.#history) {
      if (start + piece.length > from && start < from + length) piece.copy(copy, Math.max(0, start - from), Math.max(0, from - start), from + length - start)
      start += piece.length
    }
    return copy
  }
}
