import { createGunzip, constants, zstdDecompressSync } from 'node:zlib'
import { Readable } from 'node:stream'
import {
  stopPointDistanceBytes,
  stopPointUnitBytes,
  type BlobMap,
  type Checkpoint,
  type Piece,
} from '../../protocol/blob-map.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { decompress } from './decompress.ts'
import { maxWindowBytes } from './gzip/deflate-scanner.ts'
import { resumeGzip } from './gzip/resume.ts'
import { lastAtOrBefore } from './last-at-or-before.ts'

/** A stretch of a blob that can be decoded by itself, and the tar that comes of it. */
export interface Span {
  checkpoint: Checkpoint
  /** In the blob, bytes; the end may be that of the blob. */
  start: number
  end: number
  tarStart: number
  tarEnd: number
}

/** The span that has these bytes of the tar, `tarStart < tarEnd`. */
export function spanOf(map: BlobMap, tarStart: number, tarEnd: number): Span {
  if (map.compression === 'none') {
    return { checkpoint: map.checkpoints[0]!, start: tarStart, end: tarEnd, tarStart, tarEnd }
  }
  const first = lastAtOrBefore(map.checkpoints, tarStart, ({ tarOffset }) => tarOffset)
  const checkpoint = map.checkpoints[first]!
  return {
    checkpoint,
    start: Math.floor(checkpoint.bitOffset / 8),
    tarStart: checkpoint.tarOffset,
    ...endOf(map, tarEnd),
  }
}

/** The first place known to be behind these bytes of the tar: a mark, or a frame. */
function endOf(
  { stopPoints, checkpoints, sizeBytes, tarBytes, compression }: BlobMap,
  tarEnd: number,
): Pick<Span, 'end' | 'tarEnd'> {
  if (compression === 'gzip') {
    const mark = lastAtOrBefore(stopPoints, Math.ceil(tarEnd / stopPointUnitBytes) - 1, (units) => units) + 1
    if (mark < stopPoints.length)
      return { end: (mark + 1) * stopPointDistanceBytes, tarEnd: stopPoints[mark]! * stopPointUnitBytes }
  } else {
    const behind = checkpoints[lastAtOrBefore(checkpoints, tarEnd - 1, ({ tarOffset }) => tarOffset) + 1]
    if (behind !== undefined) return { end: Math.ceil(behind.bitOffset / 8), tarEnd: behind.tarOffset }
  }
  return { end: sizeBytes, tarEnd: tarBytes }
}

/**
 * @param bytes of the blob from `span.start` to `span.end`
 * @param window of the checkpoint, as it is in the window region
 * @returns the tar from `span.tarStart` to `span.tarEnd`
 * @throws invalid where that does not come out
 */
export async function decodeSpan(map: BlobMap, span: Span, bytes: Buffer, window: Uint8Array): Promise<Buffer> {
  const pieces: Buffer[] = []
  const wanted = span.tarEnd - span.tarStart
  let length = 0
  try {
    for await (const piece of outputOf(map, span, bytes, window)) {
      pieces.push(piece)
      length += piece.length
      if (length >= wanted) break
    }
  } catch (cause) {
    if (typeof (cause as { errno?: unknown }).errno !== 'number') throw cause
    throw new P2pfsError(
      'invalid',
      `blob ${map.digest} is damaged from byte ${span.start} on: ${(cause as Error).message}`,
      { cause },
    )
  }
  if (length < wanted)
    throw new P2pfsError(
      'invalid',
      `blob ${map.digest} from byte ${span.start} on makes ${length} bytes, not ${wanted}: it is not what it was when it was indexed`,
    )
  return Buffer.concat(pieces, length).subarray(0, wanted)
}

async function* outputOf(
  { compression }: BlobMap,
  { checkpoint }: Span,
  bytes: Buffer,
  window: Uint8Array,
): AsyncGenerator<Buffer> {
  if (compression === 'none') yield bytes
  else if (compression === 'zstd') yield* decompress(once(bytes))
  else if (checkpoint.bitOffset === 0)
    yield* Readable.from([bytes], { objectMode: false }).pipe(
      createGunzip({ finishFlush: constants.Z_SYNC_FLUSH }),
    ) as AsyncIterable<Buffer>
  else yield* resumeGzip(bytes, { bit: checkpoint.bitOffset % 8, window: expand(window) })
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

/** Which bytes of the tar a chunk needs; undefined for one that is all zero. */
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

/** All chunks of the region that this stretch of the tar has all bytes of; each a buffer of its own. */
export function* chunksOf(
  map: BlobMap,
  table: ChunkTable,
  tar: Buffer,
  tarStart: number,
): Generator<{ index: number; bytes: Buffer }> {
  const tarEnd = tarStart + tar.length
  const [regionStart, regionEnd] = regionOf(map, table, tarStart, tarEnd)
  if (regionStart >= regionEnd) return
  const first = regionStart === 0 ? 0 : table.indexOf(regionStart - 1) + 1
  for (let index = first; index < table.count && table.offsets[index + 1]! <= regionEnd; index++) {
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

/** The stretch of the region whose bytes all come from this stretch of the tar, or are zero. */
function regionOf({ pieces }: BlobMap, table: ChunkTable, tarStart: number, tarEnd: number): [number, number] {
  const before = lastAtOrBefore(pieces, tarStart, ({ tarOffset }) => tarOffset)
  const last = lastAtOrBefore(pieces, tarEnd, ({ tarOffset }) => tarOffset)
  const at = (i: number, tarOffset: number): number => {
    const piece = pieces[i]
    return piece === undefined ? 0 : piece.segmentOffset + Math.min(tarOffset - piece.tarOffset, piece.lengthBytes)
  }
  const lastPiece = pieces[last]
  const whole = lastPiece === undefined || tarEnd >= lastPiece.tarOffset + lastPiece.lengthBytes
  const regionStart =
    before >= 0 && tarStart > pieces[before]!.tarOffset
      ? at(before, tarStart)
      : before <= 0
        ? 0
        : pieces[before - 1]!.segmentOffset + pieces[before - 1]!.lengthBytes
  return [regionStart, whole ? (pieces[last + 1]?.segmentOffset ?? table.sizeBytes) : at(last, tarEnd)]
}

function* overlapping(pieces: readonly Piece[], start: number, end: number): Generator<Piece> {
  for (
    let i = Math.max(
      0,
      lastAtOrBefore(pieces, start, ({ segmentOffset }) => segmentOffset),
    );
    i < pieces.length;
    i++
  ) {
    const piece = pieces[i]!
    if (piece.segmentOffset >= end) return
    if (piece.segmentOffset + piece.lengthBytes > start) yield piece
  }
}
