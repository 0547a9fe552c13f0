import type { Digest } from '../../protocol/digest.ts'
import { wantPriorities, type WantPriority } from '../../protocol/messages/chunk.ts'

/** One chunk, and its place in a segment: holders are looked up by place. */
export interface ChunkRequest {
  digest: Digest
  lengthBytes: number
  /** Id of the segment's chunk table. */
  table: Digest
  /** Position in that table. */
  index: number
}

/** The source of the bytes. */
export type Source = 'local' | RemoteSource
export type RemoteSource = 'peer' | 'neighbour' | 'registry'

/** Why a chunk is fetched: the first comes first. */
export type FetchPriority = WantPriority

export function comesBefore(first: FetchPriority, second: FetchPriority): boolean {
  return wantPriorities.indexOf(first) < wantPriorities.indexOf(second)
}

/** In place of a chunk's bytes: its file has been written, and the store has taken it up. */
export const inStore = Symbol('in the store')
export type Delivery = Uint8Array | typeof inStore

export interface FetchedChunk {
  bytes: Uint8Array
  source: Source
}

/** Gets the verified bytes of a chunk that another fetch waits for, from wherever it is. @throws as the fetcher does */
export type FetchChunk = (request: ChunkRequest, options: { signal: AbortSignal }) => Promise<Uint8Array>
