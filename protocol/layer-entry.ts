import type { CborReader, CborWriter } from './cbor-stream.ts'

/**
 * Bytes, held as a string with one character (U+0000 to U+00FF, "latin1") per byte. Names in a tar are bytes, not text.
 * This form of them is exact and compact, and can be the key of a Map.
 */
export type ByteString = string

/** Types of entries. A type is stored as its position here. */
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

/** A run of a file's content. Bytes of a file that no extent covers are a hole: they read as zeros. */
export interface Extent {
  /** Offset in the file (bytes): a multiple of 4096, unless the tar's sparse map says otherwise. */
  fileOffset: number
  lengthBytes: number
  /** Offset in the layer's data segment (bytes): a multiple of 4096. */
  segmentOffset: number
  /** Offset of the content in the uncompressed tar (bytes). */
  tarOffset: number
}

/** One entry of a layer's tar, normalised. */
export interface LayerEntry {
  /** Relative to the root, without leading or trailing `/`, without `.` and `..`. `''` is the root itself. */
  path: ByteString
  type: EntryType
  /** Permission bits, setuid, setgid and sticky: 0 to 0o7777. */
  mode: number
  uid: number
  gid: number
  mtime: { seconds: number; nanoseconds: number }
  /** Sorted by name. */
  xattrs: readonly { name: ByteString; value: Uint8Array }[]
  /** Target of a symlink, as it is; or path of the entry that a hard link names, normalised like `path`. */
  linkTarget: ByteString
  device: { major: number; minor: number }
  sizeBytes: number
  extents: readonly Extent[]
}

/** Most entries have no xattrs and no extents: all of them share one object. */
const none: readonly never[] = Object.freeze([])
const noDevice = Object.freeze({ major: 0, minor: 0 })

/** Matches a path with a component that is empty, `.` or `..`. */
const notNormalised = /(?:^|\/)\.{0,2}(?:\/|$)/
const entryFields = 13
const extentNumbers = 4

/** Writes an entry as SPEC.md, "Layer index", has it. */
export function encodeEntry(writer: CborWriter, entry: LayerEntry): void {
  writer.array(entryFields).byteString(entry.path).integer(entryTypes.indexOf(entry.type))
  writer
    .integer(entry.mode)
    .integer(entry.uid)
    .integer(entry.gid)
    .integer(entry.mtime.seconds)
    .integer(entry.mtime.nanoseconds)
  writer.array(entry.xattrs.length * 2)
  for (const { name, value } of entry.xattrs) writer.byteString(name).bytes(value)
  writer.byteString(entry.linkTarget).integer(entry.device.major).integer(entry.device.minor).integer(entry.sizeBytes)
  writer.array(entry.extents.length * extentNumbers)
  for (const { fileOffset, lengthBytes, segmentOffset, tarOffset } of entry.extents) {
    writer.integer(fileOffset).integer(lengthBytes).integer(segmentOffset).integer(tarOffset)
  }
}

/** @throws invalid for an item that is no entry */
export function parseEntry(reader: CborReader): LayerEntry {
  if (reader.array('entry') !== entryFields) reader.fail('other fields than it has')
  const path = reader.byteString('path')
  if (path !== '' && notNormalised.test(path)) reader.fail('path is not normalised')
  const type = entryTypes[reader.unsigned('type', entryTypes.length - 1)]!
  const mode = reader.unsigned('mode', 0o7777)
  const uid = reader.unsigned('uid', 0xffffffff)
  const gid = reader.unsigned('gid', 0xffffffff)
  const mtime = { seconds: reader.integer('mtime'), nanoseconds: reader.unsigned('nanoseconds', 999_999_999) }
  const xattrs = parseXattrs(reader)
  const linkTarget = reader.byteString('link target')
  const major = reader.unsigned('device', 0xffffffff)
  const minor = reader.unsigned('device', 0xffffffff)
  const sizeBytes = reader.unsigned('size')
  const device = major === 0 && minor === 0 ? noDevice : { major, minor }
  return { path, type, mode, uid, gid, mtime, xattrs, linkTarget, device, sizeBytes, extents: parseExtents(reader) }
}

function parseXattrs(reader: CborReader): LayerEntry['xattrs'] {
  const count = reader.array('xattrs')
  if (count === 0) return none
  if (count % 2 !== 0) reader.fail('an xattr has no value')
  const xattrs: { name: ByteString; value: Uint8Array }[] = []
  for (let i = 0; i < count; i += 2)
    xattrs.push({ name: reader.byteString('xattr name'), value: Uint8Array.from(reader.bytes('xattr value')) })
  return xattrs
}

function parseExtents(reader: CborReader): LayerEntry['extents'] {
  const count = reader.array('extents')
  if (count === 0) return none
  if (count % extentNumbers !== 0) reader.fail('an extent is not whole')
  const extents: Extent[] = []
  for (let i = 0; i < count; i += extentNumbers) {
    const fileOffset = reader.unsigned('extent')
    const lengthBytes = reader.unsigned('extent')
    const segmentOffset = reader.unsigned('extent')
    extents.push({ fileOffset, lengthBytes, segmentOffset, tarOffset: reader.unsigned('extent') })
  }
  return extents
}
