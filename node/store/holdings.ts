import { Bitmap } from '../../protocol/bitmap.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { Digest } from '../../protocol/digest.ts'
import { PlaceIndex, type FoundPlace, type Indexed } from './place-index.ts'

/** A place of a chunk: several layers may share it. */
interface Place {
  table: Digest
  index: number
  lengthBytes: number
}

interface Segment extends Indexed {
  held: Bitmap
  heldChunks: number
  heldBytes: number
  /** No rootfs has it yet. */
  isProvisional: boolean
}

/**
 * Knows which chunks of each tracked segment are on this host, as the bitmaps that peers are told. It keeps the tables,
 * too: 40 bytes for each chunk.
 */
export class Holdings {
  readonly #segments = new Map<Digest, Segment>()
  readonly #places = new PlaceIndex<Segment>()

  /**
   * Tracks a segment; `has` tells which chunks are here already.
   * @param options `provisional`: no rootfs has it yet, and {@link dropProvisional} takes it away again
   * @returns its bitmap; undefined where it is tracked already
   */
  addTable(
    table: ChunkTable,
    has: (index: number) => boolean,
    { provisional = false }: { provisional?: boolean } = {},
  ): Bitmap | undefined {
    const known = this.#segments.get(table.id)
    if (known !== undefined) {
      if (!provisional) known.isProvisional = false
      return undefined
    }
    const held = new Bitmap(table.count)
    const segment = { table, first: 0, held, heldChunks: 0, heldBytes: 0, isProvisional: provisional }
    for (let index = 0; index < table.count; index++) if (has(index)) mark(segment, index)
    this.#places.add(segment)
    this.#segments.set(table.id, segment)
    return held
  }

  isProvisional(id: Digest): boolean {
    return this.#segments.get(id)?.isProvisional === true
  }

  /** Forgets a segment that no rootfs has. @returns as {@link drop} */
  dropProvisional(id: Digest): readonly number[] | undefined {
    return this.isProvisional(id) ? this.drop(id) : undefined
  }

  /** Forgets a segment. @returns the chunks of it that were marked; undefined where it is not tracked */
  drop(id: Digest): readonly number[] | undefined {
    const segment = this.#segments.get(id)
    if (segment === undefined) return undefined
    this.#segments.delete(id)
    this.#places.delete(segment)
    const marked: number[] = []
    for (let index = 0; index < segment.table.count; index++) if (segment.held.get(index)) marked.push(index)
    return marked
  }

  /** A place of the chunk in a tracked segment; undefined where none has it. */
  placeOf(digest: Digest): Place | undefined {
    for (const place of this.#places.of(digest)) return described(place)
    return undefined
  }

  /** Ids of the tracked segments that have the chunk, here or not. */
  tablesWith(digest: Digest): Digest[] {
    return [...this.#places.of(digest)].map(({ segment }) => segment.table.id)
  }

  /** Whether a tracked segment has the chunk, here or not. */
  isReferenced(digest: Digest): boolean {
    return this.#places.has(digest)
  }

  /** Whether all chunks of a tracked segment are here. */
  isWhole(table: Digest): boolean {
    const segment = this.#segments.get(table)
    return segment !== undefined && segment.heldChunks === segment.table.count
  }

  /** Bytes of these segments that are here. One that is not tracked counts nothing. */
  localBytes(tables: readonly ChunkTable[]): number {
    return tables.reduce((bytes, { id }) => bytes + (this.#segments.get(id)?.heldBytes ?? 0), 0)
  }

  /** Marks the chunk wherever it stands. @returns the places that were not marked before */
  add(digest: Digest): readonly Place[] {
    const added: Place[] = []
    for (const place of this.#places.of(digest)) if (mark(place.segment, place.index)) added.push(described(place))
    return added
  }

  /** Unmarks a chunk that is gone. @returns the places that were marked */
  remove(digest: Digest): readonly Place[] {
    const removed: Place[] = []
    for (const place of this.#places.of(digest)) {
      const { segment, index } = place
      if (!segment.held.get(index)) continue
      segment.held.clear(index)
      segment.heldChunks--
      segment.heldBytes -= segment.table.lengthAt(index)
      removed.push(described(place))
    }
    return removed
  }
}

/** @returns whether it was not marked before */
function mark(segment: Segment, index: number): boolean {
  if (segment.held.get(index)) return false
  segment.held.set(index)
  segment.heldChunks++
  segment.heldBytes += segment.table.lengthAt(index)
  return true
}

function described({ segment: { table }, index }: FoundPlace<Segment>): Place {
  return { table: table.id, index, lengthBytes: table.lengthAt(index) }
}
