import { ChunkTableBuilder } from '../../../protocol/chunk-table.ts'
import { digestOf } from '../../../protocol/digest.ts'
import type { LayerIndex } from '../../../protocol/layer-index.ts'
import { rawChunkBytes, rawChunkLength } from '../../../protocol/raw-image.ts'
import type { ChunkSink } from '../../model/chunk-sink.ts'
import { checkLayerBytes, type LayerLimits } from '../layer-limits.ts'
import { PieceList } from '../piece-list.ts'
import { PutsInFlight } from '../puts-in-flight.ts'

/** Chunks that are being kept at once, bytes. */
const maxInFlightBytes = 8 * 1024 * 1024

/**
 * Makes index and chunks of a layer of a raw image, pushed in pieces of any size. It does for it what `LayerIndexer`
 * does for a tar.
 */
export class RawIndexer {
  readonly #sink: ChunkSink
  readonly #limits: LayerLimits
  readonly #table = new ChunkTableBuilder()
  readonly #puts = new PutsInFlight({ maxBytes: maxInFlightBytes })
  #chunk = Buffer.alloc(rawChunkBytes)
  #filled = 0
  #sizeBytes = 0
  #hasZeros = false
  /** The offset of the first chunk that is not zero and has no piece yet. */
  #pieceStart: number | undefined

  constructor(sink: ChunkSink, limits: LayerLimits) {
    this.#sink = sink
    this.#limits = limits
  }

  /** The parts of the layer that are not zero. */
  readonly pieces = new PieceList()

  /** There are none. */
  readonly entry = undefined

  /** @throws invalid for a layer that is too large; the sink's error */
  async push(bytes: Buffer): Promise<void> {
    checkLayerBytes(this.#sizeBytes + this.#filled + bytes.length, this.#limits, undefined)
    for (let offset = 0; offset < bytes.length;) {
      const length = Math.min(bytes.length - offset, rawChunkBytes - this.#filled)
      bytes.copy(this.#chunk, this.#filled, offset, offset + length)
      this.#filled += length
      offset += length
      if (this.#filled === rawChunkBytes) await this.#cut()
    }
  }

  async finish(): Promise<LayerIndex> {
    if (this.#filled > 0) await this.#cut()
    this.#endPiece()
    await this.#puts.settled()
    const chunks = this.#table.build()
    return { diffId: chunks.id, tarBytes: this.#sizeBytes, chunks, entries: [] }
  }

  async #cut(): Promise<void> {
    const chunk = this.#chunk.subarray(0, rawChunkLength(this.#filled))
    const digest = digestOf(chunk)
    this.#table.add(digest, chunk.length)
    const isZero = isAllZero(chunk)
    if (isZero) this.#endPiece()
    else this.#pieceStart ??= this.#sizeBytes
    this.#sizeBytes += this.#filled
    this.#filled = 0
    if (isZero && this.#hasZeros && chunk.length === rawChunkBytes) return
    this.#hasZeros ||= isZero && chunk.length === rawChunkBytes
    // The sink takes the memory of a chunk.
    const own = chunk.length === rawChunkBytes ? chunk : Buffer.from(Uint8Array.from(chunk).buffer)
    this.#puts.add(own.length, this.#sink.put(digest, own))
    this.#chunk = Buffer.from(new ArrayBuffer(rawChunkBytes))
    await this.#puts.room()
  }

  #endPiece(): void {
    if (this.#pieceStart === undefined) return
    const [start, lengthBytes] = [this.#pieceStart, this.#sizeBytes - this.#pieceStart]
    this.pieces.push({ segmentOffset: start, lengthBytes, tarOffset: start })
    this.#pieceStart = undefined
  }
}

const zeros = Buffer.alloc(rawChunkBytes)

/** Whether a chunk of a raw image is all zero. */
export function isAllZero(chunk: Uint8Array): boolean {
  return zeros.subarray(0, chunk.length).equals(chunk)
}
