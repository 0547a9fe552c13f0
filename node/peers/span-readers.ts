import type { Digest } from '../../protocol/digest.ts'
import type { Membership } from './membership.ts'
import { standings } from './peer-standing.ts'
import { rendezvous } from './rendezvous.ts'

/**
 * Chunks of a span: a few MiB, so that a reader finds neighbours to read in one request, and few enough that the spans of
 * a boot have many readers.
 */
export const spanChunks = 32

export interface SpanReadersParts {
  /** The id of this host. */
  own: string
  membership: Pick<Membership, 'members'>
}

/**
 * Names the member that reads a span of a segment from the registry for all: one of those that track the segment, by
 * rendezvous hashing. So all who want a chunk at once wait for one request, and the members share the work.
 */
export class SpanReaders {
  readonly #own: string
  readonly #membership: SpanReadersParts['membership']

  constructor({ own, membership }: SpanReadersParts) {
    this.#own = own
    this.#membership = membership
  }

  /**
   * The member to ask; undefined where it is this host, which is so where no other tracks the segment. Members that are
   * silent or have failed a moment ago are passed over.
   */
  readerOf(table: Digest, index: number): string | undefined {
    const others = this.#membership
      .members()
      .filter(({ holdings, standing }) => holdings.knows(table) && standing.current <= standings.unproven)
    if (others.length === 0) return undefined
    const span = Math.floor(index / spanChunks)
    const [reader] = rendezvous(`${table} ${span}`, [this.#own, ...others.map(({ id }) => id)])
    return reader === this.#own ? undefined : reader
  }
}
