import type { Piece } from '../../protocol/packed-pieces.ts'
import { maxChunkBytes } from '../../protocol/chunk-table.ts'
import { bigBytes } from './chunker.ts'
import { Column } from './column.ts'
import { lastAtOrBefore } from './last-at-or-before.ts'

/**
 * The pieces of a layer in the tar's order. There may be millions: each is an object only while somebody looks at it.
 */
export class PieceList implements Iterable<Piece> {
  readonly #segmentOffsets = new Column(Float64Array)
  readonly #lengths = new Column(Float64Array)
  readonly #tarOffsets = new Column(Float64Array)

  get length(): number {
    return this.#lengths.length
  }

  push({ segmentOffset, lengthBytes, tarOffset }: Piece): void {
    this.#segmentOffsets.push(segmentOffset)
    this.#lengths.push(lengthBytes)
    this.#tarOffsets.push(tarOffset)
  }

  *[Symbol.iterator](): Generator<Piece> {
    for (let i = 0; i < this.length; i++)
      yield {
        segmentOffset: this.#segmentOffsets.get(i),
        lengthBytes: this.#lengths.get(i),
        tarOffset: this.#tarOffsets.get(i),
      }
  }

  /**
   * Whether a chunk of the data segment may begin in this range of the tar. A chunk may begin with any file's content,
   * and every {@link maxChunkBytes} within that of a large one.
   */
  mayBeginChunk(tarStart: number, tarEnd: number): boolean {
    const first = lastAtOrBefore(this.length, tarStart, (i) => this.#tarOffsets.get(i))
    for (let i = Math.max(0, first); i < this.length; i++) {
      const tarOffset = this.#tarOffsets.get(i)
      const lengthBytes = this.#lengths.get(i)
      if (tarOffset >= tarEnd) return false
      if (tarOffset >= tarStart) return true
      const slice = tarOffset + Math.ceil((tarStart - tarOffset) / maxChunkBytes) * maxChunkBytes
      if (lengthBytes >= bigBytes && slice < Math.min(tarOffset + lengthBytes, tarEnd)) return true
    }
    return false
  }
}
