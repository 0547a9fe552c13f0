import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { Digest } from '../../protocol/digest.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { InspectedLayer, InspectResult } from '../control/api.ts'
import { layersOf } from '../registry/image-source.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'

/** An image that this host knows. */
export interface Known {
  record: ImageRecord
  manifest: RootfsManifest
}

/** What an image is made of, how much of it is here, and what others have in common with it. */
export async function inspect(
  { record, manifest }: Known,
  others: readonly Known[],
  parts: {
    localBytes: (tables: readonly ChunkTable[]) => number
    layer: (diffId: Digest) => Promise<LayerIndex | undefined>
  },
): Promise<InspectResult> {
  const layers: InspectedLayer[] = []
  for (const [i, { diffId, digest, sizeBytes: compressedBytes }] of layersOf(
    record.manifest,
    manifest.config,
  ).entries()) {
    const { chunks } = manifest.layers[i]!
    const index = await parts.layer(diffId)
    layers.push({
      diffId,
      digest,
      compressedBytes,
      tarBytes: index?.tarBytes ?? 0,
      entries: countTypes(index),
      dataBytes: chunks.sizeBytes,
      chunks: chunks.count,
      localBytes: parts.localBytes([chunks]),
    })
  }
  const tables = tablesOf(manifest)
  const { reference, platform, format, rootfsDigest } = record
  return {
    reference,
    platform,
    format,
    digest: rootfsDigest,
    sizeBytes: sizeOf(manifest),
    localBytes: parts.localBytes(tables),
    metadataBytes: manifest.metadata.sizeBytes,
    chunks: tables.reduce((sum, { count }) => sum + count, 0),
    layers,
    sharing: sharingOf(
      manifest,
      others.filter((other) => other.record.rootfsDigest !== rootfsDigest),
    ),
    config: JSON.parse(manifest.config) as unknown,
  }
}

export function sizeOf(manifest: RootfsManifest): number {
  return tablesOf(manifest).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
}

/** Each chunk counts once, however often an image has it. */
function sharingOf(manifest: RootfsManifest, others: readonly Known[]): InspectResult['sharing'] {
  const own = distinctChunks(manifest)
  return others
    .map(({ record: { reference, platform, format }, manifest: other }) => {
      const shared = [...distinctChunks(other)].filter(([digest]) => own.has(digest))
      return {
        reference,
        platform,
        format,
        sharedChunks: shared.length,
        sharedBytes: shared.reduce((sum, [, length]) => sum + length, 0),
      }
    })
    .filter(({ sharedChunks }) => sharedChunks > 0)
    .sort((a, b) => b.sharedBytes - a.sharedBytes)
}

function distinctChunks(manifest: RootfsManifest): Map<Digest, number> {
  const chunks = new Map<Digest, number>()
  for (const table of tablesOf(manifest))
    for (let i = 0; i < table.count; i++) chunks.set(table.digestAt(i), table.lengthAt(i))
  return chunks
}

function countTypes(index: LayerIndex | undefined): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { type } of index?.entries ?? []) counts[type] = (counts[type] ?? 0) + 1
  return counts
}
