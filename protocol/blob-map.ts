import { CborReader, CborWriter } from './cbor-stream.ts'
import { ChunkTable } from './chunk-table.ts'
import { parseDigest, type Digest } from './digest.ts'
import { formatVersion } from './layer-index.ts'

/** How a layer's blob is compressed; order is part of the format. */
export const compressions = ['none', 'gzip', 'zstd'] as const
export type Compression = (typeof compressions)[number]

/** A place in the blob from which decoding can begin. */
export interface Checkpoint {
  /** From the start of the blob, bits: blocks of gzip begin anywhere; others at bytes. */
  bitOffset: number
  /** Offset in the uncompressed tar of what is decoded from here, bytes. */
  tarOffset: number
  /** Where the output before it is, compressed with zstd, in the window region; its length is 0 where none is needed. */
  window: { offset: number; lengthBytes: number }
}

/** Distance of the marks of a blob, and the unit in which they count the tar, bytes. */
export const markDistanceBytes = 4 * 1024
export const markUnitBytes = 1024

/** Bytes of the tar that are bytes of the data region. */
export interface Piece {
  regionOffset: number
  lengthBytes: number
  tarOffset: number
}

/**
 * How to read the data region of a layer out of its blob at any place: a function of the blob. The layer index says what the
 * files are, this where their bytes are.
 */
export interface BlobMap {
  /** Of the blob, as the registry has it. */
  digest: Digest
  diffId: Digest
  sizeBytes: number
  tarBytes: number
  compression: Compression
  /** In the blob's order; the first at its start. */
  checkpoints: readonly Checkpoint[]
  /** Of gzip: how much of the tar the first 4 KiB of the blob make at least, the first 8 KiB, and so on, KiB. */
  marks: Uint32Array
  /** The window region: windows one after the other, none over the end of a chunk, zeros between. */
  windows: ChunkTable
  /** In the region's order, which is the tar's. What is between them in the region is zero. */
  pieces: readonly Piece[]
}

const keys = [
  'marks',
  'diffId',
  'digest',
  'pieces',
  'version',
  'tarBytes',
  'sizeBytes',
  'checkpoints',
  'compression',
  'windowDigests',
  'windowLengths',
] as const
const checkpointNumbers = 4
/** Of the last seven bits of 32. */
const maxMarkFactor = 2 ** 28
const pieceNumbers = 3

/** The stored and wire form; SPEC.md, "Blob map". Offsets are given as distances, which are small. */
export function encodeBlobMap(
  map: Omit<BlobMap, 'pieces'> & { pieces: Iterable<Piece> & { length: number } },
): Uint8Array<ArrayBuffer> {
  const writer = new CborWriter().map(keys.length)
  writer.text('marks').bytes(encodeMarks(map.marks))
  writer.text('diffId').text(map.diffId)
  writer.text('digest').text(map.digest)
  writer.text('pieces').array(map.pieces.length * pieceNumbers)
  let region = 0
  let tar = 0
  for (const { regionOffset, lengthBytes, tarOffset } of map.pieces) {
    writer
      .integer(regionOffset - region)
      .integer(lengthBytes)
      .integer(tarOffset - tar)
    region = regionOffset + lengthBytes
    tar = tarOffset + lengthBytes
  }
  writer.text('version').integer(formatVersion)
  writer.text('tarBytes').integer(map.tarBytes)
  writer.text('sizeBytes').integer(map.sizeBytes)
  writer.text('checkpoints').array(map.checkpoints.length * checkpointNumbers)
  let bits = 0
  let windows = 0
  tar = 0
  for (const { bitOffset, tarOffset, window } of map.checkpoints) {
    writer
      .integer(bitOffset - bits)
      .integer(tarOffset - tar)
      .integer(window.offset - windows)
      .integer(window.lengthBytes)
    bits = bitOffset
    tar = tarOffset
    windows = window.offset + window.lengthBytes
  }
  writer.text('compression').integer(compressions.indexOf(map.compression))
  writer.text('windowDigests').bytes(map.windows.digests)
  writer.text('windowLengths').bytes(map.windows.encodeLengths())
  return writer.finish()
}

