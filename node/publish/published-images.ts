import type { Attestation, Statement } from '../../protocol/attestation.ts'
import type { BlobMap } from '../../protocol/blob-map.ts'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import type { Publication } from '../../protocol/publication.ts'
import { isAnswer } from '../base/answers.ts'
import { rootfsDigest, rootfsFormats, type RootfsFormat, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { Log } from '../base/log.ts'
import { SingleFlight } from '../base/single-flight.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'
import type { IndexBelief } from '../model/belief.ts'
import type { ContentSharing } from '../model/content-sharing.ts'
import { isRootfsOf, type UnsignedRecord } from '../model/image.ts'
import {
  layersOf,
  type ByteRange,
  type ImageSource,
  type ReadRangeOptions,
  type ResolvedImage,
} from '../registry/image-source.ts'
import { parseReference, type Reference } from '../registry/reference.ts'
import { buildRootfs } from '../rootfs/rootfs-build.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ImportTransactions } from '../store/import-transaction.ts'
import { descriptorOf, type Candidate } from './artifact.ts'
import { settle } from './belief.ts'
import type { IndexTrust } from './index-trust.ts'
import { PublicationReader } from './publication-reader.ts'
import type { BlobMaps } from '../store/blob-maps.ts'

export interface PublishedImagesParts {
  catalog: Pick<Catalog, 'publication' | 'putPublication' | 'rootfs'>
  registry: Pick<ImageSource, 'referrers' | 'manifest' | 'openLayer' | 'range'>
  /** See {@link PublicationReader}. */
  sharing?: ContentSharing
  trust: Pick<IndexTrust, 'judgePublished'>
  /** Takes the metadata chunks. */
  transactions: Pick<ImportTransactions, 'begin'>
  blobMaps: Pick<BlobMaps, 'get' | 'put'>
  /** Takes boot profiles, encoded; anybody may have made the bytes. */
  profiles: { addPublished: (bytes: Uint8Array) => void }
  /** Neighbour regions, which are asked before the registry is read. */
  near?: { fetchRootfs: (digest: Digest, options: { signal: AbortSignal }) => Promise<RootfsManifest | undefined> }
  log: Log
}

/** Accepted publications of one image that are tried. */
const maxTried = 3
/** Publications of one image whose signatures are looked at. */
const maxJudged = 256

/** A publication that this host believes: a record whose name nobody has stated, and what it stands on. */
export interface PublishedRootfs {
  record: UnsignedRecord & { attestation: Attestation }
  manifest: RootfsManifest
  belief: IndexBelief
}

/** A registry that has said that an image has no publication is asked again after this long (ms). */
const absentMs = 10 * 60_000
/** A registry that has not answered is asked again after this long (ms): reads that wait come again every second. */
const unansweredMs = 2_000
/** Images of which such an answer, or that there was none, is remembered. */
const maxRemembered = 1024
/** Time limit for finding the publication of a known image (ms): a read waits for it. */
const findTimeoutMs = 15_000
/** Chunks that are being written to the disk at once. */
const putsAtOnce = 8

/**
 * The publications of images in their registries. A host can start from a publication alone: it has the rootfs
 * manifest, the metadata segment and the blob maps. Later the host reads from it what it lacks: windows, metadata,
 * layer indexes. A publication that is wrong is ignored, with a warning in the log.
 */
export class PublishedImages {
  readonly #parts: PublishedImagesParts
  readonly #reader: PublicationReader
  readonly #finding = new SingleFlight<Publication | undefined>()
  /** Images that have no publication. */
  readonly #absent: ExpiringMap<string>
  /** Images of which the registry did not say what is published, and why. */
  readonly #unanswered: ExpiringMap<string, P2pfsError>
  /** Chunks of metadata that were read from publications. */
  readonly chunks = { bytes: 0, chunks: 0 }

  /** @param options `now`: the clock (ms) */
  constructor(parts: PublishedImagesParts, { now = () => performance.now() }: { now?: () => number } = {}) {
    this.#parts = parts
    this.#reader = new PublicationReader(parts)
    this.#absent = new ExpiringMap({ maxEntries: maxRemembered, now })
    this.#unanswered = new ExpiringMap({ maxEntries: maxRemembered, now })
  }

  /** Remembers a publication that this host has made or read. */
  async remember(publication: Publication): Promise<void> {
    await this.#parts.catalog.putPublication(publication)
    this.#absent.delete(keyOf(publication))
  }

  /**
   * Finds an accepted publication of the image, in this format if there is one, else in another. Its metadata is then
   * in the store, and its blob maps are known.
   * @returns undefined if there is none, or none can be read
   * @throws the signal's reason; nothing else
   */
  async find(
    reference: Reference,
    image: ResolvedImage,
    format: RootfsFormat,
    { signal }: { signal: AbortSignal },
  ): Promise<PublishedRootfs | undefined> {
    for await (const candidates of this.#lists(reference, image, signal)) {
      const found = await this.#findAmong(inTryOrder(candidates, format), reference, image, signal)
      if (found !== undefined) return found
    }
    return undefined
  }

  /** See {@link PublicationReader.lists}; none if the registry does not answer. */
  async *#lists(
    reference: Reference,
    { manifestDigest: digest }: ResolvedImage,
    signal: AbortSignal,
  ): AsyncGenerator<Candidate[]> {
    if (reference.kind === 'local') return
    try {
      yield* this.#reader.lists(reference, digest, { signal })
    } catch (error) {
      signal.throwIfAborted()
      this.#parts.log.warn('registry does not list the publications of an image', { error, digest })
    }
  }

  async #findAmong(
    listed: readonly Candidate[],
    reference: Reference,
    image: ResolvedImage,
    signal: AbortSignal,
  ): Promise<PublishedRootfs | undefined> {
    const { manifestDigest, platform, manifest: json } = image
    for (const { claim, belief } of this.#accepted(listed, image).slice(0, maxTried)) {
      const { candidate, format, rootfsDigest, attestation } = claim
      const manifest = await this.#take(reference, image, candidate, signal)
      if (manifest === undefined) continue
      const record = {
        reference: image.reference,
        platform,
        format,
        manifestDigest,
        manifest: json,
        rootfsDigest,
        attestation,
      }
      return { record, manifest, belief }
    }
    return undefined
  }

  /** The publications that are believed. Publications of members that contradict each other are not. */
  #accepted(
    candidates: readonly Candidate[],
    { reference: image, manifestDigest }: ResolvedImage,
  ): AcceptedCandidate[] {
    const { trust, log } = this.#parts
    const believed = candidates.slice(0, maxJudged).flatMap((candidate) => {
      const { format, rootfsDigest, attestation } = candidate
      const claim = { manifestDigest, format, rootfsDigest, attestation, candidate }
      const belief = trust.judgePublished(claim, attestation, image)
      return belief === undefined ? [] : [{ claim, belief }]
    })
    const { undisputed, disputes } = settle(believed)
    for (const dispute of disputes)
      log.warn('publications of an image contradict each other; none is believed', {
        image,
        makers: [...new Set(dispute.map(({ attestation }) => attestation.key))],
      })
    return believed.filter(({ claim }) => undisputed.includes(claim))
  }

  /**
   * Finds the publication of an image that this host knows, to read what this host lacks. The registry is asked once,
   * and if it has no publication, that is remembered for a while.
   * @returns undefined where the registry says that there is none of use
   * @throws unavailable where the registry does not say
   */
  async of(record: ImageRecord): Promise<Publication | undefined> {
    const { catalog, log } = this.#parts
    const reference = parseReference(record.reference)
    if (reference.kind === 'local') return undefined
    const stored = await catalog.publication(record.manifestDigest, record.format)
    if (stored?.rootfsDigest === record.rootfsDigest) return stored
    const key = keyOf(record)
    if (this.#absent.has(key)) return undefined
    const unanswered = this.#unanswered.get(key)
    if (unanswered !== undefined) throw unanswered
    try {
      return await this.#finding.run(
        key,
        AbortSignal.timeout(findTimeoutMs),
        async (signal) => await this.#findKnown(reference, record, signal),
      )
    } catch (cause) {
      const image = record.reference
      log.warn('registry does not list the publications of an image', { error: cause, image })
      const message = `the registry does not list the publications of ${image}: ${(cause as Error).message}`
      const error = new P2pfsError('unavailable', message, { cause })
      this.#unanswered.set(key, error, unansweredMs)
      throw error
    }
  }

  /**
   * Prepares reading the window segment `table` of a blob of the image.
   * @returns undefined if no publication has that segment; the returned function throws the codes of the transport
   * @throws as {@link of}
   */
  async windows(
    record: ImageRecord,
    { blob, table }: { blob: Digest; table: Digest },
  ): Promise<((range: ByteRange, options: ReadRangeOptions) => Promise<Uint8Array>) | undefined> {
    // Windows belong to a blob: a publication of the image in another format has the same.
    const formats = [record.format, ...rootfsFormats.filter((format) => format !== record.format)]
    const stored = await Promise.all(
      formats.map(async (format) => await this.#parts.catalog.publication(record.manifestDigest, format)),
    )
    const found = this.#windowsIn(stored, { blob, table }) ?? this.#windowsIn([await this.of(record)], { blob, table })
    if (found === undefined) return undefined
    const { publication, windows, offset } = found
    const reference = parseReference(publication.reference)
    const descriptor = descriptorOf(windows)
    return async ({ start, end }, options) =>
      await this.#parts.registry.range(reference, descriptor, { start: offset + start, end: offset + end }, options)
  }

  /**
   * Passes the metadata segment of a known rootfs to the sink.
   * @returns false if no publication has it as it should be
   * @throws as {@link of}; the codes of the transport where a publication cannot be read now
   */
  async metadata(
    record: ImageRecord,
    { metadata: table }: RootfsManifest,
    sink: ChunkSink,
    { signal }: { signal: AbortSignal },
  ): Promise<boolean> {
    const publication = await this.of(record)
    if (publication === undefined) return false
    const reference = parseReference(publication.reference)
    try {
      for await (const { digest, bytes } of this.#reader.metadata(reference, publication, table, { signal }))
        await sink.put(digest, bytes)
      return true
    } catch (error) {
      if (!isAnswer(error)) throw error
      this.#ignore(error, record.reference, publication.artifact, signal)
      return false
    }
  }

  /**
   * The layer indexes of a known rootfs, by diff id. Together they are proven to make this rootfs. A single index is
   * not: it may be wrong where upper layers of this image hide it, so it must not be used for other images.
   * @returns undefined if no publication delivers them
   */
  async layerIndexes(
    record: ImageRecord,
    { signal }: { signal: AbortSignal },
  ): Promise<ReadonlyMap<Digest, LayerIndex> | undefined> {
    // Layers can be read instead: an import does not wait.
    const publication = await this.of(record).catch(() => undefined)
    const manifest = await this.#parts.catalog.rootfs(record.rootfsDigest)
    if (publication === undefined || manifest === undefined || publication.layerIndexes.length === 0) return undefined
    const reference = parseReference(publication.reference)
    try {
      const indexes = new Map<Digest, LayerIndex>()
      for (const blob of publication.layerIndexes) {
        const index = await this.#reader.layerIndex(reference, blob, { signal })
        indexes.set(index.diffId, index)
      }
      const layers = manifest.layers.map(({ diffId }) => indexes.get(diffId))
      const isProven =
        layers.every((layer) => layer !== undefined) &&
        rootfsDigest(await buildRootfs(layers, manifest, discarding)) === record.rootfsDigest
      if (!isProven) throw new P2pfsError('invalid', 'published layer indexes make another rootfs')
      return indexes
    } catch (error) {
      this.#ignore(error, record.reference, publication.artifact, signal)
      return undefined
    }
  }

  #windowsIn(
    publications: readonly (Publication | undefined)[],
    { blob, table }: { blob: Digest; table: Digest },
  ): { publication: Publication; windows: NonNullable<Publication['windows']>; offset: number } | undefined {
    for (const publication of publications) {
      const segment = publication?.windowSegments.find(
        (candidate) => candidate.blob === blob && candidate.table === table,
      )
      if (publication?.windows !== undefined && segment !== undefined)
        return { publication, windows: publication.windows, offset: segment.offset }
    }
    return undefined
  }

  /** Reads all of a publication that a cold start needs. @returns undefined if it is wrong or cannot be read */
  async #take(
    reference: Reference,
    image: ResolvedImage,
    candidate: Candidate,
    signal: AbortSignal,
  ): Promise<RootfsManifest | undefined> {
    const near = await this.#parts.near?.fetchRootfs(candidate.rootfsDigest, { signal })
    // Its metadata and windows come as chunks; what no neighbour has is read from the publication when it is needed.
    if (near?.format === candidate.format && isRootfsOf(near, image)) return near
    const transaction = this.#parts.transactions.begin()
    try {
      const { publication, index, metadata } = await this.#reader.read(reference, image.manifestDigest, candidate, {
        signal,
        withMetadata: true,
      })
      if (!isRootfsOf(index.manifest, image))
        throw new P2pfsError('invalid', 'publication: its rootfs is of another image')
      await this.#putAll(metadata(), transaction)
      await this.#keepMaps(image, index.maps)
      if (index.profile !== undefined) this.#parts.profiles.addPublished(index.profile)
      await this.remember(publication)
      transaction.commit()
      return index.manifest
    } catch (error) {
      await transaction.rollback()
      this.#ignore(error, image.reference, candidate.descriptor.digest, signal)
      return undefined
    }
  }

  async #putAll(chunks: AsyncIterable<{ digest: Digest; bytes: Uint8Array }>, sink: ChunkSink): Promise<void> {
    const putting = new Set<Promise<void>>()
    const failures: unknown[] = []
    for await (const { digest, bytes } of chunks) {
      const put = sink
        .put(digest, bytes)
        .catch((error: unknown) => void failures.push(error))
        .finally(() => putting.delete(put))
      putting.add(put)
      this.chunks.bytes += bytes.length
      this.chunks.chunks++
      if (putting.size === putsAtOnce) await Promise.race(putting)
      if (failures.length > 0) break
    }
    await Promise.all(putting)
    if (failures.length > 0) throw failures[0]
  }

  /**
   * Keeps maps of the image's own blobs. A wrong map does no harm, for what is read by it is verified; so ours stay.
   */
  async #keepMaps({ layers }: Pick<ResolvedImage, 'layers'>, maps: readonly { map: BlobMap }[]): Promise<void> {
    const { blobMaps } = this.#parts
    for (const { map } of maps) {
      const isOfImage = layers.some(
        ({ digest, diffId, sizeBytes }) =>
          map.digest === digest && map.diffId === diffId && map.sizeBytes === sizeBytes,
      )
      if (isOfImage && (await blobMaps.get(map.digest)) === undefined) await blobMaps.put(map)
    }
  }

  /** Finds a publication of a known rootfs. Its maker does not matter: all parts can be verified against the rootfs. */
  async #findKnown(reference: Reference, record: ImageRecord, signal: AbortSignal): Promise<Publication | undefined> {
    for await (const candidates of this.#reader.lists(reference, record.manifestDigest, { signal })) {
      const found = await this.#findKnownAmong(candidates, reference, record, signal)
      if (found !== undefined) return found
    }
    this.#absent.set(keyOf(record), true, absentMs)
    return undefined
  }

  async #findKnownAmong(
    candidates: readonly Candidate[],
    reference: Reference,
    record: ImageRecord,
    signal: AbortSignal,
  ): Promise<Publication | undefined> {
    const { manifestDigest, format, rootfsDigest } = record
    const listed = candidates.filter(
      (candidate) => candidate.format === format && candidate.rootfsDigest === rootfsDigest,
    )
    const byMaker = listed.filter(({ attestation }) => attestation.key === record.attestation.key)
    for (const candidate of new Set([...byMaker, ...listed].slice(0, maxTried))) {
      try {
        const { publication, index } = await this.#reader.read(reference, manifestDigest, candidate, {
          signal,
          withMetadata: false,
        })
        await this.#keepMaps({ layers: layersOf(record.manifest, index.manifest.config) }, index.maps)
        await this.remember(publication)
        return publication
      } catch (error) {
        if (!isAnswer(error)) throw error
        this.#ignore(error, record.reference, candidate.descriptor.digest, signal)
      }
    }
    return undefined
  }

  #ignore(error: unknown, image: string, artifact: Digest, signal: AbortSignal): void {
    signal.throwIfAborted()
    this.#parts.log.warn('publication is ignored', { error, image, artifact })
  }
}

type AcceptedCandidate = {
  claim: Statement & { attestation: Attestation; candidate: Candidate }
  belief: IndexBelief
}

const discarding: ChunkSink = { put: async () => undefined }

/**
 * The order in which publications are tried: those of the wanted format first, and of these the ones with a boot
 * profile, which their makers added by publishing again.
 */
function inTryOrder(candidates: readonly Candidate[], format: RootfsFormat): Candidate[] {
  const rank = ({ format: published, profile }: Candidate): number =>
    (published === format ? 0 : 2) + (profile === undefined ? 1 : 0)
  return candidates.toSorted((a, b) => rank(a) - rank(b))
}

const keyOf = ({ manifestDigest, format }: Pick<Publication, 'manifestDigest' | 'format'>): string =>
  `${format} ${manifestDigest}`
