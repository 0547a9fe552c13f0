import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import { rootfsDigest, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { counting, type ChunkSink } from '../model/chunk-sink.ts'
import type { PublishedImages } from '../publish/published-images.ts'
import { layersOf } from '../registry/image-source.ts'
import { parseReference } from '../registry/reference.ts'
import { buildRootfs } from '../rootfs/rootfs-build.ts'
import type { Catalog } from '../store/catalog.ts'
import type { LayerIndexes } from './layer-indexes.ts'
import { releasing, type LayerReader } from './layer-reader.ts'
import type { LayerTransactions } from './layer-transactions.ts'
import type { Inventory } from '../store/inventory.ts'

/** Passes every chunk of one segment to the sink. */
export type SegmentStream = (sink: ChunkSink, options: { signal: AbortSignal }) => Promise<void>

export interface SegmentStreamsParts {
  catalog: Pick<Catalog, 'images' | 'rootfs' | 'hasLayer'>
  reader: Pick<LayerReader, 'read'>
  indexes: Pick<LayerIndexes, 'find'>
  transactions: Pick<LayerTransactions, 'run'>
  published: Pick<PublishedImages, 'metadata'>
  inventory: Pick<Inventory, 'isReferenced'>
}

/** Makes all chunks of a segment: data by streaming the layer, metadata from a publication or out of layer indexes. */
export class SegmentStreams {
  readonly #parts: SegmentStreamsParts
  /** Chunks of metadata that came from publications. */
  readonly chunks = { bytes: 0, chunks: 0 }

  constructor(parts: SegmentStreamsParts) {
    this.#parts = parts
  }

  /** How to make all chunks of a segment; undefined where no image in the catalog has the segment. */
  async streamOf(table: Digest): Promise<SegmentStream | undefined> {
    const { catalog, reader } = this.#parts
    for (const record of await catalog.images()) {
      const manifest = await catalog.rootfs(record.rootfsDigest)
      if (manifest === undefined) continue
      if (manifest.metadata.id === table)
        return async (sink, { signal }) => await this.#metadata(record, manifest, sink, signal)
      const reference = parseReference(record.reference)
      if (reference.kind === 'local') continue
      const index = manifest.layers.findIndex(({ chunks }) => chunks.id === table)
      const layer = layersOf(record.manifest, manifest.config)[index]
      if (layer !== undefined)
        return async (sink, { signal }) =>
          void (await reader.read(reference, layer, this.#onlyReferenced(sink), { signal }))
    }
    return undefined
  }

  /** Passes on only what tracked segments have: the layer may no longer be what it was. */
  #onlyReferenced(sink: ChunkSink): ChunkSink {
    const { inventory } = this.#parts
    return {
      put: async (digest, bytes) => (inventory.isReferenced(digest) ? await sink.put(digest, bytes) : undefined),
    }
  }

  /**
   * Takes the layer indexes if all of them are here; else the publication; else indexes from the region, and reads the
   * layers whose index is nowhere.
   */
  async #metadata(record: ImageRecord, manifest: RootfsManifest, sink: ChunkSink, signal: AbortSignal): Promise<void> {
    const { catalog, published } = this.#parts
    const here = await Promise.all(manifest.layers.map(async ({ diffId }) => await catalog.hasLayer(diffId)))
    if (here.includes(false)) {
      if (await published.metadata(record, manifest, counting(sink, this.chunks), { signal })) return
    }
    await this.#rebuildMetadata(record, manifest, sink, signal)
  }

  async #rebuildMetadata(
    record: ImageRecord,
    manifest: RootfsManifest,
    sink: ChunkSink,
    signal: AbortSignal,
  ): Promise<void> {
    const { indexes, reader, transactions } = this.#parts
    const reference = parseReference(record.reference)
    const layers: LayerIndex[] = []
    for (const layer of layersOf(record.manifest, manifest.config)) {
      const found = await indexes.find(layer.diffId, { signal })
      layers.push(
        found?.index ??
          (await transactions.run(
            async (layerSink) => await reader.read(reference, layer, releasing(layerSink), { signal }),
          )),
      )
    }
    const rebuilt = await buildRootfs(layers, manifest, sink)
    if (rootfsDigest(rebuilt) !== record.rootfsDigest) {
      throw new P2pfsError('invalid', 'the layers in the registry make another rootfs than the one that is known', {
        image: record.reference,
      })
    }
  }
}
