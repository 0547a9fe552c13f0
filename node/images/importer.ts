import type { BlobMap } from '../../protocol/blob-map.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import { encodeLayerIndex, type LayerIndex } from '../../protocol/layer-index.ts'
import { rootfsDigest, type RootfsFormat, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ChunkSink, SegmentStream } from '../fetch/stream-source.ts'
import { importImage, type LayerSpec } from '../rootfs/image-import.ts'
import { importLayer } from '../rootfs/layer-import.ts'
import type { LayerLimits } from '../rootfs/layer-limits.ts'
import { buildRootfs } from '../rootfs/rootfs-build.ts'
import { layersOf, type ImageSource, type ResolvedImage } from '../registry/image-source.ts'
import { SharedLayerReads } from './shared-layer-reads.ts'
import { openLocalSource, singleLayerImage } from './local-source.ts'
import { formatReference, parseReference, type Reference } from '../registry/reference.ts'
import type { PublishedImages } from '../publish/published-images.ts'
import type { FindOptions, UnsignedRecord, Variant } from '../model/image.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ImportTransactions } from '../store/import-transaction.ts'

export interface ImportOptions extends FindOptions {
  /** The image in another format, where that is known: its layer indexes may be published. */
  other?: ImageRecord
  /** Told of each layer that was read: its index and blob map are here. */
  onLayer?: (diffId: Digest) => void
}

export interface ImporterParts {
  catalog: Catalog
  registry: ImageSource
  region: { fetchLayerIndex: (diffId: Digest, options: { signal: AbortSignal }) => Promise<LayerIndex | undefined> }
  /** What the registry has besides layers. */
  published: Pick<PublishedImages, 'layerIndexes' | 'metadata'>
  /** Whether peers are believed as to layer indexes, which nobody signs. */
  trust: { trustsMembers: boolean }
  /** Keeps the map of a blob that was read. */
  putBlobMap: (map: BlobMap) => Promise<void>
  /** Takes the chunks that imports make. */
  ledger: ImportTransactions
  /** Whether a rootfs that this host knows has the chunk. */
  isKnown: (digest: Digest) => boolean
  /** Called for the region of each layer that was read: its chunks are here, whatever becomes of the image. */
  onLayerRead: (chunks: ChunkTable) => void
  /** Called where an import takes back the layers that it has read. */
  onLayerRolledBack: (table: Digest) => void
  limits: LayerLimits
}

/** What an import made. */
export interface Imported {
  manifest: RootfsManifest
  /** Whether it took a peer's word for a layer. */
  isUnverified: boolean
}

/** Told of each layer index that an import is the first to write. */
type OnIndex = (index: LayerIndex) => void
const ignore: OnIndex = () => undefined

/** Makes chunks from what images are made of: layers streamed from their registry, metadata from layer indexes. */
export class Importer {
  readonly #parts: ImporterParts
  readonly #turns = new SharedLayerReads<LayerIndex>()
  /** Chunks of layers read from registries. */
  readonly fromRegistry = { bytes: 0, chunks: 0 }

  constructor(parts: ImporterParts) {
    this.#parts = parts
  }

