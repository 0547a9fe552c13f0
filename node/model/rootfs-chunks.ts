import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ChunkRequest } from './chunk-request.ts'

/** The chunk tables of a rootfs in the order of the image. */
export function tablesOf(manifest: RootfsManifest): ChunkTable[] {
  return [manifest.metadata, ...manifest.layers.map(({ chunks }) => chunks)]
}

/** All chunks of the tables, in order. */
export function* chunkRequests(tables: readonly ChunkTable[]): Generator<ChunkRequest> {
  for (const table of tables) {
    for (let index = 0; index < table.count; index++) {
      yield { digest: table.digestAt(index), lengthBytes: table.lengthAt(index), table: table.id, index }
    }
  }
}
