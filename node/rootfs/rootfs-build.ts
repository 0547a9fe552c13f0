import type { LayerIndex } from '../../protocol/layer-index.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { RootfsFormat, RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'
import type { LayerLimits } from './layer-limits.ts'
import type { RootfsWorkerSetup } from './rootfs-worker.ts'
import { writeRootfs } from './rootfs-writer.ts'
import { ChunkThread, isOutOfMemory } from './thread/chunk-thread.ts'
import { receiveTable, sendLayerIndex, type SentTable } from './thread/messages.ts'

/** So many entries take some 20 ms, less than the start of a thread. */
const maxEntriesWithoutThread = 2000
/** Bound on the thread's heap, MiB: the names of one directory of a few million files take the most. */
const heapMb = 1024

export interface BuildRootfsOptions {
  signal?: AbortSignal
  /** Bounds the metadata of all layers together. */
  limits?: Pick<LayerLimits, 'maxMetadataBytes'>
}

/**
 * Makes the rootfs of an image from its layer indexes, in a thread of its own where that takes time: merges them, and
 * puts the filesystem's metadata into `sink`. The result depends on the layers, the config, the format and the format
 * version alone.
 * @param layers lowest first
 * @param image `config` is the OCI image config, JSON
 * @throws invalid, unsupported, naming the entry, for an entry that no tree, or no filesystem of this format, can hold;
 *   invalid for more metadata than the limits allow; the sink's error
 */
export async function buildRootfs(
  layers: readonly LayerIndex[],
  { config, format }: { config: string; format: RootfsFormat },
  sink: ChunkSink,
  { signal = new AbortController().signal, limits = { maxMetadataBytes: Infinity } }: BuildRootfsOptions = {},
): Promise<RootfsManifest> {
  signal.throwIfAborted()
  const metadata =
    layers.reduce((sum, { entries }) => sum + entries.length, 0) <= maxEntriesWithoutThread
      ? await writeRootfs(layers, format, sink, limits)
      : await writeInThread(layers, format, sink, limits, signal)
  return {
    format,
    metadata,
    layers: layers.map(({ diffId, chunks }) => ({ diffId, chunks })),
    config,
    ...(format === 'raw' && { sizeBytes: layers.reduce((sum, { tarBytes }) => sum + tarBytes, 0) }),
  }
}

async function writeInThread(
  layers: readonly LayerIndex[],
  format: RootfsFormat,
  sink: ChunkSink,
  { maxMetadataBytes }: Pick<LayerLimits, 'maxMetadataBytes'>,
  signal: AbortSignal,
): Promise<RootfsManifest['metadata']> {
  await using thread = new ChunkThread<SentTable>(new URL('./rootfs-worker.ts', import.meta.url), {
    workerData: { layers: layers.map(sendLayerIndex), format, maxMetadataBytes } satisfies RootfsWorkerSetup,
    heapMb,
    sink,
  })
  try {
    return receiveTable(await thread.result({ signal }))
  } catch (error) {
    if (!isOutOfMemory(error)) throw error
    throw new P2pfsError('unsupported', 'a directory of the image has too many entries for this host', { cause: error })
  }
}
