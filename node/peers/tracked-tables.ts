import type { Bitmap } from '../../protocol/bitmap.ts'
import type { Digest } from '../../protocol/digest.ts'

/** A segment that this host tracks. */
export interface TrackedTable {
  id: Digest
  /** A small number, which another segment may get when this one is no longer tracked. */
  number: number
  /** The chunks of it that this host holds, kept up to date by the inventory. */
  held: Bitmap
}

/** The segments that this host tracks, by their ids and by small numbers. */
export class TrackedTables {
  readonly #byId = new Map<Digest, TrackedTable>()
  readonly #byNumber: (TrackedTable | undefined)[] = []
  readonly #free: number[] = []

  get size(): number {
    return this.#byId.size
  }

  [Symbol.iterator](): MapIterator<TrackedTable> {
    return this.#byId.values()
  }

  get(id: Digest): TrackedTable | undefined {
    return this.#byId.get(id)
  }

  /** @param number one that a table has, or had */
  at(number: number): TrackedTable | undefined {
    return this.#byNumber[number]
  }

  /** Numbers of all tables are less than this. */
  get numbers(): number {
    return this.#byNumber.length
  }

  /** @returns the table; undefined where it is tracked already */
  add(id: Digest, held: Bitmap): TrackedTable | undefined {
    if (this.#byId.has(id)) return undefined
    const table = { id, number: this.#free.pop() ?? this.#byNumber.length, held }
    this.#byId.set(id, table)
    this.#byNumber[table.number] = table
    return table
  }

  /** @returns the table that is no longer tracked */
  delete(id: Digest): TrackedTable | undefined {
    const table = this.#byId.get(id)
    if (table === undefined) return undefined
    this.#byId.delete(id)
    this.#byNumber[table.number] = undefined
    this.#free.push(table.number)
    return table
  }
}
