import { ChunkTableBuilder } from '../../protocol/chunk-table.ts'
import { digestOf } from '../../protocol/digest.ts'
import { formatVersion, type LayerIndex } from '../../protocol/layer-index.ts'
import type { RootfsFormat, RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'
import { planErofs } from './erofs/plan.ts'
import { planExt4 } from './ext4/plan.ts'
import { mergeLayers } from './merge.ts'

/** Size of the metadata segment's chunks, bytes: small, because a cold mount reads a few blocks here and there. */
const metadataChunkBytes = 128 * 1024

const planners = { ext4: planExt4, erofs: planErofs } as const

/**
 * Makes the rootfs of an image from its layer indexes: merges them, and puts the filesystem's metadata into `sink`.
 * The result depends on the layers, the config, the format and the format version alone.
 * @param layers lowest first
 * @param options `config` is the OCI image config, JSON
 * @throws invalid, unsupported, naming the entry, for an entry that no tree, or no filesystem of this format, can hold
 */
export async function buildRootfs(
  layers: readonly LayerIndex[],
  { config, format }: { config: string; format: RootfsFormat },
  sink: ChunkSink,
): Promise<RootfsManifest> {
  const seed = digestOf(Buffer.from(`${format} ${formatVersion} ${layers.map(({ diffId }) => diffId).join(' ')}`))
  const tree = mergeLayers(layers)
  const plan = planners[format](
    tree,
    layers.map(({ chunks }) => chunks.sizeBytes),
    seed,
  )
  const chunks = new ChunkTableBuilder()
  for (const bytes of slices(plan.pieces())) {
    const digest = digestOf(bytes)
    chunks.add(digest, bytes.length)
    await sink.put(digest, bytes)
  }
  return {
    format,
    metadata: chunks.build(),
    layers: layers.map(({ diffId, chunks: table }) => ({ diffId, chunks: table })),
    config,
  }
}

/** The same bytes in slices of {@link metadataChunkBytes}, each a buffer of its own; the last may be shorter. */
function* slices(pieces: Iterable<Uint8Array>): Generator<Uint8Array> {
  let slice = Buffer.allocUnsafeSlow(metadataChunkBytes)
  let filled = 0
  for (const piece of pieces) {
    for (let offset = 0; offset < piece.length;) {
      const length = Math.min(piece.length - offset, metadataChunkBytes - filled)
      slice.set(piece.subarray(offset, offset + length), filled)
      filled += length
      offset += length
      if (filled < metadataChunkBytes) continue
      yield slice
      slice = Buffer.allocUnsafeSlow(metadataChunkBytes)
      filled = 0
    }
  }
  if (filled > 0) yield slice.subarray(0, filled)
}
