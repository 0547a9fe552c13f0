import { CborReader, CborWriter } from './cbor-stream.ts'
import { ChunkTable } from './chunk-table.ts'
import { parseDigest, type Digest } from './digest.ts'
import { formatVersion } from './layer-index.ts'
import { PackedPieces, type Piece } from './packed-pieces.ts'

/** How a layer's blob is compressed. A compression is stored as its position here. */
export const compressions = ['none', 'gzip', 'zstd'] as const
export type Compression = (typeof compressions)[number]

/** A place in the blob at which decoding can begin. */
export interface Checkpoint {
  /** Offset in the blob (bits): blocks of gzip begin at any bit, all else begins at a byte. */
  bitOffset: number
  /** Offset in the uncompressed tar of the first byte that is decoded from here (bytes). */
  tarOffset: number
  /** Place of the checkpoint's window, compressed with zstd, in the window segment; length 0 where none is needed. */
  window: { offset: number; lengthBytes: number }
}

/** Distance of the stop points of a blob, and the unit in which they count the tar (bytes). */
export const stopPointDistanceBytes = 4 * 1024
export const stopPointUnitBytes = 1024

/**
 * How to read any part of a layer's data segment out of its blob. It is a function of the blob. The layer index says
 * which files a layer has; the blob map says where their bytes are.
 */
export interface BlobMap {
  /** Digest of the blob, as the registry has it. */
  digest: Digest
  diffId: Digest
  sizeBytes: number
  tarBytes: number
  compression: Compression
  /** In the order of the blob; the first one is at its start. */
  checkpoints: readonly Checkpoint[]
  /**
   * For gzip only: how much of the tar the first 4 KiB of the blob decode to at least, the first 8 KiB, ...
   * (KiB).
   */
  stopPoints: Uint32Array
  /** The window segment: one window after the other, none across the end of a chunk, zeros between them. */
  windows: ChunkTable
  /** In the order of the segment, which is that of the tar. The segment is zero between them. */
  pieces: PackedPieces
}

/** Keys in CBOR's order; `marks` are the stop points. */
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
/** Factor of the fifth group of seven bits: the last that a number of 32 bits has. */
const maxStopPointFactor = 2 ** 28
const pieceNumbers = 3

/** The stored and wire form; SPEC.md, "Blob map". Offsets are stored as distances, because those are small. */
export function encodeBlobMap(
  map: Omit<BlobMap, 'pieces'> & { pieces: Iterable<Piece> & { length: number } },
): Uint8Array<ArrayBuffer> {
  const writer = new CborWriter().map(keys.length)
  writer.text('marks').bytes(encodeStopPoints(map.stopPoints))
  writer.text('diffId').text(map.diffId)
  writer.text('digest').text(map.digest)
  writer.text('pieces').array(map.pieces.length * pieceNumbers)
  let segmentEnd = 0
  let tarEnd = 0
  for (const { segmentOffset, lengthBytes, tarOffset } of map.pieces) {
    writer
      .integer(segmentOffset - segmentEnd)
      .integer(lengthBytes)
      .integer(tarOffset - tarEnd)
    segmentEnd = segmentOffset + lengthBytes
    tarEnd = tarOffset + lengthBytes
  }
  writer.text('version').integer(formatVersion)
  writer.text('tarBytes').integer(map.tarBytes)
  writer.text('sizeBytes').integer(map.sizeBytes)
  writer.text('checkpoints').array(map.checkpoints.length * checkpointNumbers)
  let bits = 0
  let tar = 0
  let windowsEnd = 0
  for (const { bitOffset, tarOffset, window } of map.checkpoints) {
    writer
      .integer(bitOffset - bits)
      .integer(tarOffset - tar)
      .integer(window.offset - windowsEnd)
      .integer(window.lengthBytes)
    bits = bitOffset
    tar = tarOffset
    windowsEnd = window.offset + window.lengthBytes
  }
  writer.text('compression').integer(compressions.indexOf(map.compression))
  writer.text('windowDigests').bytes(map.windows.digests)
  writer.text('windowLengths').bytes(map.windows.encodeLengths())
  return writer.finish()
}

