import { encodeCbor, Fields, parseCbor } from './cbor.ts'
import { ChunkTable } from './chunk-table.ts'
import type { Digest } from './digest.ts'
import { P2pfsError } from './errors.ts'

/**
 * Bytes of a tar, held as a string with one character (U+0000 to U+00FF, "latin1") per byte. Names in a tar
 * are bytes, not text; this form is exact, compact, and a key of a Map.
 */
export type ByteString = string

/** Order is part of the format: an entry's type is stored as its position here. */
export const entryTypes = [
  'file',
  'directory',
  'symlink',
  'hardlink',
  'character',
  'block',
  'fifo',
  'whiteout',
  'opaque',
] as const
export type EntryType = (typeof entryTypes)[number]

/** A piece of a file's content. Bytes of a file in no extent are a hole: they read as zeros. */
export interface Extent {
  /** Offset within the file, bytes; a multiple of 4096 but for what a sparse map says otherwise. */
  fileOffset: number
  lengthBytes: number
  /** Offset within the layer's data region, bytes, a multiple of 4096. */
  regionOffset: number
  /** Offset of the content within the uncompressed tar, bytes. */
  tarOffset: number
}

/** One entry of a layer, as its tar has it after normalisation. */
export interface LayerEntry {
  /** Relative to the root, without leading or trailing `/`, no `.` and `..`: `''` is the root itself. */
  path: ByteString
  type: EntryType
  /** Permission bits, setuid, setgid and sticky: 0 to 0o7777. */
  mode: number
  uid: number
  gid: number
  mtime: { seconds: number; nanoseconds: number }
  /** Sorted by name. */
  xattrs: readonly { name: ByteString; value: Uint8Array }[]
  /** Target of a symlink (as it is), or path of the entry that a hardlink names (normalised as `path`). */
  linkTarget: ByteString
  device: { major: number; minor: number }
  sizeBytes: number
  extents: readonly Extent[]
}

/** Everything about one layer: a deterministic function of its uncompressed tar. */
export interface LayerIndex {
  diffId: Digest
  /** Length of the uncompressed tar, bytes. */
  tarBytes: number
  /** The data region: file contents in tar order, each file from a new 4 KiB block, zeros between. */
  chunks: ChunkTable
  /** In tar order. */
  entries: readonly LayerEntry[]
}

/** Raised when anything that decides on chunk boundaries or on the order of data regions changes. */
export const formatVersion = 1

const bytesOf = (text: ByteString): Uint8Array => Buffer.from(text, 'latin1')
const stringOf = (bytes: Uint8Array): ByteString =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')

/** The stored and wire form; SPEC.md, "Layer index". */
export function encodeLayerIndex(index: LayerIndex): Uint8Array {
  return encodeCbor({
    version: formatVersion,
    diffId: index.diffId,
    tarBytes: index.tarBytes,
    lengths: index.chunks.encodeLengths(),
    digests: index.chunks.digests,
    entries: index.entries.map((entry) => [
      bytesOf(entry.path),
      entryTypes.indexOf(entry.type),
      entry.mode,
      entry.uid,
      entry.gid,
      entry.mtime.seconds,
      entry.mtime.nanoseconds,
      entry.xattrs.flatMap(({ name, value }) => [bytesOf(name), value]),
      bytesOf(entry.linkTarget),
      entry.device.major,
      entry.device.minor,
      entry.sizeBytes,
      entry.extents.flatMap((e) => [e.fileOffset, e.lengthBytes, e.regionOffset, e.tarOffset]),
    ]),
  })
}

/** @throws invalid for bytes that are not a layer index of this format version. */
export function parseLayerIndex(bytes: Uint8Array): LayerIndex {
  const record = new Fields(parseCbor(bytes, 'layer index'), 'layer index')
  if (record.get('version') !== formatVersion) {
    throw new P2pfsError('invalid', `layer index: format version ${String(record.get('version'))} is not ${formatVersion}`)
  }
  const chunks = ChunkTable.parse(record.bytes('lengths'), record.bytes('digests'))
  const tarBytes = record.unsigned('tarBytes')
  const entries = record.list('entries').map((value, i) => parseEntry(value, `layer index: entry ${i}`, chunks.sizeBytes, tarBytes))
  return { diffId: record.digest('diffId'), tarBytes, chunks, entries }
}

function parseEntry(value: unknown, what: string, regionBytes: number, tarBytes: number): LayerEntry {
  const record = new Fields(value, what)
  const type = entryTypes[record.unsigned(1, entryTypes.length - 1)]!
  const path = stringOf(record.bytes(0))
  if (path !== '' && path.split('/').some((part) => part === '' || part === '.' || part === '..')) {
    throw new P2pfsError('invalid', `${what}: path is not normalised`)
  }
  const flatXattrs = record.list(7)
  const xattrs: { name: ByteString; value: Uint8Array }[] = []
  for (let i = 0; i < flatXattrs.length; i += 2) {
    const pair = new Fields(flatXattrs, what)
    xattrs.push({ name: stringOf(pair.bytes(i)), value: pair.bytes(i + 1) })
  }
  const sizeBytes = record.unsigned(11)
  const numbers = new Fields(record.list(12), what)
  const extents: Extent[] = []
  for (let i = 0; i < record.list(12).length; i += 4) {
    const extent = {
      fileOffset: numbers.unsigned(i),
      lengthBytes: numbers.unsigned(i + 1),
      regionOffset: numbers.unsigned(i + 2),
      tarOffset: numbers.unsigned(i + 3),
    }
    if (
      extent.fileOffset + extent.lengthBytes > sizeBytes ||
      extent.regionOffset + extent.lengthBytes > regionBytes ||
      extent.tarOffset + extent.lengthBytes > tarBytes
    ) {
      throw new P2pfsError('invalid', `${what}: an extent leaves its file or region`)
    }
    extents.push(extent)
  }
  return {
    path,
    type,
    mode: record.unsigned(2, 0o7777),
    uid: record.unsigned(3, 0xffffffff),
    gid: record.unsigned(4, 0xffffffff),
    mtime: { seconds: record.integer(5), nanoseconds: record.unsigned(6, 999_999_999) },
    xattrs,
    linkTarget: stringOf(record.bytes(8)),
    device: { major: record.unsigned(9, 0xffffffff), minor: record.unsigned(10, 0xffffffff) },
    sizeBytes,
    extents,
  }
}
