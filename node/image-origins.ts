import type { Digest } from '../protocol/digest.ts'
import { P2pfsError } from '../protocol/errors.ts'
import type { ImageRecord } from '../protocol/image-record.ts'
import type { LayerIndex } from '../protocol/layer-index.ts'
import { rootfsDigest, type RootfsFormat, type RootfsManifest } from '../protocol/rootfs-manifest.ts'
import type { ChunkSink, RegionStream } from './fetch/region-source.ts'
import { importImage, type LayerSpec } from './image/image-import.ts'
import { importLayer } from './image/layer-import.ts'
import { buildRootfs } from './image/rootfs-build.ts'
import { layersOf, type ImageSource, type ResolvedImage } from './registry/image-source.ts'
import { openLocalSource, singleLayerImage } from './local-import.ts'
import { formatReference, parseReference, type Reference } from './registry/reference.ts'
import type { FindOptions, KnownImage, Variant } from './seed/images.ts'
import type { Catalog } from './store/catalog.ts'

export interface ImageOriginsParts {
  catalog: Catalog
  registry: ImageSource
  region: { fetchLayerIndex: (diffId: Digest, options: { signal: AbortSignal }) => Promise<LayerIndex | undefined> }
  /** Keeps a chunk and tells the peers. */
  keep: (digest: Digest, bytes: Uint8Array) => Promise<void>
}

/** Makes chunks from what images are made of: layers streamed from their registry, metadata from layer indexes. */
export class ImageOrigins {
  readonly #parts: ImageOriginsParts
  /** Chunks of layers read from registries. */
  readonly fromRegistry = { bytes: 0, chunks: 0 }

  constructor(parts: ImageOriginsParts) {
    this.#parts = parts
  }

  /** Reads the layers that neither this host nor its region has an index of, and makes the rootfs. */
  async importImage(reference: Reference, image: ResolvedImage, format: RootfsFormat, options: FindOptions): Promise<RootfsManifest> {
    return await importImage(
      { ...image, format },
      {
        knownLayer: async (diffId, { signal }) => await this.knownLayer(diffId, signal),
        readLayer: async (layer, { signal, onBytes }) => await this.#readLayer(reference, layer, this.#sink, { signal, onBytes }),
        sink: this.#sink,
      },
      options,
    )
  }

  /**
   * Makes an image that is in no registry.
   * @param source path of a directory or a tar, or an image in an OCI layout
   */
  async importLocal(source: string | Reference, reference: Reference, { platform, format }: Variant, options: FindOptions): Promise<KnownImage> {
    const name = formatReference(reference)
    let image: ResolvedImage
    if (typeof source === 'string') {
      const { bytes, sizeBytes } = await openLocalSource(source, options)
      const index = await importLayer(bytes, { name: source }, this.#sink, {
        signal: options.signal,
        onProgress: (doneBytes) => options.onProgress?.({ doneBytes, totalBytes: Math.max(sizeBytes ?? 0, doneBytes) }),
      })
      await this.#parts.catalog.putLayer(index)
      image = singleLayerImage(name, platform, index)
    } else image = { ...(await this.#parts.registry.resolve(source, platform, options)), reference: name }
    const manifest = await this.importImage(typeof source === 'string' ? reference : source, image, format, options)
    const { manifestDigest } = image
    return { record: { reference: name, platform: image.platform, format, manifestDigest, manifest: image.manifest, rootfsDigest: rootfsDigest(manifest) }, manifest, origin: 'local' }
  }

  /** How to make all chunks of a region of an image in the catalog; undefined where no image there has it. */
  async streamOf(table: Digest): Promise<RegionStream | undefined> {
    for (const record of await this.#parts.catalog.images()) {
      const manifest = await this.#parts.catalog.rootfs(record.rootfsDigest)
      if (manifest === undefined) continue
      const reference = parseReference(record.reference)
      if (reference.kind === 'local' && manifest.metadata.id !== table) continue
      if (manifest.metadata.id === table) {
        return async (sink, { signal }) => await this.#rebuildMetadata(record, manifest, sink, signal)
      }
      const at = manifest.layers.findIndex(({ chunks }) => chunks.id === table)
      const layer = layersOf(record.manifest, manifest.config)[at]
      if (layer !== undefined) {
        return async (sink, { signal }) => void (await this.#readLayer(reference, layer, this.#counting(sink), { signal }))
      }
    }
    return undefined
  }

  readonly #sink: ChunkSink = this.#counting({ put: async (digest, bytes) => await this.#parts.keep(digest, bytes) })

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
    const known = await this.#parts.catalog.layer(diffId)
    if (known !== undefined) return known
    const found = await this.#parts.region.fetchLayerIndex(diffId, { signal })
    if (found !== undefined) await this.#parts.catalog.putLayer(found)
    return found
  }

  async #readLayer(
    reference: Reference,
    layer: LayerSpec,
    sink: ChunkSink,
    { signal, onBytes }: { signal: AbortSignal; onBytes?: (bytes: number) => void },
  ): Promise<LayerIndex> {
    // The layer's digest is checked by the thread that reads it.
    const bytes = this.#parts.registry.openLayer(reference, layer, { signal, verify: false })
    const index = await importLayer(bytes, layer, sink, { signal, ...(onBytes === undefined ? {} : { onProgress: onBytes }) })
    await this.#parts.catalog.putLayer(index)
    return index
  }

  async #rebuildMetadata(record: ImageRecord, manifest: RootfsManifest, sink: ChunkSink, signal: AbortSignal): Promise<void> {
    const reference = parseReference(record.reference)
    const layers: LayerIndex[] = []
    for (const layer of layersOf(record.manifest, manifest.config)) {
      layers.push((await this.knownLayer(layer.diffId, signal)) ?? (await this.#readLayer(reference, layer, this.#sink, { signal })))
    }
    const rebuilt = await buildRootfs(layers, manifest, sink)
    if (rootfsDigest(rebuilt) !== record.rootfsDigest) {
      throw new P2pfsError('invalid', 'the layers in the registry make another rootfs than the one that is known', { image: record.reference })
    }
  }
}
