import type { Piece } from '../../protocol/blob-map.ts'
import { maxChunkBytes } from '../../protocol/chunk-table.ts'
import { bigBytes } from './chunker.ts'
import { Column } from './column.ts'

/**
 * The pieces of a layer in the tar's order. There may be millions: each is an object only while somebody looks at it.
 */
export class PieceList implements Iterable<Piece> {
  readonly #regionOffsets = new Column(Float64Array)
  readonly #lengths = new Column(Float64Array)
  readonly #tarOffsets = new Column(Float64Array)

  get length(): number {
    return this.#lengths.length
  }

  push({ segmentOffset, lengthBytes, tarOffset }: Piece): void {
    this.#regionOffsets.push(segmentOffset)
    this.#lengths.push(lengthBytes)
    this.#tarOffsets.push(tarOffset)
  }

  *[Symbol.iterator](): Generator<Piece> {
    for (let i = 0; i < this.length; i++)
      yield {
        segmentOffset: this.#regionOffsets.get(i),
        lengthBytes: this.#lengths.get(i),
        tarOffset: this.#tarOffsets.get(i),
      }
  }

  /**
   * Whether a chunk of the data segment may begin in this range of the tar. A chunk may begin with any file's content,
   * and every {@link maxChunkBytes} within that of a large one.
   */
  mayBeginChunk(tarStart: number, tarEnd: number): boolean {
    for (let i = Math.max(0, this.#lastAtOrBefore(tarStart)); i < this.length; i++) {
      const tarOffset = this.#tarOffsets.get(i)
      const lengthBytes = this.#lengths.get(i)
      if (tarOffset >= tarEnd) return false
      if (tarOffset >= tarStart) return true
      const slice = tarOffset + Math.ceil((tarStart - tarOffset) / maxChunkBytes) * maxChunkBytes
      if (lengthBytes >= bigBytes && slice < Math.min(tarOffset + lengthBytes, tarEnd)) return true
    }
    return false
  }

  /** Index of the last piece that begins at this offset of the tar or before it; -1 where all begin behind it. */
  #lastAtOrBefore(tarOffset: number): number {
    let low = -1
    let high = this.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.#tarOffsets.get(middle) <= tarOffset) low = middle
      else high = middle - 1
    }
    return low
  }
}
