import type { Digest } from '../../protocol/digest.ts'

/** One chunk, and where it stands: its region, for whoever is asked who holds it. */
export interface ChunkRequest {
  digest: Digest
  lengthBytes: number
  /** Id of the chunk table of the region. */
  table: Digest
  /** Position in that table. */
  index: number
}

/** Where the bytes came from. */
export type Source = 'local' | 'peer' | 'registry'

/** A read that somebody waits for comes before all that nobody waits for yet. */
export type Priority = 'demand' | 'background'

export interface FetchedChunk {
  bytes: Uint8Array
  source: Source
}
