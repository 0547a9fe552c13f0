import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { maxSharedBlobBytes } from '../../../protocol/messages/object.ts'
import type { PublishedBlob } from '../../../protocol/publication.ts'
import type { Log } from '../../base/log.ts'
import { orAbort } from '../../base/single-flight.ts'
import { Urgency } from '../../base/urgency.ts'
import type { RegionObjects } from './region-objects.ts'
import type { SpanStewards } from '../spans/span-stewards.ts'

/** Blobs are kept for others for so long (ms): hosts that start together ask within it. A steward forgets them, too. */
const keepMs = 60_000
/** Blobs that are kept, together (bytes): the oldest go first. */
const maxKeptBytes = 64 * 1024 * 1024
/** A steward has at least this time (ms): to read a blob twice costs the registry more than to wait. */
const stewardMs = 250
/** A member that reads a blob may take so long (ms); then this host reads it, too. */
const readerMs = 3_000
/** Members that are asked for one blob. */
const maxAsked = 2

interface Read {
  blob: Promise<Uint8Array>
  sizeBytes: number
  atMs: number
}

export interface SharedBlobsParts {
  spans: Pick<SpanStewards, 'ask' | 'placeOf'>
  region: Pick<RegionObjects, 'fetchBlob'>
  log: Log
  /** The clock (ms). */
  now?: () => number
}

/**
 * Reads blobs of publications once for the region: a steward says who reads each from the registry, as for a span of a
 * layer, and all others get it from that member, or from one that got it before. A host that is alone reads at once.
 */
export class SharedBlobs {
  readonly #parts: SharedBlobsParts
  readonly #now: () => number
  /** Those that were read, or are being read, the oldest first. */
  readonly #reads = new Map<Digest, Read>()

  constructor(parts: SharedBlobsParts) {
    this.#parts = parts
    this.#now = parts.now ?? (() => performance.now())
  }

  /** A blob that this host has read lately, or reads now; undefined where it does neither. */
  find(digest: Digest): Promise<Uint8Array> | undefined {
    this.#forgetOld()
    return this.#reads.get(digest)?.blob
  }

  /**
   * @param read reads it from the registry
   * @throws what `read` throws; the signal's reason
   */
  async get(
    { digest, sizeBytes }: PublishedBlob,
    read: (signal: AbortSignal) => Promise<Uint8Array>,
    { signal }: { signal: AbortSignal },
  ): Promise<Uint8Array> {
    if (sizeBytes > maxSharedBlobBytes) return await read(signal)
    const known = this.find(digest)
    if (known !== undefined) {
      // The caller that reads it may give up, or fail.
      const blob = await orAbort(
        known.catch(() => undefined),
        signal,
      )
      if (blob?.length === sizeBytes) return blob
    }
    const blob = this.#obtain({ digest, sizeBytes }, read, signal)
    const entry = { blob, sizeBytes, atMs: this.#now() }
    this.#reads.set(digest, entry)
    try {
      return await blob
    } catch (error) {
      if (this.#reads.get(digest) === entry) this.#reads.delete(digest)
      throw error
    }
  }

  async #obtain(
    { digest, sizeBytes }: PublishedBlob,
    read: (signal: AbortSignal) => Promise<Uint8Array>,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const { spans, region, log } = this.#parts
    for (let asked = 0; asked < maxAsked; asked++) {
      await orAbort(spans.ask(digest, 0, { urgency: new Urgency(true), leastMs: stewardMs }), signal)
      const member = spans.placeOf(digest, 0)?.member
      if (member === undefined) break
      try {
        const bounded = AbortSignal.any([signal, AbortSignal.timeout(readerMs)])
        const blob = await region.fetchBlob(digest, member, { signal: bounded })
        // A size that is wrong in what names the blob is for the registry's client to say.
        if (blob?.length === sizeBytes) return blob
        if (blob !== undefined) break
      } catch (error) {
        signal.throwIfAborted()
        if (!isP2pfsError(error) && !(error instanceof DOMException)) throw error
        log.debug('member does not read a blob for this host', { error, peer: member, digest })
      }
    }
    return await read(signal)
  }

  #forgetOld(): void {
    let keptBytes = 0
    for (const { sizeBytes } of this.#reads.values()) keptBytes += sizeBytes
    for (const [digest, { sizeBytes, atMs }] of this.#reads) {
      if (keptBytes <= maxKeptBytes && this.#now() - atMs < keepMs) break
      this.#reads.delete(digest)
      keptBytes -= sizeBytes
    }
  }
}
