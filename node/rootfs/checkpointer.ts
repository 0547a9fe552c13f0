import {
  stopPointDistanceBytes,
  stopPointUnitBytes,
  type BlobMap,
  type Checkpoint,
  type Compression,
} from '../../protocol/blob-map.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'
import type { DecompressObserver } from './decompress.ts'
import { maxWindowBytes, neededByte } from './gzip/deflate-scanner.ts'
import { GzipScanner, type BlockStart } from './gzip/gzip-scanner.ts'
import type { PieceList } from './piece-list.ts'
import { WindowSegment } from './window-segment.ts'

/** Least distance of two checkpoints, bytes of the tar. ARCHITECTURE.md, "Reading gzip at random", compares others. */
export const checkpointSpacingBytes = 96 * 1024
/** Output that is kept for windows, bytes. The scanner may find a block a little after its output has come. */
const historyBytes = 256 * 1024
/** Bound on undecided candidates. Each holds up to 64 KiB. */
const maxCandidates = 256

export interface CheckpointerParts {
  /** Takes the chunks of the window segment. */
  sink: ChunkSink
  /** The pieces of the tar that has come, in its order. More are added as more of the tar comes. */
  pieces: Pick<PieceList, 'mayBeginChunk'>
}

/** A block that may become a checkpoint. */
interface Candidate {
  start: BlockStart
  /** A copy of the output before it, made when the history is about to drop that. */
  window: Buffer | undefined
  /** Marks the bytes of the window that are needed, the nearest last; undefined until the scanner has found out. */
  needed: Uint8Array | undefined
}

/**
 * Chooses checkpoints while a blob is decompressed. It gets the blob's bytes before they are decompressed, and the
 * tar's as they come. Each chunk of the data segment gets a checkpoint at the last block before it, unless another
 * checkpoint stands less than `spacingBytes` before that block.
 */
export class Checkpointer implements DecompressObserver {
  readonly #pieces: Pick<PieceList, 'mayBeginChunk'>
  readonly #windows: WindowSegment
  readonly #spacingBytes: number
  readonly #checkpoints: Checkpoint[] = [{ bitOffset: 0, tarOffset: 0, window: { offset: 0, lengthBytes: 0 } }]
  /** As `BlobMap.stopPoints`. */
  readonly #stopPoints: number[] = []
  readonly #history: Buffer[] = []
  #historyStart = 0
  #output = 0
  readonly #candidates: Candidate[] = []
  /** The candidate whose needs the scanner is finding out, or has found out last. */
  #newest: Candidate | undefined
  #scanner: GzipScanner | undefined
  #compression: Compression = 'none'

  constructor({ sink, pieces }: CheckpointerParts, { spacingBytes }: { spacingBytes: number }) {
    this.#pieces = pieces
    this.#windows = new WindowSegment(sink)
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
        stopPoint: (streamBytes, outputBytes) =>
          this.#stopPoint(streamBytes / stopPointDistanceBytes, Math.floor(outputBytes / stopPointUnitBytes)),
      },
      { stopDistanceBytes: stopPointDistanceBytes },
    )
  }

  compressed(bytes: Buffer): void {
    try {
      this.#scanner?.push(bytes)
    } catch {
      // If the stream is damaged, the decompressor reports that. If it is not, there are no more checkpoints.
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

  /** Takes bytes of the tar, in order; they must not change later. The pieces of all bytes before them are there. */
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

  /** Ends the blob; resolves when the windows are kept. @throws the sink's error */
  async finish(): Promise<Pick<BlobMap, 'compression' | 'checkpoints' | 'stopPoints' | 'windows'>> {
    this.#choose(Infinity)
    return {
      compression: this.#compression,
      checkpoints: this.#checkpoints,
      stopPoints: Uint32Array.from(this.#stopPoints),
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

  /** Stop points that the scanner leaves out lie in headers, which make no output. */
  #stopPoint(count: number, units: number): void {
    const before = this.#stopPoints.at(-1) ?? 0
    while (this.#stopPoints.length < count - 1) this.#stopPoints.push(before)
    this.#stopPoints.push(units)
  }

  /** Decides on the candidates before this offset of the tar: the pieces up to it are there. */
  #choose(tarOffset: number): void {
    for (;;) {
      const [first, second] = this.#candidates
      const end = second?.start.outputOffset ?? Infinity
      if (first === undefined || end > tarOffset) return
      this.#candidates.shift()
      const { start, needed } = first
      if (needed === undefined || start.outputOffset - this.#last < this.#spacingBytes) continue
      if (!this.#pieces.mayBeginChunk(start.outputOffset, end)) continue
      const window = first.window ?? this.#copy(start)
      if (window === undefined) continue
      this.#checkpoints.push({
        bitOffset: start.bitOffset,
        tarOffset: start.outputOffset,
        window: this.#windows.add(sparse(window, needed)),
      })
    }
  }

  /**
   * Copies a window out of the history.
   * @returns {@link maxWindowBytes}, the window last; undefined where the history has dropped it: another block will do
   */
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
 * Zeroes the bytes of the window that are not needed, which then compress to little. Both arrays have
 * {@link maxWindowBytes}, and an ArrayBuffer of their own.
 * @returns the window from the first needed byte on
 */
function sparse(window: Buffer, needed: Uint8Array): Buffer {
  const first = needed.indexOf(neededByte)
  if (first < 0) return window.subarray(window.length)
  const words = new Int32Array(window.buffer)
  const masks = new Int32Array(needed.buffer)
  for (let i = first >> 2; i < words.length; i++) words[i]! &= masks[i]!
  return window.subarray(first)
}
