import type { Digest } from '../../protocol/digest.ts'
import type { Urgency } from '../base/urgency.ts'
import type { Descriptor } from './image-manifest.ts'
import type { Reference } from './reference.ts'

export interface ReadBlobOptions {
  signal: AbortSignal
  /** False where the caller checks the digest itself. */
  verify?: boolean
}

export interface ReadRangeOptions {
  signal: AbortSignal
  /** Urgent by default. */
  urgency?: Urgency
  /** True: mirrors are not asked, since the bytes that they sent were wrong. */
  originOnly?: boolean
}

/** A manifest or index as it is stored. */
export interface StoredManifest {
  digest: Digest
  json: string
}

/** Bytes [start, end) of a blob. */
export interface ByteRange {
  start: number
  end: number
}

/** A manifest that refers to another one: OCI distribution spec, "Listing Referrers". */
export interface Referrer extends Descriptor {
  artifactType: string | undefined
  annotations: Record<string, string>
}

/** A longer range is read with {@link ImageStorage.blob} (bytes). */
export const maxRangeBytes = 64 * 1024 * 1024

/** A place that holds images. */
export interface ImageStorage {
  /** The manifest or index that the reference names. */
  manifest: (reference: Reference, options: { signal: AbortSignal }) => Promise<StoredManifest>
  /** The digest of the manifest or index that the reference names: one HEAD request to most registries. */
  digest: (reference: Reference, options: { signal: AbortSignal }) => Promise<Digest>
  /** A manifest by its digest. @throws invalid where it does not match */
  manifestByDigest: (reference: Reference, descriptor: Descriptor, options: { signal: AbortSignal }) => Promise<string>
  /** @throws invalid where the blob is not what the descriptor says; the codes of the transport */
  blob: (reference: Reference, descriptor: Descriptor, options: ReadBlobOptions) => AsyncIterable<Uint8Array>
  /**
   * Bytes [start, end) of a blob, at most {@link maxRangeBytes}, in a buffer that is the caller's. They may be wrong:
   * the caller verifies them.
   * @throws unsupported where the registry serves no ranges and these bytes are far into the blob; as {@link blob}
   */
  range: (
    reference: Reference,
    descriptor: Descriptor,
    range: ByteRange,
    options: ReadRangeOptions,
  ) => Promise<Uint8Array>
  /** Stores a blob in the reference's repository, unless it is there. @throws denied; the codes of the transport */
  pushBlob: (
    reference: Reference,
    bytes: Uint8Array,
    options: { signal: AbortSignal },
  ) => Promise<{ digest: Digest; sizeBytes: number }>
  /**
   * Stores a manifest, whose blobs are there. One with a `subject` is among the subject's referrers from then on, even
   * where the registry has no API for them.
   * @param name a tag, or the manifest's own digest
   */
  pushManifest: (
    reference: Reference,
    name: string,
    json: string,
    mediaType: string,
    options: { signal: AbortSignal },
  ) => Promise<{ digest: Digest; sizeBytes: number }>
  /** The manifests that refer to the manifest `digest`, or none. The caller checks who made them. */
  referrers: (
    reference: Reference,
    digest: Digest,
    artifactType: string | undefined,
    options: { signal: AbortSignal },
  ) => Promise<Referrer[]>
}

/** @throws TypeError */
export function checkRange({ start, end }: ByteRange, { sizeBytes }: Descriptor): void {
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || end < start || end > sizeBytes)
    throw new TypeError(`not a range of ${sizeBytes} bytes: ${start} to ${end}`)
  if (end - start > maxRangeBytes) throw new TypeError(`a range has at most ${maxRangeBytes} bytes`)
}
