import { P2pfsError } from '../../protocol/errors.ts'
import type { Urgency } from '../base/urgency.ts'
import type { ChunkRequest, Delivery, FetchChunk, RemoteSource } from '../model/chunk-request.ts'

export interface SourceOptions {
  signal: AbortSignal
  /** Whether somebody waits for the chunk. */
  urgency: Urgency
  /** Gets the chunks that the source needs to make this one. */
  fetchChunk: FetchChunk
  /** Whether a peer holds the chunk by now, and is to be asked instead. A source that makes fetches wait asks again. */
  isHeld?: () => boolean
  /** Whether a peer is to deliver the chunk and has not in time: another host reads it for the region. */
  isFallback?: boolean
  /** Called with the source of the chunk, where it is not the registry. */
  onSource?: (source: RemoteSource) => void
}

/** The fetch waited for its turn, and meanwhile a peer has got the chunk: the source has not been read. */
export class HeldByPeerError extends P2pfsError {
  constructor() {
    super('conflict', 'a peer holds the chunk by now')
  }
}

/** A source of chunks: peers, or the registry in one of the ways in which it can be read. */
export interface ChunkSource {
  /**
   * Gets a chunk: its bytes, which are those that its digest names, or word that it is in the store.
   * @throws missing where the source does not have the chunk, and the codes of its transport; the signal's reason
   */
  fetch: (request: ChunkRequest, options: SourceOptions) => Promise<Delivery>
}
