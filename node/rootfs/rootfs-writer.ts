import { ChunkTableBuilder, type ChunkTable } from '../../protocol/chunk-table.ts'
import { digestOf } from '../../protocol/digest.ts'
import { formatVersion, type LayerIndex } from '../../protocol/layer-index.ts'
import type { RootfsFormat } from '../../protocol/rootfs-manifest.ts'
import { release } from '../base/release.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'
import { planErofs } from './erofs/plan.ts'
import { planExt4 } from './ext4/plan.ts'
import type { LayerLimits } from './layer-limits.ts'
import { mergeLayers } from './merge.ts'
import { PutsInFlight } from './puts-in-flight.ts'
import { planRaw } from './raw/plan.ts'

/** Size of the metadata segment's chunks, bytes: small, because a cold mount reads a few blocks here and there. */
const metadataChunkBytes = 128 * 1024
/** Chunks that are being kept at once, bytes. */
const maxInFlightBytes = 2 * 1024 * 1024

const planners = { ext4: planExt4, erofs: planErofs, raw: planRaw } as const

/**
 * Merges layers, and puts the metadata segment of the filesystem that they make into `sink`.
 * @param layers lowest first
 * @returns the chunks of the metadata segment
 * @throws as `buildRootfs`
 */
export async function writeRootfs(
  layers: readonly LayerIndex[],
  format: RootfsFormat,
  sink: ChunkSink,
  limits: Pick<LayerLimits, 'maxMetadataBytes'>,
): Promise<ChunkTable> {
  const seed = digestOf(Buffer.from(`${format} ${formatVersion} ${layers.map(({ diffId }) => diffId).join(' ')}`))
  const plan = planners[format](
    mergeLayers(layers, limits),
    layers.map(({ chunks }) => chunks.sizeBytes),
    seed,
  )
  const chunks = new ChunkTableBuilder()
  const puts = new PutsInFlight({ maxBytes: maxInFlightBytes })
  for (const bytes of slices(plan.pieces())) {
    const digest = digestOf(bytes)
    chunks.add(digest, bytes.length)
    puts.add(bytes.length, sink.put(digest, bytes))
    await puts.room()
  }
  await puts.settled()
  return chunks.build()
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
    release(piece)
  }
  // A copy: the sink may transfer the memory.
  if (filled > 0) yield Uint8Array.from(slice.subarray(0, filled))
}