/** @throws invalid for bytes that are not a blob map of this format version. */
export function parseBlobMap(bytes: Uint8Array): BlobMap {
  const reader = new CborReader(bytes, 'blob map')
  if (reader.map('map') !== keys.length) reader.fail('other fields than it has')
  const key = (expected: (typeof keys)[number]): string =>
    reader.text('key') === expected ? expected : reader.fail(`${expected} is missing`)
  const marks = parseMarks(reader, key('marks'))
  const diffId = parseDigest(reader.text(key('diffId')))
  const digest = parseDigest(reader.text(key('digest')))
  const pieces = parsePieces(reader, key('pieces'))
  if (reader.unsigned(key('version')) !== formatVersion) reader.fail(`its format version is not ${formatVersion}`)
  const tarBytes = reader.unsigned(key('tarBytes'))
  const sizeBytes = reader.unsigned(key('sizeBytes'))
  const checkpoints = parseCheckpoints(reader, key('checkpoints'))
  const compression = compressions[reader.unsigned(key('compression'), compressions.length - 1)]!
  const windowDigests = Uint8Array.from(reader.bytes(key('windowDigests')))
  const windows = ChunkTable.parse(reader.bytes(key('windowLengths')), windowDigests)
  reader.finish()
  const lastPiece = pieces.at(-1)
  if (lastPiece !== undefined && lastPiece.tarOffset + lastPiece.lengthBytes > tarBytes)
    reader.fail('a piece leaves the tar')
  const [first] = checkpoints
  if (first === undefined || first.bitOffset !== 0 || first.tarOffset !== 0)
    reader.fail('the first checkpoint is not at the start')
  for (const { bitOffset, tarOffset, window } of checkpoints) {
    if (bitOffset >= Math.max(sizeBytes, 1) * 8 || tarOffset > tarBytes) reader.fail('a checkpoint leaves the blob')
    const before = marks[Math.floor(bitOffset / 8 / markDistanceBytes) - 1]
    if (before !== undefined && before * markUnitBytes > tarOffset) reader.fail('a mark contradicts a checkpoint')
    if (window.offset + window.lengthBytes > windows.sizeBytes) reader.fail('a window leaves its region')
  }
  if (marks.length * markDistanceBytes > sizeBytes || (marks.at(-1) ?? 0) * markUnitBytes > tarBytes)
    reader.fail('a mark leaves the blob')
  return { digest, diffId, sizeBytes, tarBytes, compression, checkpoints, marks, windows, pieces }
}

/** Each as the distance from the one before: seven bits a byte, lowest first, the eighth set where more follow. */
function encodeMarks(marks: Uint32Array): Uint8Array {
  const bytes: number[] = []
  let before = 0
  for (const mark of marks) {
    let distance = mark - before
    for (; distance > 0x7f; distance >>>= 7) bytes.push((distance & 0x7f) | 0x80)
    bytes.push(distance)
    before = mark
  }
  return Uint8Array.from(bytes)
}

function parseMarks(reader: CborReader, what: string): Uint32Array {
  const bytes = reader.bytes(what)
  const marks = new Uint32Array(bytes.reduce((count, byte) => (byte < 0x80 ? count + 1 : count), 0))
  let mark = 0
  let factor = 1
  let count = 0
  for (const byte of bytes) {
    mark += (byte & 0x7f) * factor
    if (mark > 0xffff_ffff || factor > maxMarkFactor || (byte === 0 && factor > 1))
      reader.fail('a mark is out of range')
    if (byte < 0x80) marks[count++] = mark
    factor = byte < 0x80 ? 1 : factor * 0x80
  }
  if (factor > 1) reader.fail('a mark is not whole')
  return marks
}

function parsePieces(reader: CborReader, what: string): Piece[] {
  const count = reader.array(what)
  if (count % pieceNumbers !== 0) reader.fail('a piece is not whole')
  const pieces: Piece[] = []
  let region = 0
  let tar = 0
  for (let i = 0; i < count; i += pieceNumbers) {
    const regionOffset = region + reader.unsigned(what)
    const lengthBytes = reader.unsigned(what)
    const tarOffset = tar + reader.unsigned(what)
    region = regionOffset + lengthBytes
    tar = tarOffset + lengthBytes
    if (!Number.isSafeInteger(region) || !Number.isSafeInteger(tar)) reader.fail('a piece is out of range')
    pieces.push({ regionOffset, lengthBytes, tarOffset })
  }
  return pieces
}

function parseCheckpoints(reader: CborReader, what: string): Checkpoint[] {
  const count = reader.array(what)
  if (count % checkpointNumbers !== 0) reader.fail('a checkpoint is not whole')
  const checkpoints: Checkpoint[] = []
  let bits = 0
  let tar = 0
  let windows = 0
  for (let i = 0; i < count; i += checkpointNumbers) {
    const [bitDistance, tarDistance] = [reader.unsigned(what), reader.unsigned(what)]
    if (i > 0 && (bitDistance === 0 || tarDistance === 0)) reader.fail('a checkpoint is where another is')
    bits += bitDistance
    tar += tarDistance
    const offset = windows + reader.unsigned(what)
    const lengthBytes = reader.unsigned(what)
    windows = offset + lengthBytes
    if (!Number.isSafeInteger(bits) || !Number.isSafeInteger(tar) || !Number.isSafeInteger(windows))
      reader.fail('a checkpoint is out of range')
    checkpoints.push({ bitOffset: bits, tarOffset: tar, window: { offset, lengthBytes } })
  }
  return checkpoints
}
