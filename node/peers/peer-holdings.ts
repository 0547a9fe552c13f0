import type { Bitmap } from '../../protocol/bitmap.ts'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { maxTables, type Have, type HaveDelta } from '../../protocol/messages/region.ts'

/** What one peer says it holds. */
export class PeerHoldings {
  readonly #held = new Map<Digest, Bitmap>()

  has(table: Digest, index: number): boolean {
    return this.#held.get(table)?.get(index) === true
  }

  /** Whether the peer has told of the region. */
  knows(table: Digest): boolean {
    return this.#held.has(table)
  }

  /** @throws invalid for more regions than there can be, or a change to one that was not told before */
  update(message: Have | HaveDelta): void {
    if (message.type === 'have') {
      if (this.#held.size >= maxTables && !this.#held.has(message.table))
        throw new P2pfsError('invalid', 'peer holds more regions than there can be')
      this.#held.set(message.table, message.held)
      return
    }
    const held = this.#held.get(message.table)
    if (held === undefined) throw new P2pfsError('invalid', 'change to a region that the peer has not told of')
    for (const index of [...message.added, ...message.removed]) {
      if (index >= held.count) throw new P2pfsError('invalid', 'change beyond the end of a region')
    }
    for (const index of message.added) held.set(index)
    for (const index of message.removed) held.clear(index)
  }

  /** The peer turned out not to have it. */
  forget(table: Digest, index: number): void {
    this.#held.get(table)?.clear(index)
  }
}
