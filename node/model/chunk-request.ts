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
export type Source = 'local' | RemoteSource
export type RemoteSource = 'peer' | 'registry'

/** The first comes first: a read that somebody waits for, what its reader comes to next, what a boot will read, all others. */
export const priorities = ['demand', 'ahead', 'boot', 'background'] as const
export type FetchPriority = (typeof priorities)[number]

export function comesBefore(one: FetchPriority, other: FetchPriority): boolean {
  return priorities.indexOf(one) < priorities.indexOf(other)
}

export interface FetchedChunk {
  bytes: Uint8Array
  source: Source
}
