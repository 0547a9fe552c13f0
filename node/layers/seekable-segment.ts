import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { Urgency } from '../base/urgency.ts'
import type { FetchChunk } from '../model/chunk-request.ts'
import type { BlobRange } from '../rootfs/blob-range.ts'

export type { BlobRange } from '../rootfs/blob-range.ts'

export interface RangeReadOptions {
  signal: AbortSignal
  urgency: Urgency
  /** Gets the chunks of windows that decoding needs. */
  fetchChunk: FetchChunk
  /** Whether the bytes came before and were wrong: the registry itself is asked now, no mirror. */
  again: boolean
}

/** A segment whose blob can be read at any place. */
export interface SeekableSegment {
  table: ChunkTable
  /** The range to read for this chunk; undefined for a chunk that is all zero. */
  rangeOf: (chunkIndex: number) => BlobRange | undefined
  /** The range from the first of two ranges to the end of the last. */
  join: (first: BlobRange, last: BlobRange) => BlobRange
  /**
   * Reads the range with one request and decodes it.
   * @returns all chunks that are whole in it; their memory is the caller's
   * @throws unsupported where the registry has no ranges, or (`lacks: 'windows'`) where decoding needs what is lost;
   *   invalid for wrong bytes; the codes of the transport, which tell nothing of how the segment can be read
   */
  read: (range: BlobRange, options: RangeReadOptions) => Promise<Iterable<{ index: number; bytes: Uint8Array }>>
}
