import { Bitmap } from '../../protocol/bitmap.ts'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { DeltaPart, HavePart } from '../../protocol/messages/region.ts'

/** The chunks that one peer says it holds, by segment. Only segments that this host tracks are put in. */
export class PeerHoldings {
  readonly #held = new Map<Digest, Bitmap>()

  /** Whether the peer says that it holds this chunk. */
  has(table: Digest, index: number): boolean {
    return this.#held.get(table)?.get(index) === true
  }

  /** Whether the peer has said what it holds of the segment, even if it holds none of its chunks. */
  knows(table: Digest): boolean {
    return this.#held.has(table)
  }

  /** Whether the peer says that it holds all chunks of the segment. */
  isWhole(table: Digest): boolean {
    return this.#held.get(table)?.isFull === true
  }

  /** How many chunks of the segment the peer says it holds. */
  countOf(table: Digest): number {
    return this.#held.get(table)?.ones ?? 0
  }

  /** Segments of which the peer has said what it holds. */
  get size(): number {
    return this.#held.size
  }

  /**
   * Takes in what the peer holds of a segment.
   * @param count chunks of the segment
   * @throws invalid where the peer gives it another count
   */
  take({ table, count: told, first, bits }: HavePart, count: number): void {
    if (told !== count) throw new P2pfsError('invalid', 'peer gives a segment another number of chunks')
    if (first === 0) {
      const held = new Bitmap(count)
      held.bytes.set(bits)
      this.#held.set(table, held)
    } else this.#held.get(table)?.bytes.set(bits, first / 8)
  }

  /**
   * Takes in changes. Those of a segment of which the peer has not said what it holds are ignored: a have follows.
   * @throws invalid for a chunk beyond the end of its segment
   */
  change({ table, added, removed }: DeltaPart): void {
    const held = this.#held.get(table)
    if (held === undefined) return
    for (const indexes of [added, removed]) {
      for (const index of indexes)
        if (index >= held.count) throw new P2pfsError('invalid', 'peer changed a chunk beyond the end of its segment')
    }
    for (const index of added) held.set(index)
    for (const index of removed) held.clear(index)
  }

  /** Forgets that the peer says it holds this chunk; it may say so again. */
  forgetChunk(table: Digest, index: number): void {
    this.#held.get(table)?.clear(index)
  }

  /** This host no longer tracks the segment. */
  forget(table: Digest): void {
    this.#held.delete(table)
  }
}
