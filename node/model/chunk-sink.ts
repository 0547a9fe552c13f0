import type { Digest } from '../../protocol/digest.ts'
import type { Amount } from './progress.ts'

/** Takes each chunk as it is made; resolves when it is kept. The bytes are the sink's from then on. */
export interface ChunkSink {
  put: (digest: Digest, bytes: Uint8Array) => Promise<void>
}

/** Passes chunks on, and adds them to `amount`. */
export function counting(sink: ChunkSink, amount: Amount): ChunkSink {
  return {
    put: async (digest, bytes) => {
      amount.bytes += bytes.length
      amount.chunks++
      await sink.put(digest, bytes)
    },
  }
}
