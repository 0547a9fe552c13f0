import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, type ErrorCode } from '../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { Log } from '../base/log.ts'
import type { Fetcher } from '../fetch/fetcher.ts'
import type { LayerIndexes } from '../layers/layer-indexes.ts'
import type { LayerRanges } from '../layers/layer-ranges.ts'
import type { FindOptions, FoundRootfs } from '../model/image.ts'
import { progressFrom } from '../model/progress.ts'
import type { ImportClient } from '../peers/import/client.ts'
import type { Membership } from '../peers/membership.ts'
import type { RegionObjects } from '../peers/object/region-objects.ts'
import type { IndexTrust } from '../publish/index-trust.ts'
import { parseReference } from '../registry/reference.ts'
import { registryOf } from './decisions.ts'

/** Members that are asked for one image before this host imports it itself. */
const maxAsked = 5
/**
 * A registry that all of them have refused to import from is not asked for again for so long (ms): each image of it would
 * cost as many round trips.
 */
const refusedMs = 5 * 60_000
/** A refusal that takes longer ends an import that others have waited for, too (ms). */
const promptMs = 1_000
/** Registries of which that is remembered. */
const maxRefused = 256

export interface StewardsParts {
  /** This host. */
  peerId: string
  membership: Pick<Membership, 'whenRegionKnown' | 'byResponsibility'>
  imports: Pick<ImportClient, 'askImport'>
  objects: Pick<RegionObjects, 'findImport'>
  trust: Pick<IndexTrust, 'accepts'>
  indexes: Pick<LayerIndexes, 'find'>
  ranges: Pick<LayerRanges, 'take'>
  fetcher: Pick<Fetcher, 'fetchChunk'>
  log: Log
}

/** An image that is in a registry, as the registry describes it now. */
export interface WantedImage extends ImageName {
  manifestDigest: Digest
  layers: readonly WantedLayer[]
}

export interface WantedLayer {
  digest: Digest
  diffId: Digest
}

/** A steward's answer: the record of the image that it has imported, or why it has not. */
type StewardAnswer = Awaited<ReturnType<ImportClient['askImport']>>

/**
 * Asks other members to import an image that nobody in the region knows, so that it is imported once for the whole
 * region. A member that is importing the image already comes first, then its steward, on which all hosts agree. If that
 * member is lost or refuses, the next one in the steward order is asked.
 */
export class Stewards {
  readonly #parts: StewardsParts
  readonly #now: () => number
  /** Registries that stewards do not import from. */
  readonly #refused: ExpiringMap<string>

  /** @param options `now`: the clock (ms) */
  constructor(parts: StewardsParts, { now = () => performance.now() }: { now?: () => number } = {}) {
    this.#parts = parts
    this.#now = now
    this.#refused = new ExpiringMap({ maxEntries: maxRefused, now })
  }

