import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, type ErrorCode } from '../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import type { Log } from '../base/log.ts'
import type { FindOptions, ResolvedRootfs } from '../model/image.ts'
import type { ByteProgress } from '../model/progress.ts'

/** Members that are asked for one image before this host imports it itself. */
const maxAsked = 5

/** The region, as this file needs it. */
export interface StewardsRegion {
  readonly peerId: string
  /** Resolves, within seconds, when this host has met its region. */
  whenRegionKnown: (options: { signal: AbortSignal }) => Promise<void>
  /** This host and the others, in the order in which they are responsible for the key. */
  byResponsibility: (key: string) => string[]
  /** @throws timeout, unavailable, invalid */
  askImport: (
    peer: string,
    request: ImageName & { manifestDigest: Digest },
    options: { signal: AbortSignal; onProgress: (progress: ByteProgress) => void; onLayer: (diffId: Digest) => void },
  ) => Promise<{ record: ImageRecord } | { refused: ErrorCode }>
}

export interface StewardsParts {
  region: StewardsRegion
  /** `findImport`: a member that is importing the image with this manifest. */
  objects: { findImport: (manifestDigest: Digest, options: { signal: AbortSignal }) => Promise<string | undefined> }
  /** Whether the peer's word would be accepted for what it imports. */
  accepts: (peer: string) => boolean
  /** Takes what the region knows of a layer, so that it outlives the steward. */
  takeLayer: (layer: WantedLayer, options: { signal: AbortSignal }) => Promise<void>
  log: Log
}

/** What is asked for: an image that is in a registry, as the registry describes it now. */
export interface WantedImage extends ImageName {
  manifestDigest: Digest
  layers: readonly WantedLayer[]
}

export interface WantedLayer {
  digest: Digest
  diffId: Digest
}

/**
 * Has an image that nobody in the region knows imported once for the whole region: by the one that is at it, or by the
 * image's steward, which all hosts agree on; the next in rank where one is lost or refuses.
 */
export class Stewards {
  readonly #parts: StewardsParts

  constructor(parts: StewardsParts) {
    this.#parts = parts
  }

  /**
   * @param accept makes of a steward's record what this host believes; undefined where it does not
   * @returns undefined where this host is to import the image itself
   * @throws the signal's reason; nothing else
   */
  async ask(
    image: WantedImage,
    { signal, onProgress }: FindOptions,
    accept: (record: ImageRecord, peer: string, signal: AbortSignal) => Promise<ResolvedRootfs | undefined>,
  ): Promise<ResolvedRootfs | undefined> {
    const { region, log } = this.#parts
    await region.whenRegionKnown({ signal })
    const asked = new Set<string>()
    while (asked.size < maxAsked) {
      const peer = await this.#next(image, asked, signal)
      if (peer === region.peerId) return undefined
      asked.add(peer)
      const about = { image: image.reference, manifest: image.manifestDigest, peer }
      log.info('image is imported for this host by its steward', about)
      try {
        const outcome = await this.#askOne(peer, image, { signal, onProgress })
        const known = 'record' in outcome ? await accept(outcome.record, peer, signal) : undefined
        if (known !== undefined) return known
        const code = 'refused' in outcome ? outcome.refused : 'invalid'
        log.info('steward does not import the image', { ...about, code })
        // The image itself is malformed, it says: one more look at it is enough.
        if ('refused' in outcome && code === 'invalid') return undefined
      } catch (error) {
        signal.throwIfAborted()
        if (!isP2pfsError(error)) throw error
        log.info('steward is lost', { ...about, error })
      }
    }
    return undefined
  }

  /** Looked up anew for each: others may have lost the last one sooner, and gone on to one that this host ranks otherwise. */
  async #next(image: WantedImage, asked: ReadonlySet<string>, signal: AbortSignal): Promise<string> {
    const { region, objects, accepts } = this.#parts
    const running = await objects.findImport(image.manifestDigest, { signal })
    const order = [...(running === undefined ? [] : [running]), ...region.byResponsibility(image.manifestDigest)]
    return order.find((id) => id === region.peerId || (!asked.has(id) && accepts(id))) ?? region.peerId
  }

  async #askOne(
    peer: string,
    { layers, ...request }: WantedImage,
    { signal, onProgress }: FindOptions,
  ): Promise<{ record: ImageRecord } | { refused: ErrorCode }> {
    const { region, takeLayer, log } = this.#parts
    const over = new AbortController()
    const either = AbortSignal.any([signal, over.signal])
    const taken = new Set<Digest>()
    // One at a time; what the image does not have, or has been told of before, is not taken.
    let taking = Promise.resolve()
    const onLayer = (diffId: Digest): void => {
      const layer = layers.find((one) => one.diffId === diffId)
      if (layer === undefined || taken.has(diffId)) return
      taken.add(diffId)
      taking = taking
        .then(async () => (either.aborted ? undefined : await takeLayer(layer, { signal: either })))
        .catch((error: unknown) =>
          log.debug('layer that the steward has read cannot be taken', { error, layer: diffId, peer }),
        )
    }
    try {
      return await region.askImport(peer, request, {
        signal,
        onLayer,
        onProgress: (progress) => onProgress?.(progress),
      })
    } finally {
      over.abort()
      await taking
    }
  }
}
