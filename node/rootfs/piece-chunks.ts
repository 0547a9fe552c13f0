import type { Piece } from '../../protocol/blob-map.ts'
import { maxChunkBytes } from '../../protocol/chunk-table.ts'
import { lastAtOrBefore } from './last-at-or-before.ts'
import { bigBytes } from './chunker.ts'

/**
 * Where in this stretch of the tar a chunk of the data region may begin first; undefined where none does. Content of a small
 * file may begin a chunk with it; that of a large one does, and every {@link maxChunkBytes}.
 */
export function firstChunkIn(pieces: readonly Piece[], tarStart: number, tarEnd: number): number | undefined {
  for (
    let i = Math.max(
      0,
      lastAtOrBefore(pieces, tarStart, ({ tarOffset }) => tarOffset),
    );
    i < pieces.length;
    i++
  ) {
    const { tarOffset, lengthBytes } = pieces[i]!
    if (tarOffset >= tarEnd) return undefined
    if (tarOffset >= tarStart) return tarOffset
    const slice = tarOffset + Math.ceil((tarStart - tarOffset) / maxChunkBytes) * maxChunkBytes
    if (lengthBytes >= bigBytes && slice < Math.min(tarOffset + lengthBytes, tarEnd)) return slice
  }
  return undefined
}
