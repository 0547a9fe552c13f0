import {
  stopPointDistanceBytes,
  stopPointUnitBytes,
  type BlobMap,
  type Checkpoint,
  type Compression,
  type Piece,
} from '../../protocol/blob-map.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'
import type { DecompressObserver } from './decompress.ts'
import { maxWindowBytes, neededByte } from './gzip/deflate-scanner.ts'
import { GzipScanner, type BlockStart } from './gzip/gzip-scanner.ts'
import { firstChunkIn } from './piece-chunks.ts'
import { WindowRegion } from './window-region.ts'

/** Of the tar, between two checkpoints, at least. ARCHITECTURE.md, "Reading gzip at random", compares others. Bytes. */
export const checkpointSpacingBytes = 96 * 1024
/** Output that is kept for windows: the scanner may come to know of a block a little after its output, bytes. */
const historyBytes = 256 * 1024
/** Of which it is not decided yet whether they become checkpoints; each holds up to 64 KiB. */
const maxCandidates = 256

export interface CheckpointerParts {
  /** Takes the chunks of the window region. */
  sink: ChunkSink
  /** Those of the tar that has been told of, in its order; more come with more of it. */
  pieces: readonly Piece[]
}

/** A block that may become a checkpoint. */
interface Candidate {
  start: BlockStart
  /** The output before it, once the history is about to lose it. */
  window: Buffer | undefined
  /** Which bytes of it are needed, the nearest last; undefined while that is not known. */
  needed: Uint8Array | undefined
}

/**
 * Chooses checkpoints while a blob is decompressed: told of its bytes before they are, and of the tar's as they come. One
 * stands at the last block before a chunk of the data region begins, unless there is one at less than `spacingBytes` before it.
 */
export class Checkpointer implements DecompressObserver {
  readonly #pieces: readonly Piece[]
  readonly #windows: WindowRegion
  readonly #spacingBytes: number
  readonly #checkpoints: Checkpoint[] = [{ bitOffset: 0, tarOffset: 0, window: { offset: 0, lengthBytes: 0 } }]
  readonly #marks: number[] = []
  readonly #history: Buffer[] = []
  #historyStart = 0
  #output = 0
  readonly #candidates: Candidate[] = []
  /** The one whose needs the scanner is finding out, or has found out last. */
  #newest: Candidate | undefined
  #scanner: GzipScanner | undefined
  #compression: Compression = 'none'

  constructor({ sink, pieces }: CheckpointerParts, { spacingBytes }: { spacingBytes: number }) {
    this.#pieces = pieces
    this.#windows = new WindowRegion(sink)
    this.#spacingBytes = spacingBytes
  }

  start(compression: Compression): void {
    this.#compression = compression
    if (compression !== 'gzip') return
    this.#scanner = new GzipScanner(
      {
        block: (start) => this.#block(start),
        needed: (bytes) => {
          this.#newest!.needed = bytes
        },
        mark: (streamBytes, outputBytes) =>
          this.#mark(streamBytes / stopPointDistanceBytes, Math.floor(outputBytes / stopPointUnitBytes)),
      },
      { markDistanceBytes: stopPointDistanceBytes },
    )
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
    this.#checkpoints.push({
      bitOffset: byteOffset * 8,
      tarOffset: this.#output,
      window: { offset: 0, lengthBytes: 0 },
    })
  }

  /** Bytes of the tar, in order; they are not changed afterwards. The pieces of what came before them are there. */
  output(bytes: Buffer): void {
    this.#choose(this.#output)
    this.#history.push(bytes)
    this.#output += bytes.length
    while (this.#output - this.#historyStart - (this.#history[0]?.length ?? 0) >= historyBytes) {
      const start = this.#historyStart + this.#history[0]!.length
      for (const candidate of this.#candidates) {
        if (candidate.start.outputOffset > this.#output || candidate.start.outputOffset - maxWindowBytes >= start) break
        candidate.window ??= this.#copy(candidate.start)
      }
      this.#history.shift()
      this.#historyStart = start
    }
  }

  /** All has been told; resolves when the windows are kept. @throws what the sink threw */
  async finish(): Promise<Pick<BlobMap, 'compression' | 'checkpoints' | 'stopPoints' | 'windows'>> {
    this.#choose(Infinity)
    return {
      compression: this.#compression,
      checkpoints: this.#checkpoints,
      stopPoints: Uint32Array.from(this.#marks),
      windows: await this.#windows.finish(),
    }
  }

  get #last(): number {
    return this.#checkpoints.at(-1)!.tarOffset
  }

  #block(start: BlockStart): boolean {
    const before = this.#newest?.start.outputOffset ?? 0
    if (start.outputOffset - before < maxWindowBytes || this.#candidates.length === maxCandidates) return false
    this.#newest = { start, window: undefined, needed: undefined }
    this.#candidates.push(this.#newest)
    return true
  }

  /** What was not told of lies in headers: no output comes of them. */
  #mark(count: number, units: number): void {
    const before = this.#marks.at(-1) ?? 0
    while (this.#marks.length < count - 1) this.#marks.push(before)
    this.#marks.push(units)
  }

  /** Decides on the candidates of which it is known what is behind them. @param known pieces before this offset of the tar are there */
  #choose(known: number): void {
    for (;;) {
      const [first, second] = this.#candidates
      const end = second?.start.outputOffset ?? Infinity
      if (first === undefined || end > known) return
      this.#candidates.shift()
      const { start, needed } = first
      if (needed === undefined || start.outputOffset - this.#last < this.#spacingBytes) continue
      if (firstChunkIn(this.#pieces, start.outputOffset, end) === undefined) continue
      const window = first.window ?? this.#copy(start)
      if (window === undefined) continue
      this.#checkpoints.push({
        bitOffset: start.bitOffset,
        tarOffset: start.outputOffset,
        window: this.#windows.add(sparse(window, needed)),
      })
    }
  }

  /** @returns {@link maxWindowBytes}, the window last; undefined where its output is gone: another block will do */
  #copy({ outputOffset, windowBytes }: BlockStart): Buffer | undefined {
    const from = outputOffset - windowBytes - this.#historyStart
    if (from < 0 || outputOffset > this.#output) return undefined
    const copy = Buffer.allocUnsafeSlow(maxWindowBytes)
    const before = maxWindowBytes - windowBytes
    let start = 0
    for (const piece of this.#history) {
      if (start + piece.length > from && start < from + windowBytes)
        piece.copy(copy, before + Math.max(0, start - from), Math.max(0, from - start), from + windowBytes - start)
      start += piece.length
    }
    return copy
  }
}

/**
 * The window from the first byte on that is needed, the others zero: they compress to little. Changes it. Both have
 * {@link maxWindowBytes}, and memory of their own.
 */
function sparse(window: Buffer, needed: Uint8Array): Buffer {
  const first = needed.indexOf(neededByte)
  if (first < 0) return window.subarray(window.length)
  const words = new Int32Array(window.buffer)
  const masks = new Int32Array(needed.buffer)
  for (let i = first >> 2; i < words.length; i++) words[i]! &= masks[i]!
  return window.subarray(first)
}
