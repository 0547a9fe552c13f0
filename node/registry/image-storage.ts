import type { Digest } from '../../protocol/digest.ts'
import type { Descriptor } from './image-manifest.ts'
import type { Reference } from './reference.ts'

export interface ReadBlobOptions {
  signal: AbortSignal
  /** False where the reader checks the digest itself. */
  verify?: boolean
}

/** A place that images are in. */
export interface ImageStorage {
  /** The manifest or index that the reference names. */
  manifest: (reference: Reference, options: { signal: AbortSignal }) => Promise<{ digest: Digest; json: string }>
  /** A manifest of an index. */
  manifestByDigest: (reference: Reference, descriptor: Descriptor, options: { signal: AbortSignal }) => Promise<string>
  /** @throws invalid where the blob is not what the descriptor says; the codes of the transport */
  blob: (reference: Reference, descriptor: Descriptor, options: ReadBlobOptions) => AsyncIterable<Uint8Array>
}
