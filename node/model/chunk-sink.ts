import type { Digest } from '../../protocol/digest.ts'

/** Takes each chunk as it is made; resolves when it is kept. The bytes are the sink's from then on. */
export interface ChunkSink {
  put: (digest: Digest, bytes: Uint8Array) => Promise<void>
}