/** @throws invalid for bytes that are not a blob map of this format version. */
export function parseBlobMap(bytes: Uint8Array): BlobMap {
  const reader = new CborReader(bytes, 'blob map')
  if (reader.map('map') !== keys.length) reader.fail('it does not have the fields of this format version')
  const key = (expected: (typeof keys)[number]): string =>
    reader.text('key') === expected ? expected : reader.fail(`${expected} is missing`)
  const stopPoints = parseStopPoints(reader, key('marks'))
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
  const lastPiece = pieces.get(pieces.length - 1)
  if (lastPiece !== undefined && lastPiece.tarOffset + lastPiece.lengthBytes > tarBytes)
    reader.fail('a piece ends beyond the tar')
  const [first] = checkpoints
  if (first === undefined || first.bitOffset !== 0 || first.tarOffset !== 0)
    reader.fail('the first checkpoint is not at the start')
  for (const { bitOffset, tarOffset, window } of checkpoints) {
    if (bitOffset >= Math.max(sizeBytes, 1) * 8 || tarOffset > tarBytes) reader.fail('a checkpoint is beyond the blob')
    const before = stopPoints[Math.floor(bitOffset / 8 / stopPointDistanceBytes) - 1]
    if (before !== undefined && before * stopPointUnitBytes > tarOffset)
      reader.fail('a stop point contradicts a checkpoint')
    if (window.offset + window.lengthBytes > windows.sizeBytes) reader.fail('a window ends beyond its segment')
  }
  if (
    stopPoints.length * stopPointDistanceBytes > sizeBytes ||
    (stopPoints.at(-1) ?? 0) * stopPointUnitBytes > tarBytes
  )
    reader.fail('a stop point is beyond the blob')
  return { digest, diffId, sizeBytes, tarBytes, compression, checkpoints, stopPoints, windows, pieces }
}

/** Each as its distance from the one before: seven bits a byte, lowest first; the eighth is set where more follow. */
function encodeStopPoints(stopPoints: Uint32Array): Uint8Array {
  const bytes: number[] = []
  let previous = 0
  for (const stopPoint of stopPoints) {
    let distance = stopPoint - previous
    for (; distance > 0x7f; distance >>>= 7) bytes.push((distance & 0x7f) | 0x80)
    bytes.push(distance)
    previous = stopPoint
  }
  return Uint8Array.from(bytes)
}

function parseStopPoints(reader: CborReader, what: string): Uint32Array {
  const bytes = reader.bytes(what)
  const stopPoints = new Uint32Array(bytes.reduce((count, byte) => (byte < 0x80 ? count + 1 : count), 0))
  let stopPoint = 0
  let factor = 1
  let count = 0
  for (const byte of bytes) {
    stopPoint += (byte & 0x7f) * factor
    if (stopPoint > 0xffff_ffff || factor > maxStopPointFactor || (byte === 0 && factor > 1))
      reader.fail('a stop point is out of range')
    if (byte < 0x80) stopPoints[count++] = stopPoint
    factor = byte < 0x80 ? 1 : factor * 0x80
  }
  if (factor > 1) reader.fail('the stop points are cut short')
  return stopPoints
}

function parsePieces(reader: CborReader, what: string): PackedPieces {
  const count = reader.array(what)
  if (count % pieceNumbers !== 0) reader.fail('the pieces are cut short')
  const numbers = new Float64Array(count)
  let segmentEnd = 0
  let tarEnd = 0
  for (let i = 0; i < count; i += pieceNumbers) {
    const segmentOffset = segmentEnd + reader.unsigned(what)
    const lengthBytes = reader.unsigned(what)
    const tarOffset = tarEnd + reader.unsigned(what)
    segmentEnd = segmentOffset + lengthBytes
    tarEnd = tarOffset + lengthBytes
    if (!Number.isSafeInteger(segmentEnd) || !Number.isSafeInteger(tarEnd)) reader.fail('a piece is out of range')
    numbers[i] = segmentOffset
    numbers[i + 1] = lengthBytes
    numbers[i + 2] = tarOffset
  }
  return new PackedPieces(numbers)
}

function parseCheckpoints(reader: CborReader, what: string): Checkpoint[] {
  const count = reader.array(what)
  if (count % checkpointNumbers !== 0) reader.fail('the checkpoints are cut short')
  const checkpoints: Checkpoint[] = []
  let bits = 0
  let tar = 0
  let windowsEnd = 0
  for (let i = 0; i < count; i += checkpointNumbers) {
    const [bitDistance, tarDistance] = [reader.unsigned(what), reader.unsigned(what)]
    if (i > 0 && (bitDistance === 0 || tarDistance === 0)) reader.fail('two checkpoints are at the same place')
    bits += bitDistance
    tar += tarDistance
    const offset = windowsEnd + reader.unsigned(what)
    const lengthBytes = reader.unsigned(what)
    windowsEnd = offset + lengthBytes
    if (!Number.isSafeInteger(bits) || !Number.isSafeInteger(tar) || !Number.isSafeInteger(windowsEnd))
      reader.fail('a checkpoint is out of range')
    checkpoints.push({ bitOffset: bits, tarOffset: tar, window: { offset, lengthBytes } })
  }
  return checkpoints
}
