import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { maxSharedBlobBytes } from '../../../protocol/messages/object.ts'
import type { Log } from '../../base/log.ts'
import { orAbort } from '../../base/single-flight.ts'
import { Urgency } from '../../base/urgency.ts'
import type { ContentSharing, SharedAnswer } from '../../model/content-sharing.ts'
import type { Membership } from '../membership.ts'
import type { SpanStewards } from '../spans/span-stewards.ts'
import { firstSignMs } from './answer-pace.ts'
import type { RegionObjects } from './region-objects.ts'

/** A blob that was read is kept for others for so long (ms): hosts that start together ask within it. A steward forgets it, too. */
const keepMs = 60_000
/** The answer of a registry is kept for so long (ms): a publication that is new is to be found soon. */
const keepAnswersMs = 10_000
/** The bytes that are kept in all: the oldest go first. */
const maxKeptBytes = 64 * 1024 * 1024
/** To read more than this (bytes) twice costs the registry more than waiting costs a host. */
const smallBytes = 64 * 1024
/**
 * How long a steward has at least, and how long the member that reads may take (ms); then this host reads it, too. A steward that
 * is short of a core is passed over by all who ask it at once, and each would read: so for what is large it has the time after
 * which any member counts as silent.
 */
const patience = {
  small: { stewardMs: 0, readerMs: firstSignMs },
  large: { stewardMs: firstSignMs, readerMs: 3_000 },
} as const
/** Members that are tried for one piece. */
const maxTried = 2
/** Longest answer of a registry that is taken from members (bytes): a list of thousands of publications. */
const maxAnswerBytes = 1024 * 1024

/** Small content that a digest names; or what a registry says, which nothing proves. */
interface Wanted {
  key: Digest
  /** Undefined for what a registry says. */
  sizeBytes: number | undefined
}

interface Read {
  /** Nobody need take them. */
  bytes: Promise<Uint8Array>
  sizeBytes: number
  atMs: number
  lifeMs: number
}

export interface SharedBlobsParts {
  spans: Pick<SpanStewards, 'ask' | 'namedPlaceOf'>
  membership: Pick<Membership, 'reach'>
  region: Pick<RegionObjects, 'fetchBlob'>
  log: Log
  /** The clock (ms). */
  now?: () => number
}

/**
 * Reads blobs of publications, manifests and configs of images, and lists of publications once for the region: a steward says
 * who reads each from the registry, as for a span of a layer, and all others get it from that member, or from one that got it
 * before. A host that is alone reads at once.
 */
export class SharedBlobs implements ContentSharing {
  readonly #parts: SharedBlobsParts
  readonly #now: () => number
  /** Those that were read, or are being read, the oldest first. */
  readonly #reads = new Map<Digest, Read>()

  constructor(parts: SharedBlobsParts) {
    this.#parts = parts
    this.#now = parts.now ?? (() => performance.now())
  }

  /** The blob or answer that this host has read lately, or reads now; undefined where it does neither. */
  find(key: Digest): Promise<Uint8Array> | undefined {
    return this.#known(key)?.bytes
  }

  /** See {@link ContentSharing.get}. */
  async get(
    { digest, sizeBytes }: { digest: Digest; sizeBytes: number },
    read: (signal: AbortSignal) => Promise<Uint8Array>,
    { signal }: { signal: AbortSignal },
  ): Promise<Uint8Array> {
    if (sizeBytes > maxSharedBlobBytes) return await read(signal)
    return (await this.#share({ key: digest, sizeBytes }, read, signal)).bytes
  }

  /** See {@link ContentSharing.ask}. */
  async ask(
    key: Digest,
    read: (signal: AbortSignal) => Promise<Uint8Array>,
    { signal }: { signal: AbortSignal },
  ): Promise<SharedAnswer> {
    return await this.#share({ key, sizeBytes: undefined }, read, signal)
  }

  async #share(
    wanted: Wanted,
    read: (signal: AbortSignal) => Promise<Uint8Array>,
    signal: AbortSignal,
  ): Promise<SharedAnswer> {
    const { key, sizeBytes } = wanted
    const known = this.#known(key)
    if (known !== undefined) {
      // The caller that reads it may give up, or fail.
      const bytes = await orAbort(
        known.bytes.catch(() => undefined),
        signal,
      )
      if (bytes !== undefined && fits(bytes, wanted)) return { bytes, isFirsthand: false }
    }
    const answer = this.#obtain(wanted, read, signal)
    const bytes = answer.then(({ bytes }) => bytes)
    bytes.catch(() => undefined)
    const lifeMs = sizeBytes === undefined ? keepAnswersMs : keepMs
    const entry = { bytes, sizeBytes: sizeBytes ?? 0, atMs: this.#now(), lifeMs }
    this.#reads.set(key, entry)
    try {
      entry.sizeBytes = sizeBytes ?? (await bytes).length
      return await answer
    } catch (error) {
      if (this.#reads.get(key) === entry) this.#reads.delete(key)
      throw error
    }
  }

  async #obtain(
    wanted: Wanted,
    read: (signal: AbortSignal) => Promise<Uint8Array>,
    signal: AbortSignal,
  ): Promise<SharedAnswer> {
    const { spans, membership, region, log } = this.#parts
    const { key, sizeBytes = 0 } = wanted
    const { stewardMs, readerMs } = sizeBytes > smallBytes ? patience.large : patience.small
    for (let tried = 0; tried < maxTried; tried++) {
      if (tried > 0 || spans.namedPlaceOf(key, 0) === undefined)
        await orAbort(spans.ask(key, 0, { urgency: new Urgency(true), leastMs: stewardMs }), signal)
      // One that is not connected, or was silent a moment ago, is no reason to read what it reads: it is reached, or another is asked for.
      const member = spans.namedPlaceOf(key, 0)?.member
      if (member === undefined) break
      try {
        const bounded = AbortSignal.any([signal, AbortSignal.timeout(readerMs)])
        const { standing } = await membership.reach(member, { signal: bounded })
        if (standing.isSilent) continue
        const isNamedByDigest = wanted.sizeBytes !== undefined
        const bytes = await region.fetchBlob(key, member, { signal: bounded, isNamedByDigest })
        // A size that is wrong in what names the content is for the registry's client to say.
        if (bytes !== undefined && fits(bytes, wanted)) return { bytes, isFirsthand: false }
        if (bytes !== undefined) break
      } catch (error) {
        signal.throwIfAborted()
        if (!isP2pfsError(error) && !(error instanceof DOMException)) throw error
        log.debug('member does not read for this host', { error, peer: member, key })
      }
    }
    return { bytes: await read(signal), isFirsthand: true }
  }

  #known(key: Digest): Read | undefined {
    this.#forgetOld()
    const read = this.#reads.get(key)
    return read !== undefined && this.#now() - read.atMs < read.lifeMs ? read : undefined
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

function fits({ length }: Uint8Array, { sizeBytes }: Wanted): boolean {
  return sizeBytes === undefined ? length <= maxAnswerBytes : length === sizeBytes
}
