import { blockBytes, slotBytes } from './format.ts'

/**
 * Places for inodes with what stands behind them: on 32-byte boundaries, and within one block whatever fits into one. What
 * a long one leaves empty at the end of a block is filled with short ones that come later.
 */
export class SlotAllocator {
  /** Offset behind the last place. */
  end: number
  /** The latest stretch that was left empty. */
  #gap = { at: 0, end: 0 }

  constructor(start: number) {
    this.end = start
  }

  /** @returns the offset of `sizeBytes` */
  allocate(sizeBytes: number): number {
    const size = Math.ceil(sizeBytes / slotBytes) * slotBytes
    if (this.#gap.at + size <= this.#gap.end) {
      const at = this.#gap.at
      this.#gap.at += size
      return at
    }
    const blockEnd = Math.ceil(this.end / blockBytes) * blockBytes
    if (this.end + size > blockEnd && blockEnd > this.end) {
      this.#gap = { at: this.end, end: blockEnd }
      this.end = blockEnd
    }
    const at = this.end
    this.end += size
    return at
  }
}
