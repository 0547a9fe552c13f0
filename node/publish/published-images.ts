import type { BlobMap } from '../../protocol/blob-map.ts'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import type { Publication } from '../../protocol/publication.ts'
import type { RootfsFormat, RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { isAnswer } from '../base/answers.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { Log } from '../base/log.ts'
import {
  layersOf,
  type ByteRange,
  type ImageSource,
  type ReadRangeOptions,
  type ResolvedImage,
} from '../registry/image-source.ts'
import { parseReference, type Reference } from '../registry/reference.ts'
import { SingleFlight } from '../base/single-flight.ts'
import { descriptorOf, type Candidate } from './artifact.ts'
import type { IndexTrust } from './index-trust.ts'
import { PublicationReader } from './publication-reader.ts'

/** Takes chunks until it is told what becomes of them. */
interface Intake {
  put: (digest: Digest, bytes: Uint8Array) => Promise<void>
  commit: () => void
  rollback: () => Promise<void>
}

export interface PublishedImagesParts {
  catalog: {
    publication: (manifestDigest: Digest, format: RootfsFormat) => Promise<Publication | undefined>
    putPublication: (publication: Publication) => Promise<void>
    blobMap: (digest: Digest) => Promise<BlobMap | undefined>
  }
  registry: Pick<ImageSource, 'referrers' | 'manifest' | 'openLayer' | 'range'>
  trust: Pick<IndexTrust, 'acceptsPublished'>
  ledger: { begin: () => Intake }
  putBlobMap: (map: BlobMap) => Promise<void>
  /** Takes the boot profile of a publication, as it is there. */
  onProfile: (bytes: Uint8Array) => void
  /** Of the rootfs that these layers make; nothing of it is kept. @throws as an import */
  rootfsOf: (layers: readonly LayerIndex[], manifest: RootfsManifest) => Promise<Digest>
  rootfs: (digest: Digest) => Promise<RootfsManifest | undefined>
  now: () => number
  log: Log
}

/** Publications of an image that are tried, of those that are accepted. */
const maxTried = 3
/** A registry that has said that an image has no publication is asked again after this (ms). */
const absentMs = 10 * 60_000
/** A registry that has not answered is asked again after this (ms): reads that wait come again every second. */
const unansweredMs = 2_000
/** Images of which such an answer, or that there was none, is remembered. */
const maxRemembered = 1024
/** Reading small blobs of a publication for a read that waits may take so long, milliseconds. */
const lateTimeoutMs = 15_000
/** Chunks on their way to the disk. */
const putsAtOnce = 8

/**
 * What registries have of images besides their layers. A host starts from it alone: rootfs manifest, metadata region, blob
 * maps; and comes back for what it lacks later: windows, metadata, layer indexes. What is wrong is passed over, with a warning.
 */
export class PublishedImages {
  readonly #parts: PublishedImagesParts
  readonly #reader: PublicationReader
  readonly #finding = new SingleFlight<Publication | undefined>()
  /** Images that have no publication. */
  readonly #absent: ExpiringMap<string>
  /** Images of which the registry did not say what is published, and why. */
  readonly #unanswered: ExpiringMap<string, P2pfsError>
  /** What came of it. */
  readonly chunks = { bytes: 0, chunks: 0 }

  constructor(parts: PublishedImagesParts) {
    this.#parts = parts
    this.#reader = new PublicationReader(parts)
    const { now } = parts
    this.#absent = new ExpiringMap({ maxEntries: maxRemembered, now })
    this.#unanswered = new ExpiringMap({ maxEntries: maxRemembered, now })
  }

  /** What is published of an image manifest, whoever made it. @throws timeout; the codes of the transport */
  async list(reference: Reference, manifestDigest: Digest, { signal }: { signal: AbortSignal }): Promise<Candidate[]> {
    return reference.kind === 'local' ? [] : await this.#reader.list(reference, manifestDigest, { signal })
  }

  /** Remembers what this host has published. */
  async remember(publication: Publication): Promise<void> {
    await this.#parts.catalog.putPublication(publication)
    this.#absent.delete(keyOf(publication))
  }

  /**
   * An accepted publication of the image, in this format or else in another one: its metadata is in the store then, its blob
   * maps are in the catalog. Undefined where there is none that is whole; rejects on abort alone.
   */
  async find(
    reference: Reference,
    image: ResolvedImage,
    format: RootfsFormat,
    { signal }: { signal: AbortSignal },
  ): Promise<{ record: ImageRecord; manifest: RootfsManifest } | undefined> {
    const { manifestDigest } = image
    const listed = await this.#listed(reference, manifestDigest, signal)
    // Who has published an image, and again with a boot profile, has done so for the sake of that.
    const found = [
      ...listed.filter(({ profile }) => profile !== undefined),
      ...listed.filter(({ profile }) => profile === undefined),
    ]
    const inOrder = [
      ...found.filter((candidate) => candidate.format === format),
      ...found.filter((candidate) => candidate.format !== format),
    ]
    let tried = 0
    for (const candidate of inOrder) {
      if (tried === maxTried) break
      if (!this.#parts.trust.acceptsPublished({ ...candidate, manifestDigest }, candidate.attestation, image.reference))
        continue
      tried++
      const manifest = await this.#take(reference, image, candidate, signal)
      if (manifest === undefined) continue
      const { format: published, rootfsDigest, attestation } = candidate
      const { platform, manifest: json } = image
      return {
        record: {
          reference: image.reference,
          platform,
          format: published,
          manifestDigest,
          manifest: json,
          rootfsDigest,
          attestation,
        },
        manifest,
      }
    }
    return undefined
  }

  /**
   * The publication of an image that this host knows, for what it lacks of it: asked for once, and a no is remembered.
   * @returns undefined where the registry says that there is none of use
   * @throws unavailable where the registry does not say
   */
  async of(record: ImageRecord): Promise<Publication | undefined> {
    const { catalog, log } = this.#parts
    const reference = parseReference(record.reference)
    if (reference.kind === 'local') return undefined
    const known = await catalog.publication(record.manifestDigest, record.format)
    if (known?.rootfsDigest === record.rootfsDigest) return known
    const key = keyOf(record)
    if (this.#absent.has(key)) return undefined
    const unanswered = this.#unanswered.get(key)
    if (unanswered !== undefined) throw unanswered
    const { reference: image } = record
    return await this.#finding
      .run(key, AbortSignal.timeout(lateTimeoutMs), async (signal) => await this.#findLate(reference, record, signal))
      // The flight is given up when its time is over.
      .catch((cause: unknown) => {
        log.warn('registry does not say what is published of an image', { error: cause, image })
        const why = (cause as Error).message
        const error = new P2pfsError('unavailable', `the registry does not say what is published of ${image}: ${why}`, {
          cause,
        })
        this.#unanswered.set(key, error, unansweredMs)
        throw error
      })
  }

  /**
   * How to read the window region `table` of a blob of the image.
   * @returns undefined where no publication has that region; what is returned throws the codes of the transport
   * @throws as {@link of}
   */
  async windows(
    record: ImageRecord,
    { blob, table }: { blob: Digest; table: Digest },
  ): Promise<((range: ByteRange, options: ReadRangeOptions) => Promise<Uint8Array>) | undefined> {
    const publication = await this.of(record)
    const region = publication?.windowRegions.find((one) => one.blob === blob && one.table === table)
    if (publication?.windows === undefined || region === undefined) return undefined
    const [reference, blobOfAll] = [parseReference(publication.reference), descriptorOf(publication.windows)]
    return async ({ start, end }, options) =>
      await this.#parts.registry.range(
        reference,
        blobOfAll,
        { start: region.offset + start, end: region.offset + end },
        options,
      )
  }

  /**
   * Passes the metadata segment of a known rootfs to the sink.
   * @returns false where no publication has it as it should be
   * @throws as {@link of}; the codes of the transport where a publication cannot be read now
   */
  async metadata(
    record: ImageRecord,
    { metadata }: RootfsManifest,
    sink: Pick<Intake, 'put'>,
    { signal }: { signal: AbortSignal },
  ): Promise<boolean> {
    const publication = await this.of(record)
    if (publication === undefined) return false
    try {
      for await (const { digest, bytes } of this.#reader.metadata(
        parseReference(publication.reference),
        publication,
        metadata,
        { signal },
      ))
        await sink.put(digest, bytes)
      return true
    } catch (error) {
      if (!isAnswer(error)) throw error
      this.#passOver(error, record.reference, publication.artifact, signal)
      return false
    }
  }

  /**
   * The layer indexes of a known rootfs, by diff id, which make it: what of them no file of the image shows cannot be known,
   * so they are for this image only. @returns undefined where no publication delivers them
   */
  async layerIndexes(
    record: ImageRecord,
    { signal }: { signal: AbortSignal },
  ): Promise<ReadonlyMap<Digest, LayerIndex> | undefined> {
    // Layers can be read instead: an import does not wait.
    const publication = await this.of(record).catch(() => undefined)
    const manifest = await this.#parts.rootfs(record.rootfsDigest)
    if (publication === undefined || manifest === undefined || publication.layerIndexes.length === 0) return undefined
    const reference = parseReference(publication.reference)
    try {
      const indexes = new Map<Digest, LayerIndex>()
      for (const blob of publication.layerIndexes) {
        const index = await this.#reader.layerIndex(reference, blob, { signal })
        indexes.set(index.diffId, index)
      }
      const layers = manifest.layers.map(({ diffId }) => indexes.get(diffId))
      const whole =
        layers.every((layer) => layer !== undefined) &&
        (await this.#parts.rootfsOf(layers, manifest)) === record.rootfsDigest
      if (!whole) throw new P2pfsError('invalid', 'published layer indexes make another rootfs')
      return indexes
    } catch (error) {
      this.#passOver(error, record.reference, publication.artifact, signal)
      return undefined
    }
  }

  /** What there is of publications; none where the registry does not say. */
  async #listed(reference: Reference, manifestDigest: Digest, signal: AbortSignal): Promise<Candidate[]> {
    try {
      return await this.list(reference, manifestDigest, { signal })
    } catch (error) {
      signal.throwIfAborted()
      this.#parts.log.warn('registry does not say what is published of an image', { error, digest: manifestDigest })
      return []
    }
  }

  /** All of a publication that a cold start needs. Undefined where it is not what it should be, or does not come. */
  async #take(
    reference: Reference,
    image: ResolvedImage,
    candidate: Candidate,
    signal: AbortSignal,
  ): Promise<RootfsManifest | undefined> {
    const intake = this.#parts.ledger.begin()
    try {
      const { publication, index, metadata } = await this.#reader.read(reference, image.manifestDigest, candidate, {
        signal,
        withMetadata: true,
      })
      const { manifest } = index
      const isImage =
        manifest.config === image.config &&
        manifest.layers.length === image.layers.length &&
        manifest.layers.every(({ diffId }, i) => diffId === image.layers[i]!.diffId)
      if (!isImage) throw new P2pfsError('invalid', 'publication: its rootfs is of another image')
      await this.#putAll(metadata(), async (digest, bytes) => await intake.put(digest, bytes))
      await this.#keepMaps(image, index.maps)
      if (index.profile !== undefined) this.#parts.onProfile(index.profile)
      await this.remember(publication)
      intake.commit()
      return manifest
    } catch (error) {
      await intake.rollback()
      this.#passOver(error, image.reference, candidate.descriptor.digest, signal)
      return undefined
    }
  }

  async #putAll(chunks: AsyncIterable<{ digest: Digest; bytes: Uint8Array }>, put: Intake['put']): Promise<void> {
    const putting = new Set<Promise<void>>()
    const failures: unknown[] = []
    for await (const { digest, bytes } of chunks) {
      const one = put(digest, bytes)
        .catch((error: unknown) => void failures.push(error))
        .finally(() => putting.delete(one))
      putting.add(one)
      this.chunks.bytes += bytes.length
      this.chunks.chunks++
      if (putting.size === putsAtOnce) await Promise.race(putting)
      if (failures.length > 0) break
    }
    await Promise.all(putting)
    if (failures.length > 0) throw failures[0]
  }

  /** Maps of the image's own blobs. What is read by them is checked; one that is here is as good. */
  async #keepMaps({ layers }: Pick<ResolvedImage, 'layers'>, maps: readonly { map: BlobMap }[]): Promise<void> {
    for (const { map } of maps) {
      const isOfImage = layers.some(
        ({ digest, diffId, sizeBytes }) =>
          map.digest === digest && map.diffId === diffId && map.sizeBytes === sizeBytes,
      )
      if (isOfImage && (await this.#parts.catalog.blobMap(map.digest)) === undefined) await this.#parts.putBlobMap(map)
    }
  }

  /** The rootfs is known, so that all there is can be checked against it: whose publication it is does not matter. */
  async #findLate(reference: Reference, record: ImageRecord, signal: AbortSignal): Promise<Publication | undefined> {
    const { manifestDigest, format, rootfsDigest } = record
    const listed = (await this.list(reference, manifestDigest, { signal })).filter(
      (candidate) => candidate.format === format && candidate.rootfsDigest === rootfsDigest,
    )
    const ofMaker = listed.filter(({ attestation }) => attestation.key === record.attestation.key)
    for (const candidate of new Set([...ofMaker, ...listed].slice(0, maxTried))) {
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
        this.#passOver(error, record.reference, candidate.descriptor.digest, signal)
      }
    }
    this.#absent.set(keyOf(record), true, absentMs)
    return undefined
  }

  #passOver(error: unknown, image: string, artifact: Digest, signal: AbortSignal): void {
    signal.throwIfAborted()
    this.#parts.log.warn('publication is passed over', { error, image, artifact })
  }
}

const keyOf = ({ manifestDigest, format }: Pick<Publication, 'manifestDigest' | 'format'>): string =>
  `${format} ${manifestDigest}`
