import { encodeCbor, Fields, parseCbor } from '../../protocol/cbor.ts'
import { ChunkTable } from '../../protocol/chunk-table.ts'
import { parseDigest, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { parseRootfsFormat, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'

/** A rootfs manifest as the catalog has it: with the ids of its chunk tables, which many images share. */
export interface RootfsRecord extends Pick<RootfsManifest, 'format' | 'config' | 'sizeBytes'> {
  metadata: Digest
  layers: readonly { diffId: Digest; table: Digest }[]
}

export function recordOf({ format, metadata, layers, config, sizeBytes }: RootfsManifest): RootfsRecord {
  return {
    format,
    metadata: metadata.id,
    layers: layers.map(({ diffId, chunks }) => ({ diffId, table: chunks.id })),
    config,
    ...(sizeBytes !== undefined && { sizeBytes }),
  }
}

export function encodeRootfsRecord(record: RootfsRecord): Uint8Array {
  return encodeCbor({ ...record })
}

/** @throws invalid */
export function parseRootfsRecord(bytes: Uint8Array): RootfsRecord {
  const what = 'rootfs record'
  const fields = new Fields(parseCbor(bytes, what), what)
  return {
    format: parseRootfsFormat(fields.get('format')),
    metadata: fields.digest('metadata'),
    layers: fields.list('layers').map((value) => {
      const layer = new Fields(value, what)
      return { diffId: layer.digest('diffId'), table: layer.digest('table') }
    }),
    config: fields.text('config'),
    ...(fields.get('sizeBytes') !== undefined && { sizeBytes: fields.unsigned('sizeBytes') }),
  }
}

/** The ids of the record's tables, in the order of the image. */
export function tableIdsOf({ metadata, layers }: RootfsRecord): Digest[] {
  return [metadata, ...layers.map(({ table }) => table)]
}

/** @param tables those of {@link tableIdsOf} */
export function manifestOf({ layers, ...record }: RootfsRecord, tables: readonly ChunkTable[]): RootfsManifest {
  const [metadata, ...rest] = tables
  return { ...record, metadata: metadata!, layers: layers.map(({ diffId }, i) => ({ diffId, chunks: rest[i]! })) }
}

export function encodeTable(table: ChunkTable): Uint8Array {
  return encodeCbor({ lengths: table.encodeLengths(), digests: table.digests })
}

/** @throws invalid for bytes that are not the table with this id */
export function parseTable(bytes: Uint8Array, id: Digest): ChunkTable {
  const fields = new Fields(parseCbor(bytes, 'chunk table'), 'chunk table')
  const table = ChunkTable.parse(fields.bytes('lengths'), Uint8Array.from(fields.bytes('digests')))
  if (table.id !== parseDigest(id)) throw new P2pfsError('invalid', 'chunk table: its digest is not its name')
  return table
}
