import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import { rootfsDigest, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { counting, withFiles, type ChunkSink } from '../model/chunk-sink.ts'
import type { WholeReadReason } from '../model/whole-read.ts'
import type { PublishedImages } from '../publish/published-images.ts'
import { layersOf, type LayerDescriptor } from '../registry/image-source.ts'
import { parseReference, repositoryOf, type Reference } from '../registry/reference.ts'
import { buildRootfs } from '../rootfs/rootfs-build.ts'
import type { Catalog } from '../store/catalog.ts'
import type { LayerIndexes } from './layer-indexes.ts'
import { releasing, type LayerReader } from './layer-reader.ts'
import type { LayerTransactions } from './layer-transactions.ts'
import type { Inventory } from '../store/inventory.ts'
import type { WholeReads } from './whole-reads.ts'

/** Passes every chunk of one segment to the sink. @param options `reason`: why the segment is streamed */
export type SegmentStream = (
  sink: ChunkSink,
  options: { signal: AbortSignal; reason: WholeReadReason },
) => Promise<void>

/** Repositories that have a layer and are tried for it. */
const maxPlaces = 4

/** A layer, and an image that has it. */
interface LayerPlace {
  reference: Reference
  layer: LayerDescriptor
}

export interface SegmentStreamsParts {
  catalog: Pick<Catalog, 'images' | 'rootfs' | 'hasLayer'>
  reader: Pick<LayerReader, 'read'>
  indexes: Pick<LayerIndexes, 'find'>
  transactions: Pick<LayerTransactions, 'run'>
  published: Pick<PublishedImages, 'metadata'>
  wholeReads: Pick<WholeReads, 'during'>
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
    const { catalog, wholeReads } = this.#parts
    const places: LayerPlace[] = []
    for (const record of await catalog.images()) {
      const manifest = await catalog.rootfs(record.rootfsDigest)
      if (manifest === undefined) continue
      if (manifest.metadata.id === table)
        return async (sink, { signal }) => await this.#metadata(record, manifest, sink, signal)
      const reference = parseReference(record.reference)
      if (reference.kind === 'local') continue
      const index = manifest.layers.findIndex(({ chunks }) => chunks.id === table)
      const layer = layersOf(record.manifest, manifest.config)[index]
      const isOther = places.every((place) => repositoryOf(place.reference) !== repositoryOf(reference))
      if (layer !== undefined && isOther && places.length < maxPlaces) places.push({ reference, layer })
    }
    if (places.length === 0) return undefined
    return async (sink, { signal, reason }) =>
      await wholeReads.during(
        table,
        reason,
        async () => await this.#readAny(places, this.#onlyReferenced(sink), { signal }),
      )
  }

  /** Reads the layer out of the first repository that does not refuse it. */
  async #readAny(places: readonly LayerPlace[], sink: ChunkSink, { signal }: { signal: AbortSignal }): Promise<void> {
    for (const [i, { reference, layer }] of places.entries()) {
      try {
        await this.#parts.reader.read(reference, layer, sink, { signal })
        return
      } catch (error) {
        if (signal.aborted || i === places.length - 1 || !isP2pfsError(error, 'denied', 'missing')) throw error
      }
    }
  }

  /** Passes on only what tracked segments have: the layer may no longer be what it was. */
  #onlyReferenced(sink: ChunkSink): ChunkSink {
    const { inventory } = this.#parts
    return {
      put: async (digest, bytes) => (inventory.isReferenced(digest) ? await sink.put(digest, bytes) : undefined),
      ...withFiles(sink, (files) => ({
        decide: async (chunk) => (inventory.isReferenced(chunk.digest) ? await files.decide(chunk) : 'drop'),
      })),
    }
  }

  /**
   * Takes the layer indexes if all of them are here; else the publication; else indexes from the region, and reads the
   * layers whose index is nowhere. A layer is read only if publication and region have both answered.
   */
  async #metadata(record: ImageRecord, manifest: RootfsManifest, sink: ChunkSink, signal: AbortSignal): Promise<void> {
    const { catalog, published } = this.#parts
    const here = await Promise.all(manifest.layers.map(async ({ diffId }) => await catalog.hasLayer(diffId)))
    let unanswered: unknown
    if (here.includes(false)) {
      try {
        if (await published.metadata(record, manifest, counting(sink, this.chunks), { signal })) return
      } catch (error) {
        signal.throwIfAborted()
        unanswered = error
      }
    }
    await this.#rebuildMetadata(record, manifest, sink, { signal, unanswered })
  }

  async #rebuildMetadata(
    record: ImageRecord,
    manifest: RootfsManifest,
    sink: ChunkSink,
    { signal, unanswered }: { signal: AbortSignal; unanswered: unknown },
  ): Promise<void> {
    const { indexes, reader, transactions, wholeReads } = this.#parts
    const reference = parseReference(record.reference)
    const layers: LayerIndex[] = []
    for (const [i, layer] of layersOf(record.manifest, manifest.config).entries()) {
      const found = await indexes.find(layer.diffId, { signal, mustAnswer: true })
      if (found === undefined && unanswered !== undefined) throw unanswered
      const read = async (): Promise<LayerIndex> =>
        await transactions.run(async (kept) => await reader.read(reference, layer, releasing(kept), { signal }))
      layers.push(found?.index ?? (await wholeReads.during(manifest.layers[i]!.chunks.id, 'no-index', read)))
    }
    const rebuilt = await buildRootfs(layers, manifest, sink)
    if (rootfsDigest(rebuilt) !== record.rootfsDigest) {
      throw new P2pfsError('invalid', 'the layers in the registry make another rootfs than the one that is known', {
        image: record.reference,
      })
    }
  }
}
