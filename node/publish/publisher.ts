import type { BlobMap } from '../../protocol/blob-map.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import type { Publication, PublishedBlob } from '../../protocol/publication.ts'
import { encodePublishedIndex, type PublishedMap } from '../../protocol/published-index.ts'
import { encodeRootfsManifest, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ChunkRequest, FetchedChunk, FetchPriority } from '../model/chunk-request.ts'
import type { Log } from '../base/log.ts'
import type { Caller } from '../registry/caller.ts'
import { mediaTypes } from '../registry/image-manifest.ts'
import { layersOf, type ImageSource, type LayerDescriptor } from '../registry/image-source.ts'
import { parseReference, type Reference } from '../registry/reference.ts'
import {
  emptyConfig,
  encodeArtifact,
  maxIndexBlobBytes,
  maxLayerIndexBlobBytes,
  maxMetadataBlobBytes,
} from './artifact.ts'
import { compress, compressChunks } from './compressed.ts'
import { PublicationReader } from './publication-reader.ts'
import type { PublishedImages } from './published-images.ts'

export interface PublisherParts {
  /** Finds the map of a blob of the image, here or in the region. */
  ranges: { blobMap: (digest: Digest, record: ImageRecord) => Promise<BlobMap | undefined> }
  /** Finds the index of a layer, encoded, here or in the region, as far as this host believes it. */
  indexes: { findEncoded: (diffId: Digest, options: { signal: AbortSignal }) => Promise<Uint8Array | undefined> }
  registry: Pick<ImageSource, 'referrers' | 'manifest' | 'openLayer' | 'pushBlob' | 'pushManifest'>
  /** Gets chunks of metadata and windows from wherever they are. */
  fetcher: {
    fetch: (request: ChunkRequest, options: { signal: AbortSignal; priority: FetchPriority }) => Promise<FetchedChunk>
  }
  published: Pick<PublishedImages, 'remember'>
  log: Log
}

export interface PublishOptions {
  signal: AbortSignal
  /** A boot profile, encoded. */
  profile?: Uint8Array
  /** The caller whose credentials it is published with; by default those of this host. */
  caller?: Caller | undefined
  /** `doneBytes`: bytes of the publication that are in the registry. */
  onProgress?: (progress: { doneBytes: number; totalBytes: number }) => void
}

export interface Published {
  /** Digest of the artifact's manifest. */
  digest: Digest
  /** Size of its blobs. */
  sizeBytes: number
  /** Key of the maker, who attests it. */
  key: string
  /** Whether it was in the registry already. */
  existed: boolean
}

/** Windows of one image that are published (bytes): they are held in memory. Layers beyond it are published without. */
const maxWindowsBytes = 256 * 1024 * 1024
/** Chunks that are fetched at once. */
const chunksAhead = 8

/** Publishes what a host needs to start from the registry alone, in the image's own repository. */
export class Publisher {
  readonly #parts: PublisherParts
  readonly #reader: PublicationReader

  constructor(parts: PublisherParts) {
    this.#parts = parts
    this.#reader = new PublicationReader(parts)
  }

  /**
   * Publishes an image with the attestation of its record, whose maker built the rootfs. Nothing happens if the same
   * maker has published the image already, unless there is a boot profile now and was none then.
   * @throws invalid for an image that is in no registry; unsupported for a rootfs whose maker has not read all layers;
   * denied, and the other codes of the registry client
   */
  async publish(
    { record, manifest }: { record: ImageRecord; manifest: RootfsManifest },
    options: PublishOptions,
  ): Promise<Published> {
    const named = parseReference(record.reference)
    const { caller } = options
    const reference = named.kind === 'registry' && caller !== undefined ? { ...named, caller } : named
    if (reference.kind === 'local')
      throw new P2pfsError(
        'invalid',
        `${record.reference} is in no registry, so there is nowhere to publish it; ` +
          `push the image to one, then seed it from there`,
      )
    if (record.attestation.told)
      throw new P2pfsError(
        'unsupported',
        `the rootfs of ${record.reference} was made from layer indexes that peers sent, and is not proved to others; ` +
          `publish it on the host that read the layers, or list keys with --trust-index-key (its own key will do), ` +
          `then seed it again`,
      )
    const profile = options.profile === undefined ? undefined : digestOf(options.profile)
    const existing = await this.#findExisting(reference, record, profile, options.signal)
    if (existing !== undefined) return existing
    return await this.#push(reference, record, manifest, profile, options)
  }

