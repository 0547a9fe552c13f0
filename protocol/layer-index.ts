import { CborReader, CborWriter } from './cbor-stream.ts'
import { ChunkTable } from './chunk-table.ts'
import { parseDigest, type Digest } from './digest.ts'
import { P2pfsError } from './errors.ts'
import { parseEntry } from './layer-entry.ts'
import { EntryPacker, PackedEntries, type LayerEntries } from './packed-entries.ts'

/** Everything about one layer. It is a function of the uncompressed tar. */
export interface LayerIndex {
  diffId: Digest
  /** Length of the uncompressed tar (bytes). */
  tarBytes: number
  /** The data segment: file contents in tar order, each file from a new 4 KiB block, zeros between them. */
  chunks: ChunkTable
  entries: LayerEntries
}

/** Raised when anything changes that decides on chunk boundaries, or on the order of bytes in data segments. */
export const formatVersion = 3

/** Keys in CBOR's order. */
const keys = ['diffId', 'digests', 'entries', 'lengths', 'version', 'tarBytes'] as const

/** The stored and wire form; SPEC.md, "Layer index". */
export function encodeLayerIndex(index: LayerIndex): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.concat([...encodeLayerIndexPieces(index)]))
}

/** The stored and wire form, in pieces: it may have hundreds of megabytes. */
export function* encodeLayerIndexPieces({ diffId, tarBytes, chunks, entries }: LayerIndex): Generator<Uint8Array> {
  const head = new CborWriter().map(keys.length)
  head.text('diffId').text(diffId)
  head.text('digests').bytes(chunks.digests)
  head.text('entries').array(entries.length)
  yield head.finish()
  yield* PackedEntries.from(entries).encoded()
  const tail = new CborWriter().text('lengths').bytes(chunks.encodeLengths())
  tail.text('version').integer(formatVersion)
  tail.text('tarBytes').integer(tarBytes)
  yield tail.finish()
}

/** @throws invalid for bytes that are not a layer index of this format version. */
export function parseLayerIndex(bytes: Uint8Array): LayerIndex {
  const reader = new CborReader(bytes, 'layer index')
  if (reader.map('index') !== keys.length) reader.fail('other fields than it has')
  const key = (expected: (typeof keys)[number]): string =>
    reader.text('key') === expected ? expected : reader.fail(`${expected} is missing`)
  const diffId = parseDigest(reader.text(key('diffId')))
  const digests = Uint8Array.from(reader.bytes(key('digests')))
  const count = reader.array(key('entries'))
  const packer = new EntryPacker()
  /** Where the furthest extent ends in the data segment, and the last begins in the tar. */
  let segmentEnd = 0
  let lastTarOffset = 0
  for (let i = 0; i < count; i++) {
    reader.within(`layer index: entry ${i}`)
    const entry = parseEntry(reader)
    for (const { lengthBytes, fileOffset, segmentOffset, tarOffset } of entry.extents) {
      if (fileOffset + lengthBytes > entry.sizeBytes) reader.fail('an extent leaves its file')
      segmentEnd = Math.max(segmentEnd, segmentOffset + lengthBytes)
      lastTarOffset = Math.max(lastTarOffset, tarOffset)
    }
    packer.add(entry)
  }
  reader.within('layer index')
  const chunks = ChunkTable.parse(reader.bytes(key('lengths')), digests)
  const version = reader.unsigned(key('version'))
  if (version !== formatVersion) reader.fail(`format version ${version} is not ${formatVersion}`)
  const tarBytes = reader.unsigned(key('tarBytes'))
  reader.finish()
  if (segmentEnd > chunks.sizeBytes || lastTarOffset > tarBytes)
    throw new P2pfsError('invalid', 'layer index: an extent leaves the data segment or the tar')
  return { diffId, tarBytes, chunks, entries: packer.finish() }
}
