import type { AwaitedReads } from '../base/awaited-reads.ts'
import { release } from '../base/release.ts'
import type { Urgency } from '../base/urgency.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import { counting, type ChunkSink } from '../model/chunk-sink.ts'
import type { ImageSource } from '../registry/image-source.ts'
import { formatReference, type Reference } from '../registry/reference.ts'
import type { LayerSpec } from '../rootfs/image-import.ts'
import { importLayer, type ImportedLayer } from '../rootfs/layer-import.ts'
import type { LayerLimits } from '../rootfs/layer-limits.ts'
import type { LayerIndexes, OnIndex } from './layer-indexes.ts'
import { SharedLayerReads } from './shared-layer-reads.ts'
import type { Inventory } from '../store/inventory.ts'
import type { BlobMaps } from '../store/blob-maps.ts'

/** Takes what comes of a layer: its chunks, and its index if the catalog had none. */
export interface LayerSink extends ChunkSink {
  onIndex?: OnIndex
}

export interface LayerReaderParts {
  registry: Pick<ImageSource, 'openLayer'>
  indexes: Pick<LayerIndexes, 'own' | 'put'>
  blobMaps: Pick<BlobMaps, 'put'>
  inventory: Pick<Inventory, 'track'>
  limits: LayerLimits
  /** The reads that a layer makes way for, where nobody waits for it. */
  reads?: Pick<AwaitedReads, 'makeWay'>
}

export interface LayerReadOptions {
  signal: AbortSignal
  /** Whether somebody waits for the layer; yes, where it is not given. */
  urgency?: Urgency | undefined
  /** Compressed bytes read so far. */
  onBytes?: (bytes: number) => void
}

/** Reads layers whole: the chunks go to a sink, index and blob map are stored, the data segment is tracked. */
export class LayerReader {
  readonly #parts: LayerReaderParts
  readonly #shared: SharedLayerReads<LayerIndex>
  /** Chunks that came out of layers. */
  readonly chunks: { bytes: number; chunks: number }

  /** @param first a reader that this one shares its reads and its figures with */
  constructor(parts: LayerReaderParts, first?: LayerReader) {
    this.#parts = parts
    this.#shared = first === undefined ? new SharedLayerReads() : first.#shared
    this.chunks = first?.chunks ?? { bytes: 0, chunks: 0 }
  }

  /** A reader that asks `registry` instead. A layer is still read by one of them at a time, and counted in one place. */
  from(registry: LayerReaderParts['registry']): LayerReader {
    return new LayerReader({ ...this.#parts, registry }, this)
  }

  /**
   * Reads the layer out of its registry.
   * @throws invalid where it is not what it should be; the codes of the transport
   */
  async read(reference: Reference, layer: LayerSpec, sink: LayerSink, options: LayerReadOptions): Promise<LayerIndex> {
    const { registry, blobMaps, inventory } = this.#parts
    // The thread that reads the layer checks its digest.
    const bytes = registry.openLayer(reference, layer, { signal: options.signal, verify: false })
    const { index, map } = await this.#import(bytes, layer, sink, options)
    if (map !== undefined) await blobMaps.put(map)
    inventory.track(index.chunks, { provisional: true })
    return index
  }

  /**
   * As {@link read}, but waits for another reading of the same layer out of the same registry, and takes the index that it
   * leaves. Another registry may be slower, or not have the layer that it says it has.
   */
  async readShared(
    reference: Reference,
    layer: LayerSpec,
    sink: LayerSink,
    { signal, onBytes, urgency }: LayerReadOptions & Required<Pick<LayerReadOptions, 'onBytes'>>,
  ): Promise<LayerIndex> {
    const registry = reference.kind === 'registry' ? reference.registry : formatReference(reference)
    return await this.#shared.run(
      `${registry} ${layer.diffId}`,
      { signal, onBytes, urgency },
      async () => await this.#parts.indexes.own(layer.diffId),
      async (onBytes, urgency) => await this.read(reference, layer, sink, { signal, onBytes, urgency }),
    )
  }

  /** Reads a tar that is in no registry. @param name names it in errors */
  async readTar(
    tar: AsyncIterable<Uint8Array>,
    name: string,
    sink: LayerSink,
    options: LayerReadOptions,
  ): Promise<LayerIndex> {
    return (await this.#import(tar, { name }, sink, options)).index
  }

  async #import(
    bytes: AsyncIterable<Uint8Array>,
    layer: LayerSpec | { name: string },
    sink: LayerSink,
    { signal, onBytes, urgency }: LayerReadOptions,
  ): Promise<ImportedLayer> {
    const { limits, reads } = this.#parts
    const imported = await importLayer(bytes, layer, counting(sink, this.chunks), {
      signal,
      limits,
      ...(reads && urgency && { makeWay: () => reads.makeWay({ urgency, signal }) }),
      ...(onBytes && { onProgress: onBytes }),
    })
    const { onIndex } = sink
    await this.#parts.indexes.put(imported.index, { isUnverified: false, ...(onIndex && { onIndex }) })
    return imported
  }
}

/** Frees each chunk's memory when it is kept. */
export function releasing(sink: LayerSink): LayerSink {
  return {
    ...(sink.onIndex && { onIndex: sink.onIndex }),
    ...(sink.openFiles && { openFiles: sink.openFiles }),
    put: async (digest, bytes) => {
      await sink.put(digest, bytes)
      release(bytes)
    },
  }
}
