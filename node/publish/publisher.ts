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

export interface PublisherParts {
  /** Of a blob of the image: what this host or its region has. */
  blobMap: (digest: Digest, record: ImageRecord) => Promise<BlobMap | undefined>
  /** Encoded: what this host or its region has, as far as it is believed. */
  layerIndex: (diffId: Digest, options: { signal: AbortSignal }) => Promise<Uint8Array | undefined>
  registry: Pick<ImageSource, 'referrers' | 'manifest' | 'openLayer' | 'pushBlob' | 'pushManifest'>
  /** Chunks of metadata and windows, from wherever they are. */
  fetch: (request: ChunkRequest, options: { signal: AbortSignal; priority: FetchPriority }) => Promise<FetchedChunk>
  own: () => string
  /** Whether this host has built the rootfs with layer indexes that peers told. */
  isUnverified: (rootfsDigest: Digest) => Promise<boolean>
  remember: (publication: Publication) => Promise<void>
  log: Log
}

export interface PublishOptions {
  signal: AbortSignal
  /** A boot profile, encoded. */
  profile?: Uint8Array
  /** Bytes of the publication that are in the registry. */
  onProgress?: (progress: { doneBytes: number; totalBytes: number }) => void
}

export interface Published {
  /** Digest of the artifact's manifest. */
  digest: Digest
  /** Of its blobs. */
  sizeBytes: number
  /** Who attests it. */
  key: string
  /** Whether it was there already. */
  existed: boolean
}

/** Windows are held in memory on the way: layers whose windows do not fit any more are published without, bytes. */
const maxWindowsBytes = 256 * 1024 * 1024
const chunksAhead = 8

/** Puts what a host needs to start from the registry alone beside an image, in the image's own repository. */
export class Publisher {
  readonly #parts: PublisherParts
  readonly #reader: PublicationReader

  constructor(parts: PublisherParts) {
    this.#parts = parts
    this.#reader = new PublicationReader(parts)
  }

  /**
   * With the attestation that the record has: whoever built the rootfs has signed it. What its maker has published already is
   * not published again, unless there is a boot profile now and was none.
   * @throws invalid for an image of no registry; unsupported for what this host cannot vouch for; denied, and what else the registry says
   */
  async publish(
    { record, manifest }: { record: ImageRecord; manifest: RootfsManifest },
    options: PublishOptions,
  ): Promise<Published> {
    const reference = parseReference(record.reference)
    if (reference.kind === 'local')
      throw new P2pfsError(
        'invalid',
        `${record.reference} is in no registry, so that there is nowhere to publish it; push the image to one, then seed it from there`,
      )
    if (record.attestation.key === this.#parts.own() && (await this.#parts.isUnverified(record.rootfsDigest))) {
      throw new P2pfsError(
        'unsupported',
        `this host has made ${record.reference} of layer indexes that peers told, and cannot sign for it before others; publish it on the host that read the layers, or list keys with --trust-index-key (this host's own will do), then seed it again`,
      )
    }
    const profile = options.profile === undefined ? undefined : digestOf(options.profile)
    const there = await this.#existing(reference, record, profile, options.signal)
    if (there !== undefined) return there
    return await this.#push(reference, record, manifest, profile, options)
  }

  async #existing(
    reference: Reference,
    record: ImageRecord,
    profile: Digest | undefined,
    signal: AbortSignal,
  ): Promise<Published | undefined> {
    const { manifestDigest, format, rootfsDigest, attestation } = record
    const listed = await this.#reader.list(reference, manifestDigest, { signal })
    const same = listed.filter(
      (one) =>
        one.format === format &&
        one.rootfsDigest === rootfsDigest &&
        one.attestation.key === attestation.key &&
        (profile === undefined || one.profile !== undefined),
    )
    for (const candidate of same.slice(0, 1)) {
      try {
        const { publication } = await this.#reader.read(reference, manifestDigest, candidate, {
          signal,
          withMetadata: false,
        })
        await this.#parts.remember(publication)
        return { digest: publication.artifact, sizeBytes: sizeOf(publication), key: attestation.key, existed: true }
      } catch (error) {
        signal.throwIfAborted()
        this.#parts.log.warn('what is published of the image is not whole; it is published again', {
          error,
          image: record.reference,
        })
      }
    }
    return undefined
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
    const { maps, windows } = await this.#windows(await this.#maps(layers, record), record, signal)
    const index = await compress(
      encodePublishedIndex({ manifest: encodeRootfsManifest(manifest), maps, profile: options.profile }),
    )
    if (index.length > maxIndexBlobBytes)
      throw new P2pfsError(
        'unsupported',
        `the index of ${record.reference} takes ${index.length} bytes; ${maxIndexBlobBytes} is the most that readers take`,
      )
    const metadata = await compressChunks(this.#chunks(manifest.metadata, signal), maxMetadataBlobBytes)
    const layerIndexes = await this.#layerIndexes(manifest, record, signal)
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
    await this.#parts.remember(publication)
    return { digest, sizeBytes: sizeOf(publication), key: attestation.key, existed: false }
  }

  /** Of each blob once. */
  async #maps(layers: readonly LayerDescriptor[], record: ImageRecord): Promise<BlobMap[]> {
    const maps = await Promise.all(
      [...new Set(layers.map(({ digest }) => digest))].map(async (digest) => await this.#parts.blobMap(digest, record)),
    )
    return maps.filter((map) => map !== undefined)
  }

  /** All window regions back to back; those that cannot be had are left out. */
  async #windows(
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
        this.#parts.log.warn('windows of a layer are not published: the image has too many', {
          image: record.reference,
          blob: map.digest,
        })
      return { map, windowsOffset }
    })
    const windows = Buffer.alloc(total)
    for (const one of placed) {
      if (one.windowsOffset === undefined) continue
      try {
        let at = one.windowsOffset
        for await (const bytes of this.#chunks(one.map.windows, signal)) {
          windows.set(bytes, at)
          at += bytes.length
        }
      } catch (error) {
        signal.throwIfAborted()
        this.#parts.log.warn('windows of a layer are not published: nobody has them', {
          error,
          image: record.reference,
          blob: one.map.digest,
        })
        one.windowsOffset = undefined
      }
    }
    return { maps: placed, windows }
  }

  /** Of the image's layers, each once, compressed; none where one of them is not known here. */
  async #layerIndexes(manifest: RootfsManifest, record: ImageRecord, signal: AbortSignal): Promise<Buffer[]> {
    const all: Buffer[] = []
    for (const diffId of new Set(manifest.layers.map((layer) => layer.diffId))) {
      const bytes = await this.#parts.layerIndex(diffId, { signal })
      const compressed = bytes === undefined ? undefined : await compress(bytes)
      if (compressed === undefined || compressed.length > maxLayerIndexBlobBytes) {
        this.#parts.log.info('layer indexes are not published: this host has not all of them', {
          image: record.reference,
          layer: diffId,
        })
        return []
      }
      all.push(compressed)
    }
    return all
  }

  /** The chunks of a region in order, some of them fetched ahead. @throws what the fetch throws */
  async *#chunks(table: ChunkTable, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const ahead: Promise<FetchedChunk>[] = []
    const stopped = new AbortController()
    const either = AbortSignal.any([signal, stopped.signal])
    try {
      for (let index = 0; index < table.count + chunksAhead; index++) {
        if (index < table.count) {
          const chunk = this.#parts.fetch(
            { digest: table.digestAt(index), lengthBytes: table.lengthAt(index), table: table.id, index },
            { signal: either, priority: 'background' },
          )
          // Whoever comes to it hears of it.
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
