import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ChunkRequest } from './chunk-request.ts'

/** The chunk tables of a rootfs, in the order of the image: metadata, then each layer's data. */
export function tablesOf(manifest: RootfsManifest): ChunkTable[] {
  return [manifest.metadata, ...manifest.layers.map(({ chunks }) => chunks)]
}

/** The request for the chunk at this position of the table. */
export function requestOf(table: ChunkTable, index: number): ChunkRequest {
  return { digest: table.digestAt(index), lengthBytes: table.lengthAt(index), table: table.id, index }
}

/** The requests for all chunks of the tables, in order. */
export function* chunkRequests(tables: readonly ChunkTable[]): Generator<ChunkRequest> {
  for (const table of tables) {
    for (let index = 0; index < table.count; index++) yield requestOf(table, index)
  }
}

/** Size of the rootfs image (bytes). */
export function sizeOf(manifest: RootfsManifest): number {
  return manifest.sizeBytes ?? tablesOf(manifest).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
}
