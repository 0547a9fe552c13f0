import type { Bitmap } from '../../protocol/bitmap.ts'
import { Bitmap as BitmapClass } from '../../protocol/bitmap.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { Digest } from '../../protocol/digest.ts'

/** Where a chunk stands: several layers may share it. */
interface Place {
  table: Digest
  index: number
}

/** Which chunks of each known region are on this host, kept as the bitmaps that peers are told. */
export class Holdings {
  readonly #held = new Map<Digest, Bitmap>()
  readonly #places = new Map<Digest, Place[]>()
  /** Regions of layers that no known rootfs has yet. */
  readonly #provisional = new Map<Digest, ChunkTable>()

  /**
   * Takes up a region; `has` tells what is here already.
   * @param provisional no known rootfs has it yet: {@link dropProvisional} takes it away again
   * @returns its bitmap, or undefined where it was known.
   */
  addTable(
    table: ChunkTable,
    has: (digest: Digest) => boolean,
    { provisional = false }: { provisional?: boolean } = {},
  ): Bitmap | undefined {
    if (!provisional) this.#provisional.delete(table.id)
    if (this.#held.has(table.id)) return undefined
    if (provisional) this.#provisional.set(table.id, table)
    const held = new BitmapClass(table.count)
    for (let index = 0; index < table.count; index++) {
      const digest = table.digestAt(index)
      const places = this.#places.get(digest)
      if (places === undefined) this.#places.set(digest, [{ table: table.id, index }])
      else places.push({ table: table.id, index })
      if (has(digest)) held.set(index)
    }
    this.#held.set(table.id, held)
    return held
  }

  /** Forgets a region that no rootfs has. @returns the chunks of it that were marked, where it is forgotten */
  dropProvisional(id: Digest): readonly number[] {
    const table = this.#provisional.get(id)
    if (table === undefined) return []
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

  /** Whether a known region has the chunk, here or not. */
  knows(digest: Digest): boolean {
    return this.#places.has(digest)
  }

  /** Whether all chunks of a known region are here. */
  isWhole(table: Digest): boolean {
    return this.#held.get(table)?.isFull === true
  }

  /** Bytes of these regions that are here; of one that is not known, none. */
  localBytes(tables: readonly ChunkTable[]): number {
    let bytes = 0
    for (const table of tables) {
      const held = this.#held.get(table.id)
      if (held === undefined) continue
      for (let index = 0; index < table.count; index++) if (held.get(index)) bytes += table.lengthAt(index)
    }
    return bytes
  }

  /** Marks the chunk wherever it stands. @returns the places that are new. */
  add(digest: Digest): readonly Place[] {
    const fresh: Place[] = []
    for (const place of this.#places.get(digest) ?? []) {
      const held = this.#held.get(place.table)
      if (held === undefined || held.get(place.index)) continue
      held.set(place.index)
      fresh.push(place)
    }
    return fresh
  }

  /** Unmarks a chunk that is gone. @returns the places that were marked. */
  remove(digest: Digest): readonly Place[] {
    const gone: Place[] = []
    for (const place of this.#places.get(digest) ?? []) {
      const held = this.#held.get(place.table)
      if (held?.get(place.index) !== true) continue
      held.clear(place.index)
      gone.push(place)
    }
    return gone
  }

  *tables(): Generator<{ table: Digest; held: Bitmap }> {
    for (const [table, held] of this.#held) yield { table, held }
  }
}
