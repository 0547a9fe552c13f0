import { blockBytes, slotBytes } from './format.ts'

/**
 * Finds places for inodes and the bytes behind them: on 32-byte boundaries, and within one block where they fit into
 * one. A long one may leave the end of a block empty; shorter ones that come later fill it.
 */
export class SlotAllocator {
  /** Offset of the end of the last place. */
  end: number
  /** The last range that was left empty. */
  #gap = { start: 0, end: 0 }

  constructor(start: number) {
    this.end = start
  }

  /** @returns the offset of `sizeBytes` */
  allocate(sizeBytes: number): number {
    const size = Math.ceil(sizeBytes / slotBytes) * slotBytes
    if (this.#gap.start + size <= this.#gap.end) {
      const place = this.#gap.start
      this.#gap.start += size
      return place
    }
    const blockEnd = Math.ceil(this.end / blockBytes) * blockBytes
    if (this.end + size > blockEnd && blockEnd > this.end) {
      this.#gap = { start: this.end, end: blockEnd }
      this.end = blockEnd
    }
    const place = this.end
    this.end += size
    return place
  }
}
