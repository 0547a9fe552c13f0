import type { Digest } from '../../protocol/digest.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import type { RootfsFormat, RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { checkMetadata, metadataBytes, type LayerLimits } from './layer-limits.ts'
import { buildRootfs, type MetadataSink } from './rootfs-build.ts'

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
  /** Reads the layer once: its chunks into the store; `onBytes` tells how many compressed bytes have been read. */
  readLayer: (
    layer: LayerSpec,
    options: { signal: AbortSignal; onBytes: (bytes: number) => void },
  ) => Promise<LayerIndex>
  sink: MetadataSink
  limits: LayerLimits
}

/** Layers read at once: each has a thread of its own for the hashes. */
const layersAtOnce = 2

/**
 * Imports an image: reads the layers whose index nobody has, merges all, writes the rootfs's metadata.
 * Chunks of layers whose index is known stay where they are, until somebody reads or seeds them.
 */
export async function importImage(
  image: { layers: readonly LayerSpec[]; config: string; format: RootfsFormat },
  parts: ImageImportParts,
  {
    signal,
    onProgress,
  }: { signal: AbortSignal; onProgress?: ((progress: { doneBytes: number; totalBytes: number }) => void) | undefined },
): Promise<RootfsManifest> {
  const totalBytes = image.layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  const read = new Map<Digest, number>()
  const indexes = new Map<Digest, LayerIndex>()
  // The same layer may stand in an image twice (empty layers do).
  const work = new Map(image.layers.map((layer) => [layer.diffId, layer])).values()
  const failed = new AbortController()
  const either = AbortSignal.any([signal, failed.signal])
  const report = (layer: LayerSpec, bytes: number): void => {
    read.set(layer.diffId, bytes)
    onProgress?.({ doneBytes: [...read.values()].reduce((sum, n) => sum + n, 0), totalBytes })
  }
  let metadata = 0
  const worker = async (): Promise<void> => {
    for (const layer of work) {
      either.throwIfAborted()
      const index =
        (await parts.knownLayer(layer.diffId, { signal: either })) ??
        (await parts.readLayer(layer, { signal: either, onBytes: (bytes) => report(layer, bytes) }))
      report(layer, layer.sizeBytes)
      for (const entry of index.entries) metadata += metadataBytes(entry)
      checkMetadata(metadata, parts.limits)
      indexes.set(layer.diffId, index)
    }
  }
  // All of them have ended when this does: nothing is put after a failure is known.
  const failing = async (): Promise<void> => {
    try {
      await worker()
    } catch (error) {
      failed.abort(error)
    }
  }
  await Promise.all(Array.from({ length: layersAtOnce }, failing))
  if (failed.signal.aborted) throw failed.signal.reason as Error
  return await buildRootfs(
    image.layers.map(({ diffId }) => indexes.get(diffId)!),
    image,
    parts.sink,
  )
}
