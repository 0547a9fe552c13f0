import { Bitmap } from '../../protocol/bitmap.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { Digest } from '../../protocol/digest.ts'

/** A place of a chunk: several layers may share it. */
interface Place {
  table: Digest
  index: number
  lengthBytes: number
}

/** Which chunks of each tracked segment are on this host, kept as the bitmaps that peers are told. */
export class Holdings {
  readonly #held = new Map<Digest, Bitmap>()
  readonly #places = new Map<Digest, Place[]>()
  /** Segments of layers that no rootfs has yet. */
  readonly #provisional = new Map<Digest, ChunkTable>()

  /**
   * Tracks a segment; `has` tells which chunks are here already.
   * @param options `provisional`: no rootfs has it yet, and {@link dropProvisional} takes it away again
   * @returns its bitmap; undefined where it is tracked already
   */
  addTable(
    table: ChunkTable,
    has: (digest: Digest) => boolean,
    { provisional = false }: { provisional?: boolean } = {},
  ): Bitmap | undefined {
    if (!provisional) this.#provisional.delete(table.id)
    if (this.#held.has(table.id)) return undefined
    if (provisional) this.#provisional.set(table.id, table)
    const held = new Bitmap(table.count)
    for (let index = 0; index < table.count; index++) {
      const digest = table.digestAt(index)
      const places = this.#places.get(digest)
      const place = { table: table.id, index, lengthBytes: table.lengthAt(index) }
      if (places === undefined) this.#places.set(digest, [place])
      else places.push(place)
      if (has(digest)) held.set(index)
    }
    this.#held.set(table.id, held)
    return held
  }

  /** Forgets a segment that no rootfs has. @returns the chunks of it that were marked; undefined where it stays */
  dropProvisional(id: Digest): readonly number[] | undefined {
    const table = this.#provisional.get(id)
    if (table === undefined) return undefined
    const held = this.#held.get(id)!
    this.#provisional.delete(id)
    this.#held.delete(id)
    const marked: number[] = []
    for (let index = 0; index < table.count; index++) {
      const digest = table.digestAt(index)
      const others = this.#places.get(digest)?.filter((place) => place.table !== id) ?? []
      if (others.length === 0) this.#places.delete(digest)
      else this.#places.set(digest, others)
      if (held.get(index)) marked.push(index)
    }
    return marked
  }

  /** A place of the chunk in a tracked segment; undefined where none has it. */
  placeOf(digest: Digest): Place | undefined {
    return this.#places.get(digest)?.[0]
  }

  /** Whether a tracked segment has the chunk, here or not. */
  isReferenced(digest: Digest): boolean {
    return this.#places.has(digest)
  }

  /** Whether all chunks of a tracked segment are here. */
  isWhole(table: Digest): boolean {
    return this.#held.get(table)?.isFull === true
  }

  /** Bytes of these segments that are here. One that is not tracked counts nothing. */
  localBytes(tables: readonly ChunkTable[]): number {
    let bytes = 0
    for (const table of tables) {
      const held = this.#held.get(table.id)
      if (held === undefined) continue
      for (let index = 0; index < table.count; index++) if (held.get(index)) bytes += table.lengthAt(index)
    }
    return bytes
  }

  /** Marks the chunk wherever it stands. @returns the places that were not marked before */
  add(digest: Digest): readonly Place[] {
    const added: Place[] = []
    for (const place of this.#places.get(digest) ?? []) {
      const held = this.#held.get(place.table)
      if (held === undefined || held.get(place.index)) continue
      held.set(place.index)
      added.push(place)
    }
    return added
  }

  /** Unmarks a chunk that is gone. @returns the places that were marked */
  remove(digest: Digest): readonly Place[] {
    const removed: Place[] = []
    for (const place of this.#places.get(digest) ?? []) {
      const held = this.#held.get(place.table)
      if (held?.get(place.index) !== true) continue
      held.clear(place.index)
      removed.push(place)
    }
    return removed
  }
}