  /**
   * Reads the layers that neither this host nor its region has an index of, and makes the rootfs.
   * @throws invalid, unsupported for what can never be imported; nothing of it is left then
   */
  async importImage(
    reference: Reference,
    image: ResolvedImage,
    format: RootfsFormat,
    options: ImportOptions,
  ): Promise<Imported> {
    return await this.#importing(
      async (sink, onIndex) => await this.#import(reference, image, format, sink, onIndex, options),
    )
  }

  async #import(
    reference: Reference,
    image: ResolvedImage,
    format: RootfsFormat,
    sink: ChunkSink,
    onIndex: OnIndex,
    options: ImportOptions,
  ): Promise<Imported> {
    const { other } = options
    let published: ReturnType<PublishedImages['layerIndexes']> | undefined
    let isUnverified = false
    const manifest = await importImage(
      { ...image, format },
      {
        knownLayer: async (diffId, { signal }) => {
          const known = await this.#knownLayer(diffId, onIndex, signal)
          if (known?.told === true) isUnverified = true
          if (known !== undefined || other === undefined) return known?.index
          published ??= this.#parts.published.layerIndexes(other, { signal: options.signal })
          return (await published)?.get(diffId)
        },
        readLayer: async (layer, { signal, onBytes }) => {
          const index = await this.#turns.run(
            layer.diffId,
            { signal, onBytes },
            async () => await this.#parts.catalog.layer(layer.diffId, { told: false }),
            async (onBytes) => await this.#readLayer(reference, layer, releasing(sink), onIndex, { signal, onBytes }),
          )
          options.onLayer?.(layer.diffId)
          return index
        },
        sink: releasing(sink),
        limits: this.#parts.limits,
      },
      options,
    )
    return { manifest, isUnverified }
  }

  /** Runs an import. One that can never succeed takes back its chunks, and the indexes that it wrote. */
  async #importing<T>(task: (sink: ChunkSink, onIndex: OnIndex) => Promise<T>): Promise<T> {
    const running = this.#parts.ledger.begin()
    const written: { diffId: Digest; table: Digest }[] = []
    try {
      const result = await task(
        this.#counting(running),
        ({ diffId, chunks }) => void written.push({ diffId, table: chunks.id }),
      )
      running.commit()
      return result
    } catch (error) {
      if (isP2pfsError(error, 'invalid', 'unsupported')) {
        for (const { table } of written) this.#parts.onLayerRolledBack(table)
        await running.rollback()
        for (const { diffId } of written) await this.#parts.catalog.deleteLayer(diffId)
      } else running.commit()
      throw error
    }
  }

  /**
   * Makes an image that is in no registry.
   * @param source path of a directory or a tar, or an image in an OCI layout
   */
  async importLocal(
    source: string | Reference,
    reference: Reference,
    { platform, format }: Variant,
    options: FindOptions,
  ): Promise<{ record: UnsignedRecord } & Imported> {
    const name = formatReference(reference)
    const [image, { manifest, isUnverified }] = await this.#importing(
      async (sink, onIndex): Promise<[ResolvedImage, Imported]> => {
        const made =
          typeof source === 'string'
            ? singleLayerImage(name, platform, await this.#readLocal(source, releasing(sink), onIndex, options))
            : { ...(await this.#parts.registry.resolve(source, platform, options)), reference: name }
        return [
          made,
          await this.#import(typeof source === 'string' ? reference : source, made, format, sink, onIndex, options),
        ]
      },
    )
    const { manifestDigest } = image
    return {
      record: {
        reference: name,
        platform: image.platform,
        format,
        manifestDigest,
        manifest: image.manifest,
        rootfsDigest: rootfsDigest(manifest),
      },
      manifest,
      isUnverified,
    }
  }

  /** How to make all chunks of a region of an image in the catalog; undefined where no image there has it. */
  async streamOf(table: Digest): Promise<SegmentStream | undefined> {
    for (const record of await this.#parts.catalog.images()) {
      const manifest = await this.#parts.catalog.rootfs(record.rootfsDigest)
      if (manifest === undefined) continue
      const reference = parseReference(record.reference)
      if (reference.kind === 'local' && manifest.metadata.id !== table) continue
      if (manifest.metadata.id === table) {
        return async (sink, { signal }) => await this.#metadata(record, manifest, sink, signal)
      }
      const at = manifest.layers.findIndex(({ chunks }) => chunks.id === table)
      const layer = layersOf(record.manifest, manifest.config)[at]
      if (layer !== undefined) {
        return async (sink, { signal }) =>
          void (await this.#readLayer(reference, layer, this.#known(sink), ignore, { signal }))
      }
    }
    return undefined
  }

  /** Passes on only what known rootfs have: the layer may no longer be what it was. */
  #known(sink: ChunkSink): ChunkSink {
    const counting = this.#counting(sink)
    return {
      put: async (digest, bytes) => (this.#parts.isKnown(digest) ? await counting.put(digest, bytes) : undefined),
    }
  }

  #counting(sink: ChunkSink): ChunkSink {
    return {
      put: async (digest, bytes) => {
        this.fromRegistry.bytes += bytes.length
        this.fromRegistry.chunks++
        await sink.put(digest, bytes)
      },
    }
  }

  /** The index that this host or its region has of a layer. */
  async knownLayer(diffId: Digest, signal: AbortSignal): Promise<LayerIndex | undefined> {
    return (await this.#knownLayer(diffId, ignore, signal))?.index
  }

  /** As {@link knownLayer}, encoded. */
  async layerIndexBytes(diffId: Digest, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const bytes = await this.#parts.catalog.layerBytes(diffId, { told: this.#parts.trust.trustsMembers })
    if (bytes !== undefined) return bytes
    const found = await this.knownLayer(diffId, signal)
    return found === undefined ? undefined : encodeLayerIndex(found)
  }

  async #knownLayer(
    diffId: Digest,
    onIndex: OnIndex,
    signal: AbortSignal,
  ): Promise<{ index: LayerIndex; told: boolean } | undefined> {
    const { catalog, region, trust } = this.#parts
    const own = await catalog.layer(diffId, { told: false })
    if (own !== undefined) return { index: own, told: false }
    if (!trust.trustsMembers) return undefined
    const known = await catalog.layer(diffId)
    if (known !== undefined) return { index: known, told: true }
    const found = await region.fetchLayerIndex(diffId, { signal })
    if (found !== undefined) await this.#putLayer(found, onIndex, { told: true })
    return found === undefined ? undefined : { index: found, told: true }
  }

  async #readLayer(
    reference: Reference,
    layer: LayerSpec,
    sink: ChunkSink,
    onIndex: OnIndex,
    { signal, onBytes }: { signal: AbortSignal; onBytes?: (bytes: number) => void },
  ): Promise<LayerIndex> {
    // The layer's digest is checked by the thread that reads it.
    const bytes = this.#parts.registry.openLayer(reference, layer, { signal, verify: false })
    const { index, map } = await importLayer(bytes, layer, sink, {
      signal,
      limits: this.#parts.limits,
      ...(onBytes === undefined ? {} : { onProgress: onBytes }),
    })
    await this.#putLayer(index, onIndex)
    if (map !== undefined) await this.#parts.putBlobMap(map)
    this.#parts.onLayerRead(index.chunks)
    return index
  }

  /** The layer that a directory or a tar makes. */
  async #readLocal(
    path: string,
    sink: ChunkSink,
    onIndex: OnIndex,
    { signal, onProgress }: FindOptions,
  ): Promise<LayerIndex> {
    const { bytes, sizeBytes } = await openLocalSource(path, { signal })
    const { index } = await importLayer(bytes, { name: path }, sink, {
      signal,
      limits: this.#parts.limits,
      onProgress: (doneBytes) => onProgress?.({ doneBytes, totalBytes: Math.max(sizeBytes ?? 0, doneBytes) }),
    })
    await this.#putLayer(index, onIndex)
    return index
  }

  async #putLayer(index: LayerIndex, onIndex: OnIndex, { told = false } = {}): Promise<void> {
    if (!(await this.#parts.catalog.hasLayer(index.diffId))) onIndex(index)
    await this.#parts.catalog.putLayer(index, { told })
  }

  /** From the layer indexes that are here; else as it was published; else from what must be asked for, layers too. */
  async #metadata(record: ImageRecord, manifest: RootfsManifest, sink: ChunkSink, signal: AbortSignal): Promise<void> {
    const known = await Promise.all(
      manifest.layers.map(async ({ diffId }) => await this.#parts.catalog.hasLayer(diffId)),
    )
    if (
      known.includes(false) &&
      (await this.#parts.published.metadata(record, manifest, this.#counting(sink), { signal }))
    )
      return
    await this.#rebuildMetadata(record, manifest, sink, signal)
  }

  async #rebuildMetadata(
    record: ImageRecord,
    manifest: RootfsManifest,
    sink: ChunkSink,
    signal: AbortSignal,
  ): Promise<void> {
    const reference = parseReference(record.reference)
    const layers: LayerIndex[] = []
    for (const layer of layersOf(record.manifest, manifest.config)) {
      const read = async (): Promise<LayerIndex> =>
        await this.#importing(
          async (kept, onIndex) => await this.#readLayer(reference, layer, releasing(kept), onIndex, { signal }),
        )
      layers.push((await this.knownLayer(layer.diffId, signal)) ?? (await read()))
    }
    const rebuilt = await buildRootfs(layers, manifest, sink, { signal })
    if (rootfsDigest(rebuilt) !== record.rootfsDigest) {
      throw new P2pfsError('invalid', 'the layers in the registry make another rootfs than the one that is known', {
        image: record.reference,
      })
    }
  }
}

/** Frees each chunk's memory when it is kept: the garbage collector would let tens of megabytes of them stand. */
function releasing(sink: ChunkSink): ChunkSink {
  return {
    put: async (digest, bytes) => {
      await sink.put(digest, bytes)
      if (bytes.buffer instanceof ArrayBuffer && bytes.byteLength === bytes.buffer.byteLength) bytes.buffer.transfer(0)
    },
  }
}
