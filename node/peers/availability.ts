import type { Bitmap } from '../../protocol/bitmap.ts'
import type { Digest } from '../../protocol/digest.ts'
import type { Have, HaveDelta } from '../../protocol/messages/region.ts'
import type { Membership } from './membership.ts'
import type { Peer } from './peer.ts'

/** How long changes are gathered before they are sent (ms): a fraction of the time that fetching a chunk takes. */
const gatherMs = 20

/** Chunks of one segment that came and went since the last message. */
interface Changes {
  added: Set<number>
  removed: Set<number>
}

/** Knows who holds which chunks: announces those of this host, and keeps what its peers announce. */
export class Availability {
  readonly #membership: Pick<Membership, 'members' | 'broadcast'>
  readonly #changes = new Map<Digest, Changes>()
  #timer: NodeJS.Timeout | undefined

  constructor({ membership }: { membership: Pick<Membership, 'members' | 'broadcast'> }) {
    this.#membership = membership
  }

  /** Announces a segment that is new on this host, at once. @param held the chunks of it that this host holds */
  announce(table: Digest, held: Bitmap): void {
    this.#membership.broadcast({ type: 'have', table, held })
  }

  /** Announces chunks that are new on this host. They are gathered for some milliseconds. */
  announceChunks(table: Digest, indexes: readonly number[]): void {
    const { added, removed } = this.#changesOf(table)
    for (const index of indexes) {
      added.add(index)
      removed.delete(index)
    }
  }

  /** Announces that chunks are no longer on this host. They are gathered for some milliseconds. */
  withdrawChunks(table: Digest, indexes: readonly number[]): void {
    const { added, removed } = this.#changesOf(table)
    for (const index of indexes) {
      removed.add(index)
      added.delete(index)
    }
  }

  /** Ids of the connected members that say they hold the chunk. */
  holders(table: Digest, index: number): string[] {
    return this.#membership
      .members()
      .filter(({ holdings }) => holdings.has(table, index))
      .map(({ id }) => id)
  }

  /** A peer has announced the chunk and does not have it: forgets what it said of this chunk. */
  forget(peerId: string, table: Digest, index: number): void {
    for (const { id, holdings } of this.#membership.members()) if (id === peerId) holdings.forget(table, index)
  }

  /** Takes in what a peer announces. @throws invalid where it contradicts what the peer announced before */
  update(peer: Peer, message: Have | HaveDelta): void {
    peer.holdings.update(message)
  }

  /**
   * Sends the changes that were gathered so far. A peer that is introduced next must not hear of changes before that.
   */
  flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    for (const [table, { added, removed }] of this.#changes) {
      if (added.size + removed.size > 0)
        this.#membership.broadcast({ type: 'delta', table, added: [...added], removed: [...removed] })
    }
    this.#changes.clear()
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  #changesOf(table: Digest): Changes {
    this.#timer ??= setTimeout(() => this.flush(), gatherMs)
    let changes = this.#changes.get(table)
    if (changes === undefined) {
      changes = { added: new Set(), removed: new Set() }
      this.#changes.set(table, changes)
    }
    return changes
  }
}
