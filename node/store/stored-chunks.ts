import type { Digest } from '../../protocol/digest.ts'
import { DigestMap } from './digest-map.ts'

/** Rows that the columns have room for at first. */
const initialRows = 1024

/** A chunk as eviction looks at it: its row stands for it until the chunk is gone. */
export interface StoredChunk {
  row: number
  /** The room of its file (blocks); 0 where nobody has looked yet. */
  blocks: number
  /** How worth keeping it is; 0 where nothing is known. */
  score: number
}

/** The chunks on the disk, and what each takes there and is worth: 5 bytes for each besides. */
export class StoredChunks extends DigestMap {
  #blocks = new Uint8Array(initialRows)
  #scores = new Float32Array(initialRows)

  blocksOf(digest: Digest): number {
    const row = this.rowOf(digest)
    return row === undefined ? 0 : (this.#blocks[row] ?? 0)
  }

  /** @param blocks up to 255 */
  setBlocks(digest: Digest, blocks: number): void {
    const row = this.#reserve(digest)
    if (row !== undefined) this.#blocks[row] = blocks
  }

  /** Undefined where the chunk is not here. */
  scoreOf(digest: Digest): number | undefined {
    const row = this.rowOf(digest)
    return row === undefined ? undefined : (this.#scores[row] ?? 0)
  }

  setScore(digest: Digest, score: number): void {
    const row = this.#reserve(digest)
    if (row !== undefined) this.#scores[row] = score
  }

  override delete(digest: Digest): boolean {
    const row = this.#reserve(digest)
    if (row === undefined) return false
    this.#blocks[row] = 0
    this.#scores[row] = 0
    return super.delete(digest)
  }

  /** All chunks. Nothing may be added or removed meanwhile. */
  *stored(): Generator<StoredChunk, undefined> {
    for (let row = 0; row < this.rows; row++)
      if (this.hasRow(row)) yield { row, blocks: this.#blocks[row] ?? 0, score: this.#scores[row] ?? 0 }
  }

  #reserve(digest: Digest): number | undefined {
    const row = this.rowOf(digest)
    if (row !== undefined && row >= this.#blocks.length) {
      const rows = Math.max(row + 1, this.#blocks.length * 2)
      const blocks = new Uint8Array(rows)
      const scores = new Float32Array(rows)
      blocks.set(this.#blocks)
      scores.set(this.#scores)
      this.#blocks = blocks
      this.#scores = scores
    }
    return row
  }
}