  /**
   * @param options `isForCaller`: the image was described to a caller with credentials of his own, which nobody else gets. One
   * member that may not read it is enough then, and says nothing of other images of the registry
   * @param accept makes a rootfs of a steward's record; undefined if this host does not believe the record
   * @returns undefined if this host must import the image itself
   * @throws the signal's reason; nothing else
   */
  async ask(
    image: WantedImage,
    { signal, onProgress, isForCaller = false }: FindOptions & { isForCaller?: boolean },
    accept: (record: ImageRecord, peer: string, signal: AbortSignal) => Promise<FoundRootfs | undefined>,
  ): Promise<FoundRootfs | undefined> {
    const { peerId, membership, objects, log } = this.#parts
    const registry = registryOf(parseReference(image.reference))
    if (this.#refused.has(registry)) return undefined
    await membership.whenRegionKnown({ signal })
    const asked = new Set<string>()
    let refusals = 0
    const findImport = async (): Promise<string | undefined> =>
      await objects.findImport(image.manifestDigest, { signal })
    let importing = await findImport()
    while (asked.size < maxAsked) {
      const peer = this.#nextMember(image, asked, importing)
      if (peer === peerId) return undefined
      asked.add(peer)
      const askedAtMs = this.#now()
      const fields = { image: image.reference, manifest: image.manifestDigest, peer }
      log.info('steward is asked to import the image', fields)
      try {
        const answer = await this.#askMember(peer, image, { signal, onProgress })
        const rootfs = 'record' in answer ? await accept(answer.record, peer, signal) : undefined
        if (rootfs !== undefined) return rootfs
        const code: ErrorCode = 'refused' in answer ? answer.refused : 'invalid'
        if (code === 'denied') refusals++
        log.info('steward does not import the image', { ...fields, code })
        // The steward finds the image malformed: this host checks that itself, and other members need not.
        if ('refused' in answer && code === 'invalid') return undefined
        if (isForCaller && code === 'denied') return undefined
        // A steward that refuses at once costs a round trip, and not a question to the whole region.
        if (this.#now() - askedAtMs > promptMs) importing = await findImport()
      } catch (error) {
        signal.throwIfAborted()
        if (!isP2pfsError(error)) throw error
        log.info('steward is lost', { ...fields, error })
        // Others may have noticed sooner, and may have moved on to a member that this host ranks differently.
        importing = await findImport()
      }
    }
    if (refusals === maxAsked) this.#refused.set(registry, true, refusedMs)
    return undefined
  }

  /**
   * This host is about to import the image with credentials of a caller, which no steward has. Where a member imports it for
   * a caller of its own, that one is waited for: of two that ask each other the first in the steward order imports.
   * @returns undefined if this host must import the image itself
   * @throws the signal's reason; nothing else
   */
  async askImporting(
    image: WantedImage,
    { signal, onProgress }: FindOptions,
    accept: (record: ImageRecord, peer: string, signal: AbortSignal) => Promise<FoundRootfs | undefined>,
  ): Promise<FoundRootfs | undefined> {
    const { peerId, objects, trust, log } = this.#parts
    const peer = await objects.findImport(image.manifestDigest, { signal })
    if (peer === undefined || peer === peerId || !trust.accepts(peer)) return undefined
    try {
      const answer = await this.#askMember(peer, image, { signal, onProgress })
      return 'record' in answer ? await accept(answer.record, peer, signal) : undefined
    } catch (error) {
      signal.throwIfAborted()
      if (!isP2pfsError(error)) throw error
      log.info('member that imports the image for a caller is lost', { error, image: image.reference, peer })
      return undefined
    }
  }

  /** The member to ask next. @param importing the member that is importing the image, as the region said last */
  #nextMember(image: WantedImage, asked: ReadonlySet<string>, importing: string | undefined): string {
    const { peerId, membership, trust } = this.#parts
    const stewards = membership.byResponsibility(image.manifestDigest)
    const candidates = importing === undefined ? stewards : [importing, ...stewards]
    return candidates.find((id) => id === peerId || (!asked.has(id) && trust.accepts(id))) ?? peerId
  }

  async #askMember(
    peer: string,
    { layers, ...request }: WantedImage,
    { signal, onProgress }: FindOptions,
  ): Promise<StewardAnswer> {
    const { imports, log } = this.#parts
    const ended = new AbortController()
    const takeSignal = AbortSignal.any([signal, ended.signal])
    const taken = new Set<Digest>()
    // Layers are taken one after the other, each once. Layers of other images are ignored.
    let taking = Promise.resolve()
    const onLayer = (diffId: Digest): void => {
      const layer = layers.find((candidate) => candidate.diffId === diffId)
      if (layer === undefined || taken.has(diffId)) return
      taken.add(diffId)
      taking = taking
        .then(async () => (takeSignal.aborted ? undefined : await this.#takeLayer(layer, takeSignal)))
        .catch((error: unknown) =>
          log.debug('layer that the steward has imported cannot be copied', { error, layer: diffId, peer }),
        )
    }
    try {
      return await imports.askImport(peer, request, {
        signal,
        onLayer,
        onProgress: (progress) => onProgress?.(progressFrom('peer', progress)),
      })
    } finally {
      ended.abort()
      await taking
    }
  }

  /** Copies what the region knows of a layer to this host, so that it outlives the steward. */
  async #takeLayer({ digest, diffId }: WantedLayer, signal: AbortSignal): Promise<void> {
    const { indexes, ranges, fetcher } = this.#parts
    if ((await indexes.find(diffId, { signal })) === undefined) return
    await ranges.take(digest, { signal, fetchChunk: fetcher.fetchChunk })
  }
}
