import { createGunzip, constants, zstdDecompressSync } from 'node:zlib'
import { Readable } from 'node:stream'
import { stopPointDistanceBytes, stopPointUnitBytes, type BlobMap, type Checkpoint } from '../../protocol/blob-map.ts'
import type { PackedPieces, Piece } from '../../protocol/packed-pieces.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { release } from '../base/release.ts'
import { decompress, outputBytes } from './decompress.ts'
import { maxWindowBytes } from './gzip/deflate-scanner.ts'
import { resumeGzip } from './gzip/resume.ts'
import { lastAtOrBefore } from './last-at-or-before.ts'

/** A range of a blob that can be decoded without the rest of the blob, and the bytes that it decodes to. */
export interface BlobRange {
  /** In the blob, bytes; the end may be that of the blob. */
  start: number
  end: number
  /** In what the blob decodes to (a layer's tar), bytes. */
  tarStart: number
  tarEnd: number
}

/** The smallest range that has these bytes of the tar, `tarStart < tarEnd`. */
export function rangeOf(map: BlobMap, tarStart: number, tarEnd: number): BlobRange {
  if (map.compression === 'none') return { start: tarStart, end: tarEnd, tarStart, tarEnd }
  const { bitOffset, tarOffset } = checkpointOf(map, { tarStart })
  return { start: Math.floor(bitOffset / 8), tarStart: tarOffset, ...endOf(map, tarEnd) }
}

/** The checkpoint from which a range is decoded. */
export function checkpointOf({ checkpoints }: BlobMap, { tarStart }: Pick<BlobRange, 'tarStart'>): Checkpoint {
  return checkpoints[lastAtOrBefore(checkpoints.length, tarStart, (i) => checkpoints[i]!.tarOffset)]!
}

/** The first place in the blob that is known to come after these bytes of the tar: a stop point, or a frame. */
function endOf(
  { stopPoints, checkpoints, sizeBytes, tarBytes, compression }: BlobMap,
  tarEnd: number,
): Pick<BlobRange, 'end' | 'tarEnd'> {
  if (compression === 'gzip') {
    const stopPoint =
      lastAtOrBefore(stopPoints.length, Math.ceil(tarEnd / stopPointUnitBytes) - 1, (i) => stopPoints[i]!) + 1
    if (stopPoint < stopPoints.length)
      return { end: (stopPoint + 1) * stopPointDistanceBytes, tarEnd: stopPoints[stopPoint]! * stopPointUnitBytes }
  } else {
    const behind = checkpoints[lastAtOrBefore(checkpoints.length, tarEnd - 1, (i) => checkpoints[i]!.tarOffset) + 1]
    if (behind !== undefined) return { end: Math.ceil(behind.bitOffset / 8), tarEnd: behind.tarOffset }
  }
  return { end: sizeBytes, tarEnd: tarBytes }
}

/**
 * @param bytes the blob's bytes from `range.start` to `range.end`
 * @param window the window of the range's checkpoint, as it is in the window segment
 * @returns the tar from `range.tarStart` to `range.tarEnd`; it may be in the memory of `bytes`
 * @throws invalid where the bytes decode to something else
 */
export async function decodeRange(map: BlobMap, range: BlobRange, bytes: Buffer, window: Uint8Array): Promise<Buffer> {
  const pieces: Buffer[] = []
  const wanted = range.tarEnd - range.tarStart
  let length = 0
  try {
    for await (const piece of outputOf(map, range, bytes, window)) {
      pieces.push(piece)
      length += piece.length
      if (length >= wanted) break
    }
  } catch (cause) {
    if (typeof (cause as { errno?: unknown }).errno !== 'number') throw cause
    throw new P2pfsError(
      'invalid',
      `blob ${map.digest} is damaged from byte ${range.start} on: ${(cause as Error).message}`,
      { cause },
    )
  }
  if (length < wanted)
    throw new P2pfsError(
      'invalid',
      `blob ${map.digest} from byte ${range.start} on makes ${length} bytes, not ${wanted}: ` +
        'it is not what it was when it was indexed',
    )
  if (pieces.length === 1) return pieces[0]!.subarray(0, wanted)
  const tar = Buffer.concat(pieces, wanted)
  for (const piece of pieces) release(piece)
  return tar
}

