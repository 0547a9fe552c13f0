import { ChunkTableBuilder } from '../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../protocol/digest.ts'
import { formatVersion, type LayerIndex } from '../../protocol/layer-index.ts'
import type { RootfsFormat, RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { planErofs } from './erofs/plan.ts'
import { planExt4 } from './ext4/plan.ts'
import { mergeLayers } from './merge.ts'

/** Chunks of the metadata region, bytes: small, for a cold mount reads a few blocks here and there. */
const metadataChunkBytes = 128 * 1024

/** Takes each chunk of the metadata region; resolves when it is kept. */
export interface MetadataSink {
  put: (digest: Digest, bytes: Uint8Array) => Promise<void>
}

const planners = { ext4: planExt4, erofs: planErofs } as const

/**
 * Makes the rootfs of an image from its layer indexes: merges them, writes the filesystem's metadata to `sink`.
 * The result depends on the layers, the config, the format and the format version alone.
 * @param layers lowest first
 * @param options `config` is the OCI image config, JSON
 * @throws invalid, unsupported naming the entry, for what no tree, or not the format, can hold
 */
export async function buildRootfs(
  layers: readonly LayerIndex[],
  { config, format }: { config: string; format: RootfsFormat },
  sink: MetadataSink,
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

/** The same bytes in pieces of the metadata chunk size, the last one shorter; each a buffer of its own. */
function* slices(pieces: Iterable<Uint8Array>): Generator<Uint8Array> {
  let slice = Buffer.allocUnsafeSlow(metadataChunkBytes)
  let filled = 0
  for (const piece of pieces) {
    for (let at = 0; at < piece.length;) {
      const length = Math.min(piece.length - at, metadataChunkBytes - filled)
      slice.set(piece.subarray(at, at + length), filled)
      filled += length
      at += length
      if (filled < metadataChunkBytes) continue
      yield slice
      slice = Buffer.allocUnsafeSlow(metadataChunkBytes)
      filled = 0
    }
  }
  if (filled > 0) yield slice.subarray(0, filled)
}
