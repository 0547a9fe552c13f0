import type { Urgency } from '../base/urgency.ts'
import type { ChunkRequest, Delivery, FetchChunk, RemoteSource } from '../model/chunk-request.ts'

export interface SourceOptions {
  signal: AbortSignal
  /** Whether somebody waits for the chunk. */
  urgency: Urgency
  /** Gets the chunks that the source needs to make this one. */
  fetchChunk: FetchChunk
  /** Whether a peer is to deliver the chunk and has not in time: another host reads it for the region. */
  isFallback?: boolean
  /** Called with the source of the chunk, where it is not the registry. */
  onSource?: (source: RemoteSource) => void
}

/** A source of chunks: peers, or the registry in one of the ways in which it can be read. */
export interface ChunkSource {
  /**
   * Gets a chunk: its bytes, which are those that its digest names, or word that it is in the store.
   * @throws missing where the source does not have the chunk, and the codes of its transport; the signal's reason
   */
  fetch: (request: ChunkRequest, options: SourceOptions) => Promise<Delivery>
}
