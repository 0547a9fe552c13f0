import type { Digest } from '../../protocol/digest.ts'

/** The answer of a registry. */
export interface SharedAnswer {
  bytes: Uint8Array
  /** Whether this host has asked the registry just now. Otherwise nothing proves that it says so, or still says so. */
  isFirsthand: boolean
}

/** Has small things read from a registry once for the region. */
export interface ContentSharing {
  /**
   * Gets content that a digest names.
   * @param read reads it from the registry; what it returns has this digest
   * @throws what `read` throws; the signal's reason
   */
  get: (
    content: { digest: Digest; sizeBytes: number },
    read: (signal: AbortSignal) => Promise<Uint8Array>,
    options: { signal: AbortSignal },
  ) => Promise<Uint8Array>
  /**
   * Gets what a registry says.
   * @param key the digest of a text that is the same for all who ask the same
   * @throws as {@link get}
   */
  ask: (
    key: Digest,
    read: (signal: AbortSignal) => Promise<Uint8Array>,
    options: { signal: AbortSignal },
  ) => Promise<SharedAnswer>
}
