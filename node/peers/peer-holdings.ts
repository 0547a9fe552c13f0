import type { Bitmap } from '../../protocol/bitmap.ts'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { maxSegments, type Have, type HaveDelta } from '../../protocol/messages/region.ts'

/** The chunks that one peer says it holds, by segment. */
export class PeerHoldings {
  readonly #held = new Map<Digest, Bitmap>()

  /** Whether the peer says that it holds this chunk. */
  has(table: Digest, index: number): boolean {
    return this.#held.get(table)?.get(index) === true
  }

  /** Whether the peer has announced the segment, even if it holds none of its chunks. */
  knows(table: Digest): boolean {
    return this.#held.has(table)
  }

  /** Forgets that the peer says it holds this chunk; it may say so again. */
  forget(table: Digest, index: number): void {
    this.#held.get(table)?.clear(index)
  }

  /** @throws invalid for more segments than the protocol allows, or a change to a segment that was not announced */
  update(message: Have | HaveDelta): void {
    if (message.type === 'have') {
      if (this.#held.size >= maxSegments && !this.#held.has(message.table))
        throw new P2pfsError('invalid', 'peer announced more segments than the protocol allows')
      this.#held.set(message.table, message.held)
      return
    }
    const held = this.#held.get(message.table)
    if (held === undefined) throw new P2pfsError('invalid', 'peer changed a segment that it has not announced')
    for (const index of [...message.added, ...message.removed]) {
      if (index >= held.count) throw new P2pfsError('invalid', 'peer changed a chunk beyond the end of its segment')
    }
    for (const index of message.added) held.set(index)
    for (const index of message.removed) held.clear(index)
  }
}
