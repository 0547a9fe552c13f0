import { setTimeout as sleepFor } from 'node:timers/promises'
import { encodeBlobMap, type BlobMap } from '../../protocol/blob-map.ts'
import { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../protocol/digest.ts'
import { encodeLayerIndex } from '../../protocol/layer-index.ts'
import type { RootfsFormat, RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { discarding } from '../model/chunk-sink.ts'
import type { FindOptions } from '../model/image.ts'
import type { ImageSource, ResolvedImage } from '../registry/image-source.ts'
import type { Reference } from '../registry/reference.ts'
import { importImage } from '../rootfs/image-import.ts'
import { importLayer } from '../rootfs/layer-import.ts'
import type { LayerLimits } from '../rootfs/layer-limits.ts'

export interface LayerRebuildParts {
  registry: Pick<ImageSource, 'openLayer'>
  limits: LayerLimits
  sleep?: (ms: number, options: { signal: AbortSignal }) => Promise<void>
}

export interface RebuildOptions extends FindOptions {
  /** How much of the compressed layers is read at most (bytes a second); unbounded where it is not given. */
  bytesPerSecond?: number
}

/** Digests of what the layers make. */
export interface Rebuilt {
  manifest: RootfsManifest
  /** Digests of the encoded layer indexes, by diff id. */
  indexes: ReadonlyMap<Digest, Digest>
  /** Digests of the blob maps, by blob. */
  maps: ReadonlyMap<Digest, Digest>
}

/** The pause of a bounded reader is at least so long (ms): timers are no finer. */
const minPauseMs = 20

/** Makes the rootfs of an image from all its layers, taking nobody's word for anything, and keeps nothing of it. */
export class LayerRebuild {
  readonly #parts: LayerRebuildParts
  readonly #sleep: NonNullable<LayerRebuildParts['sleep']>

  constructor(parts: LayerRebuildParts) {
    this.#parts = parts
    this.#sleep = parts.sleep ?? (async (ms, { signal }) => await sleepFor(ms, undefined, { signal, ref: false }))
  }

  /** @throws what an import throws */
  async of(
    reference: Reference,
    image: ResolvedImage,
    format: RootfsFormat,
    { bytesPerSecond = Infinity, ...options }: RebuildOptions,
  ): Promise<Rebuilt> {
    const { registry, limits } = this.#parts
    const indexes = new Map<Digest, Digest>()
    const maps = new Map<Digest, Digest>()
    const manifest = await importImage(
      { ...image, format },
      {
        knownLayer: async () => undefined,
        readLayer: async (layer, { signal, onBytes }) => {
          const bytes = registry.openLayer(reference, layer, { signal, verify: false })
          const { index, map } = await importLayer(this.#paced(bytes, bytesPerSecond, signal), layer, discarding, {
            signal,
            limits,
            onProgress: onBytes,
          })
          indexes.set(layer.diffId, digestOf(encodeLayerIndex(index)))
          if (map !== undefined) maps.set(layer.digest, mapDigest(map))
          return index
        },
        sink: discarding,
        limits,
      },
      options,
    )
    return { manifest, indexes, maps }
  }

  async *#paced(
    bytes: AsyncIterable<Uint8Array>,
    bytesPerSecond: number,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    let owedMs = 0
    for await (const piece of bytes) {
      yield piece
      owedMs += (piece.length / bytesPerSecond) * 1_000
      if (owedMs < minPauseMs) continue
      await this.#sleep(owedMs, { signal })
      owedMs = 0
    }
  }
}

/** The digest of a map without its windows: how they are compressed is no part of what a map says. */
export function mapDigest(map: BlobMap): Digest {
  const checkpoints = map.checkpoints.map((checkpoint) => ({ ...checkpoint, window: { offset: 0, lengthBytes: 0 } }))
  return digestOf(encodeBlobMap({ ...map, checkpoints, windows: new ChunkTable([], new Uint8Array(0)) }))
}
