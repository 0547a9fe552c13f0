import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { Digest } from '../../protocol/digest.ts'

/**
 * The chunk tables of the catalog that somebody uses now, by their ids: images that share a layer share its table in
 * memory. It keeps none alive, and forgets those that are gone.
 */
export class SharedTables {
  readonly #tables = new Map<Digest, WeakRef<ChunkTable>>()
  readonly #gone = new FinalizationRegistry<Digest>((id) => {
    if (this.#tables.get(id)?.deref() === undefined) this.#tables.delete(id)
  })

  get(id: Digest): ChunkTable | undefined {
    return this.#tables.get(id)?.deref()
  }

  /** @returns the table with this id that others use already, or this one */
  share(table: ChunkTable): ChunkTable {
    const shared = this.get(table.id)
    if (shared !== undefined) return shared
    this.#tables.set(table.id, new WeakRef(table))
    this.#gone.register(table, table.id)
    return table
  }
}