  async #findExisting(
    reference: Reference,
    record: ImageRecord,
    profile: Digest | undefined,
    signal: AbortSignal,
  ): Promise<Published | undefined> {
    const { manifestDigest, format, rootfsDigest, attestation } = record
    const listed = await this.#reader.list(reference, manifestDigest, { signal })
    const existing = listed.find(
      (candidate) =>
        candidate.format === format &&
        candidate.rootfsDigest === rootfsDigest &&
        candidate.attestation.key === attestation.key &&
        (profile === undefined || candidate.profile !== undefined),
    )
    if (existing === undefined) return undefined
    try {
      const { publication } = await this.#reader.read(reference, manifestDigest, existing, {
        signal,
        withMetadata: false,
      })
      await this.#parts.published.remember(publication)
      return { digest: publication.artifact, sizeBytes: sizeOf(publication), key: attestation.key, existed: true }
    } catch (error) {
      signal.throwIfAborted()
      this.#parts.log.warn('publication of the image is not whole; the image is published again', {
        error,
        image: record.reference,
      })
      return undefined
    }
  }

  async #push(
    reference: Reference,
    record: ImageRecord,
    manifest: RootfsManifest,
    profile: Digest | undefined,
    options: PublishOptions,
  ): Promise<Published> {
    const { signal, onProgress } = options
    const { registry } = this.#parts
    const layers = layersOf(record.manifest, manifest.config)
    const { maps, windows } = await this.#readWindows(await this.#findMaps(layers, record), record, signal)
    const index = await compress(
      encodePublishedIndex({ manifest: encodeRootfsManifest(manifest), maps, profile: options.profile }),
    )
    if (index.length > maxIndexBlobBytes)
      throw new P2pfsError(
        'unsupported',
        `the index of ${record.reference} has ${index.length} bytes; readers take ${maxIndexBlobBytes}`,
      )
    const metadata = await compressChunks(this.#readChunks(manifest.metadata, signal), maxMetadataBlobBytes)
    // The index of a layer of a raw image is its chunk table.
    const layerIndexes = manifest.format === 'raw' ? [] : await this.#readLayerIndexes(manifest, record, signal)
    const bytes = [emptyConfig, index, metadata, ...(windows.length === 0 ? [] : [windows]), ...layerIndexes]
    const progress = { doneBytes: 0, totalBytes: bytes.reduce((sum, { length }) => sum + length, 0) }
    const pushed: PublishedBlob[] = []
    for (const blob of bytes) {
      onProgress?.(progress)
      pushed.push(await registry.pushBlob(reference, blob, { signal }))
      progress.doneBytes += blob.length
    }
    onProgress?.(progress)
    const [, indexBlob, metadataBlob, ...rest] = pushed
    const windowsBlob = windows.length === 0 ? undefined : rest.shift()
    const blobs = { index: indexBlob!, metadata: metadataBlob!, windows: windowsBlob, layerIndexes: rest }
    const { format, rootfsDigest, attestation, manifestDigest } = record
    const json = encodeArtifact({ format, rootfsDigest, attestation, profile }, blobs, record.manifest)
    const { digest } = await registry.pushManifest(
      reference,
      digestOf(Buffer.from(json)),
      json,
      mediaTypes.ociManifest,
      { signal },
    )
    const windowSegments =
      windowsBlob === undefined
        ? []
        : maps.flatMap(({ map, windowsOffset: offset }) =>
            offset === undefined ? [] : [{ blob: map.digest, table: map.windows.id, offset }],
          )
    const publication = {
      reference: record.reference,
      manifestDigest,
      format,
      rootfsDigest,
      artifact: digest,
      ...blobs,
      windowSegments,
    }
    await this.#parts.published.remember(publication)
    return { digest, sizeBytes: sizeOf(publication), key: attestation.key, existed: false }
  }

  /** The known maps of the image's blobs, each once. */
  async #findMaps(layers: readonly LayerDescriptor[], record: ImageRecord): Promise<BlobMap[]> {
    const maps = await Promise.all(
      [...new Set(layers.map(({ digest }) => digest))].map(
        async (digest) => await this.#parts.ranges.blobMap(digest, record),
      ),
    )
    return maps.filter((map) => map !== undefined)
  }

  /** Reads all window segments, back to back. Maps whose windows cannot be read are published without them. */
  async #readWindows(
    maps: readonly BlobMap[],
    record: ImageRecord,
    signal: AbortSignal,
  ): Promise<{ maps: PublishedMap[]; windows: Buffer }> {
    let total = 0
    const placed = maps.map((map): PublishedMap => {
      const fits = total + map.windows.sizeBytes <= maxWindowsBytes
      const windowsOffset = fits ? total : undefined
      if (fits) total += map.windows.sizeBytes
      else
        this.#parts.log.warn('windows of a layer are not published: those of the image are too large', {
          image: record.reference,
          blob: map.digest,
        })
      return { map, windowsOffset }
    })
    const windows = Buffer.alloc(total)
    for (const published of placed) {
      if (published.windowsOffset === undefined) continue
      try {
        let offset = published.windowsOffset
        for await (const bytes of this.#readChunks(published.map.windows, signal)) {
          windows.set(bytes, offset)
          offset += bytes.length
        }
      } catch (error) {
        signal.throwIfAborted()
        this.#parts.log.warn('windows of a layer are not published: they cannot be read', {
          error,
          image: record.reference,
          blob: published.map.digest,
        })
        published.windowsOffset = undefined
      }
    }
    return { maps: placed, windows }
  }

  /** The indexes of the image's layers, each once, compressed; none if one of them is not known or too large. */
  async #readLayerIndexes(manifest: RootfsManifest, record: ImageRecord, signal: AbortSignal): Promise<Buffer[]> {
    const indexes: Buffer[] = []
    for (const diffId of new Set(manifest.layers.map((layer) => layer.diffId))) {
      const bytes = await this.#parts.indexes.findEncoded(diffId, { signal })
      const compressed = bytes === undefined ? undefined : await compress(bytes)
      if (compressed === undefined || compressed.length > maxLayerIndexBlobBytes) {
        this.#parts.log.info('layer indexes are not published: one is unknown here, or too large', {
          image: record.reference,
          layer: diffId,
        })
        return []
      }
      indexes.push(compressed)
    }
    return indexes
  }

  /**
   * The chunks of a segment in order; {@link chunksAhead} of them are fetched at once.
   * @throws what the fetcher throws
   */
  async *#readChunks(table: ChunkTable, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const ahead: Promise<FetchedChunk>[] = []
    const stopped = new AbortController()
    const fetchSignal = AbortSignal.any([signal, stopped.signal])
    try {
      for (let index = 0; index < table.count + chunksAhead; index++) {
        if (index < table.count) {
          const chunk = this.#parts.fetcher.fetch(
            { digest: table.digestAt(index), lengthBytes: table.lengthAt(index), table: table.id, index },
            { signal: fetchSignal, priority: 'background' },
          )
          // A failure is thrown when this chunk's turn comes.
          chunk.catch(() => undefined)
          ahead.push(chunk)
        }
        if (index >= chunksAhead - 1 && ahead.length > 0) yield (await ahead.shift()!).bytes
      }
    } finally {
      stopped.abort()
    }
  }
}

function sizeOf({ index, metadata, windows, layerIndexes }: Publication): number {
  return [index, metadata, ...(windows === undefined ? [] : [windows]), ...layerIndexes].reduce(
    (sum, { sizeBytes }) => sum + sizeBytes,
    0,
  )
}
