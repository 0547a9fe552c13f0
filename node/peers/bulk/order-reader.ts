import { parseBulkOrder, type BulkOrder } from '../../../protocol/messages/bulk.ts'

/** Takes the orders of a connection apart, as their bytes come. */
export class OrderReader {
  readonly #onOrder: (order: BulkOrder) => void
  /** The beginning of an order that has not come whole. */
  #rest = Buffer.alloc(0)

  constructor(onOrder: (order: BulkOrder) => void) {
    this.#onOrder = onOrder
  }

  /** Bytes that are kept for the next call: less than one want. */
  get keptBytes(): number {
    return this.#rest.length
  }

  /** @throws invalid for what is no order */
  push(bytes: Uint8Array): void {
    let left = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes])
    for (;;) {
      const parsed = parseBulkOrder(left)
      if (parsed === undefined) break
      this.#onOrder(parsed.order)
      left = left.subarray(parsed.lengthBytes)
    }
    // A copy: the buffer that was read into is used again.
    this.#rest = Buffer.from(left)
  }
}