async function* outputOf(map: BlobMap, range: BlobRange, bytes: Buffer, window: Uint8Array): AsyncGenerator<Buffer> {
  const { bitOffset } = checkpointOf(map, range)
  if (map.compression === 'none') yield bytes
  else if (map.compression === 'zstd') yield* decompress(once(bytes))
  else if (bitOffset === 0)
    yield* Readable.from([bytes], { objectMode: false }).pipe(
      createGunzip({ finishFlush: constants.Z_SYNC_FLUSH, chunkSize: outputBytes }),
    ) as AsyncIterable<Buffer>
  else yield* resumeGzip(bytes, { bit: bitOffset % 8, window: expand(window) })
}

function expand(window: Uint8Array): Uint8Array {
  if (window.length === 0) return window
  try {
    return zstdDecompressSync(window, { maxOutputLength: maxWindowBytes })
  } catch (cause) {
    throw new P2pfsError('invalid', `a window is damaged, or too long: ${(cause as Error).message}`, { cause })
  }
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes
}

/** The range of the tar that a chunk needs; undefined for a chunk that is all zero. */
export function tarOf(
  map: BlobMap,
  table: ChunkTable,
  index: number,
): { tarStart: number; tarEnd: number } | undefined {
  const [start, end] = [table.offsets[index]!, table.offsets[index + 1]!]
  let tarStart: number | undefined
  let tarEnd = 0
  for (const piece of overlapping(map.pieces, start, end)) {
    tarStart ??= piece.tarOffset + Math.max(0, start - piece.segmentOffset)
    tarEnd = piece.tarOffset + Math.min(piece.lengthBytes, end - piece.segmentOffset)
  }
  return tarStart === undefined ? undefined : { tarStart, tarEnd }
}

/** All chunks of the data segment that are whole in these bytes of the tar; each is a buffer of its own. */
export function* chunksOf(
  map: BlobMap,
  table: ChunkTable,
  tar: Buffer,
  tarStart: number,
): Generator<{ index: number; bytes: Buffer }> {
  const tarEnd = tarStart + tar.length
  const [segmentStart, segmentEnd] = segmentBytesOf(map, table, tarStart, tarEnd)
  if (segmentStart >= segmentEnd) return
  const first = segmentStart === 0 ? 0 : table.indexOf(segmentStart - 1) + 1
  for (let index = first; index < table.count && table.offsets[index + 1]! <= segmentEnd; index++) {
    const [start, end] = [table.offsets[index]!, table.offsets[index + 1]!]
    const bytes = Buffer.alloc(end - start)
    for (const { segmentOffset, lengthBytes, tarOffset } of overlapping(map.pieces, start, end)) {
      const from = Math.max(0, start - segmentOffset)
      const to = Math.min(lengthBytes, end - segmentOffset)
      tar.copy(bytes, segmentOffset + from - start, tarOffset + from - tarStart, tarOffset + to - tarStart)
    }
    yield { index, bytes }
  }
}

/** From where to where all bytes of the data segment come from these bytes of the tar, or are zero. */
function segmentBytesOf({ pieces }: BlobMap, table: ChunkTable, tarStart: number, tarEnd: number): [number, number] {
  const before = lastAtOrBefore(pieces.length, tarStart, (i) => pieces.get(i)!.tarOffset)
  const last = lastAtOrBefore(pieces.length, tarEnd, (i) => pieces.get(i)!.tarOffset)
  const segmentOffset = (i: number, tarOffset: number): number => {
    const piece = pieces.get(i)
    return piece === undefined ? 0 : piece.segmentOffset + Math.min(tarOffset - piece.tarOffset, piece.lengthBytes)
  }
  const lastPiece = pieces.get(last)
  const whole = lastPiece === undefined || tarEnd >= lastPiece.tarOffset + lastPiece.lengthBytes
  const segmentStart =
    before >= 0 && tarStart > pieces.get(before)!.tarOffset
      ? segmentOffset(before, tarStart)
      : before <= 0
        ? 0
        : segmentEndOf(pieces.get(before - 1)!)
  return [segmentStart, whole ? (pieces.get(last + 1)?.segmentOffset ?? table.sizeBytes) : segmentOffset(last, tarEnd)]
}

const segmentEndOf = ({ segmentOffset, lengthBytes }: Piece): number => segmentOffset + lengthBytes

function* overlapping(pieces: PackedPieces, start: number, end: number): Generator<Piece> {
  for (
    let i = Math.max(
      0,
      lastAtOrBefore(pieces.length, start, (i) => pieces.get(i)!.segmentOffset),
    );
    i < pieces.length;
    i++
  ) {
    const piece = pieces.get(i)!
    if (piece.segmentOffset >= end) return
    if (piece.segmentOffset + piece.lengthBytes > start) yield piece
  }
}
