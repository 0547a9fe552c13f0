import type { Digest } from '../../protocol/digest.ts'
import { isOfLocal } from './local-reference.ts'
import type { RunningImports } from '../images/running-imports.ts'
import type { Availability } from '../peers/availability.ts'
import type { Pins } from '../seeds/pins.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ImportTransactions } from '../store/import-transaction.ts'
import type { Inventory } from '../store/inventory.ts'

/**
 * The cost of getting a chunk again, as the binary logarithm of a number of uses: a chunk that costs twice as much
 * stays as long as one that is used twice as often. Peers are near. A segment of metadata may have to be made anew out
 * of layer indexes.
 */
const costs = { nobodyNeedsIt: -1_000, held: 0, registry: 1, metadata: 2 } as const

export interface KeptChunksParts {
  /** Peer id of this host. */
  own: string
  catalog: Pick<Catalog, 'images' | 'rootfsDigests' | 'rootfsParts' | 'profile' | 'onObject'>
  pins: Pick<Pins, 'list'>
  inventory: Pick<Inventory, 'requestOf' | 'tablesWith' | 'isProvisional'>
  transactions: Pick<ImportTransactions, 'has'>
  imports: Pick<RunningImports, 'list'>
  availability: Pick<Availability, 'holders'>
}

/**
 * Ids of segments: of all rootfs; their metadata; those of images `local:NAME` that this host has made, and that others
 * have.
 */
interface RecordedTables {
  all: Set<Digest>
  metadata: Set<Digest>
  own: Set<Digest>
  others: Set<Digest>
}

/** Says of a chunk what it costs to get it again; undefined where it may not be evicted. */
export type Judge = (digest: Digest) => number | undefined

/**
 * Knows the chunks that eviction leaves alone: those of pinned images, of imports and seeds under way, and those that
 * nobody else may have.
 *
 * An image `local:NAME` is in no registry. The host that made it keeps all its chunks. Another host gives a chunk up
 * only where a connected member holds it whose id comes before its own: so two that hold it do not both rely on the
 * other.
 */
export class KeptChunks {
  readonly #parts: KeptChunksParts
  /** Segments of rootfs, in order; what a digest stands for does not change. */
  readonly #tables = new Map<Digest, readonly Digest[]>()
  /** Segments that are kept whole for as long as somebody works on them, and how many do. */
  readonly #held = new Map<Digest, number>()
  /** The tables that the records of this host name; undefined where the records have changed. */
  #records: Promise<RecordedTables> | undefined
  #areLayersTracked = false
  #localImports = 0

  constructor(parts: KeptChunksParts) {
    this.#parts = parts
    parts.catalog.onObject(() => (this.#records = undefined))
  }

  /** From now on a chunk that no tracked segment has is one that nobody needs: layers and windows are tracked, too. */
  layersTracked(): void {
    this.#areLayersTracked = true
  }

  /** Runs an import of a `local:` image, whose chunks nobody else has while no record says whose they are. */
  async whileImporting<T>(task: () => Promise<T>): Promise<T> {
    this.#localImports++
    try {
      return await task()
    } finally {
      this.#localImports--
    }
  }

  /** Whether what no rootfs has may be of one that is about to be recorded. */
  get isImporting(): boolean {
    return !this.#areLayersTracked || this.#localImports > 0 || this.#parts.imports.list().length > 0
  }

  /** Keeps all chunks of these segments until the returned handle is disposed of. */
  hold(tables: readonly Digest[]): Disposable {
    for (const table of tables) this.#held.set(table, (this.#held.get(table) ?? 0) + 1)
    return {
      [Symbol.dispose]: () => {
        for (const table of tables) {
          const left = (this.#held.get(table) ?? 1) - 1
          if (left === 0) this.#held.delete(table)
          else this.#held.set(table, left)
        }
      },
    }
  }

  isHeld(table: Digest): boolean {
    return this.#held.has(table)
  }

  /** How things stand now. */
  async judge(): Promise<Judge> {
    const { own, catalog, pins, inventory, transactions } = this.#parts
    this.#records ??= this.#read()
    const { all, metadata, own: ownLocal, others: local } = await this.#records
    const kept = new Set(ownLocal)
    const keptChunks = new Set<Digest>()
    for (const { rootfsDigest, extent } of pins.list()) {
      const tables = await this.#tablesOf(rootfsDigest)
      for (const table of extent === 'full' ? tables : tables.slice(0, 1)) kept.add(table)
      if (extent === 'hot')
        for (const chunk of (await catalog.profile(rootfsDigest))?.chunks ?? []) keptChunks.add(chunk)
    }
    return (digest) => {
      if (transactions.has(digest) || keptChunks.has(digest)) return undefined
      const tables = inventory.tablesWith(digest)
      if (tables.some((table) => kept.has(table) || this.#held.has(table))) return undefined
      const ofRootfs = tables.filter((table) => all.has(table))
      const holders = this.#holders(digest)
      if (ofRootfs.some((table) => local.has(table)) && !holders.some((peer) => peer < own)) return undefined
      if (ofRootfs.length === 0 && this.isImporting) return undefined
      if (tables.every((table) => inventory.isProvisional(table))) return costs.nobodyNeedsIt
      if (holders.length > 0) return costs.held
      // A window of a blob map, without which a layer cannot be read at random.
      if (ofRootfs.length === 0) return undefined
      return ofRootfs.every((table) => metadata.has(table)) ? costs.metadata : costs.registry
    }
  }

  #holders(digest: Digest): string[] {
    const request = this.#parts.inventory.requestOf(digest)
    return request === undefined ? [] : this.#parts.availability.holders(request.table, request.index)
  }

  async #read(): Promise<RecordedTables> {
    const { own, catalog } = this.#parts
    const records: RecordedTables = { all: new Set(), metadata: new Set(), own: new Set(), others: new Set() }
    const digests = await catalog.rootfsDigests()
    const known = new Set(digests)
    for (const digest of this.#tables.keys()) if (!known.has(digest)) this.#tables.delete(digest)
    for (const digest of digests) {
      const tables = await this.#tablesOf(digest)
      for (const table of tables) records.all.add(table)
      if (tables[0] !== undefined) records.metadata.add(tables[0])
    }
    for (const { reference, rootfsDigest, attestation } of await catalog.images()) {
      if (!isOfLocal(reference)) continue
      for (const table of await this.#tablesOf(rootfsDigest))
        (attestation.key === own ? records.own : records.others).add(table)
    }
    return records
  }

  async #tablesOf(rootfs: Digest): Promise<readonly Digest[]> {
    const known = this.#tables.get(rootfs) ?? (await this.#parts.catalog.rootfsParts(rootfs))?.tables
    if (known !== undefined) this.#tables.set(rootfs, known)
    return known ?? []
  }
}
