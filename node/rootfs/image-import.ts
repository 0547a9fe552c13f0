import type { Digest } from '../../protocol/digest.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import type { RootfsFormat, RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'
import type { ByteProgress } from '../model/progress.ts'
import type { LayerLimits } from './layer-limits.ts'
import { buildRootfs } from './rootfs-build.ts'

/** A layer as the image manifest and config name it. */
export interface LayerSpec {
  digest: Digest
  diffId: Digest
  mediaType: string
  sizeBytes: number
}

export interface ImageImportParts {
  /** The index that this host or its region has of the layer, if any. */
  knownLayer: (diffId: Digest, options: { signal: AbortSignal }) => Promise<LayerIndex | undefined>
  /** Reads the layer once and stores its chunks. `onBytes` gets the number of compressed bytes read so far. */
  readLayer: (
    layer: LayerSpec,
    options: { signal: AbortSignal; onBytes: (bytes: number) => void },
  ) => Promise<LayerIndex>
  /** Takes the chunks of the metadata segment. */
  sink: ChunkSink
  limits: LayerLimits
}

/** Layers read at once: each has a thread of its own. */
const layersAtOnce = 2

const sumOf = (counts: ReadonlyMap<Digest, number>): number =>
  [...counts.values()].reduce((sum, count) => sum + count, 0)

/**
 * Imports an image: reads the layers whose index nobody has, merges all of them, and writes the metadata of the rootfs.
 * Chunks of the other layers are not fetched.
 */
export async function importImage(
  image: { layers: readonly LayerSpec[]; config: string; format: RootfsFormat },
  parts: ImageImportParts,
  {
    signal,
    onProgress,
    source = 'registry',
  }: {
    signal: AbortSignal
    onProgress?: ((progress: ByteProgress) => void) | undefined
    /** The source of the layers that are read. */
    source?: 'registry' | 'local'
  },
): Promise<RootfsManifest> {
  const totalBytes = image.layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  const done = new Map<Digest, number>()
  // Without layers whose index somebody has.
  const read = new Map<Digest, number>()
  const indexes = new Map<Digest, LayerIndex>()
  // The same layer may stand in an image twice; empty layers often do.
  const work = new Map(image.layers.map((layer) => [layer.diffId, layer])).values()
  const failed = new AbortController()
  const stop = AbortSignal.any([signal, failed.signal])
  const report = (layer: LayerSpec, bytes: number): void => {
    done.set(layer.diffId, bytes)
    const readBytes = sumOf(read)
    onProgress?.({ doneBytes: sumOf(done), totalBytes, ...(readBytes > 0 && { from: { [source]: readBytes } }) })
  }
  const readLayers = async (): Promise<void> => {
    for (const layer of work) {
      stop.throwIfAborted()
      const index =
        (await parts.knownLayer(layer.diffId, { signal: stop })) ??
        (await parts.readLayer(layer, {
          signal: stop,
          onBytes: (bytes) => {
            read.set(layer.diffId, bytes)
            report(layer, bytes)
          },
        }))
      report(layer, layer.sizeBytes)
      indexes.set(layer.diffId, index)
    }
  }
  // No reader rejects, so all have ended when this function throws: nothing is put after that.
  const readOrFail = async (): Promise<void> => {
    try {
      await readLayers()
    } catch (error) {
      failed.abort(error)
    }
  }
  await Promise.all(Array.from({ length: layersAtOnce }, readOrFail))
  if (failed.signal.aborted) throw failed.signal.reason as Error
  return await buildRootfs(
    image.layers.map(({ diffId }) => indexes.get(diffId)!),
    image,
    parts.sink,
    { signal, limits: parts.limits },
  )
}
