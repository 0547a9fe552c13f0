import type { Piece } from '../../protocol/blob-map.ts'
import { maxChunkBytes } from '../../protocol/chunk-table.ts'
import { lastAtOrBefore } from './last-at-or-before.ts'
import { bigBytes } from './chunker.ts'

/**
 * The first offset from `tarStart` to `tarEnd` of the tar at which a chunk of the data segment may begin; undefined
 * where none can. A chunk may begin with any file's content, and every {@link maxChunkBytes} within that of a large
 * one.
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
