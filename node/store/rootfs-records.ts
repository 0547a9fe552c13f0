import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { parseDigest, type Digest } from '../../protocol/digest.ts'
import { rootfsDigest, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import { keys, prefixes, under } from './keys.ts'
import type { CatalogRecords } from './catalog-records.ts'
import {
  encodeRootfsRecord,
  encodeTable,
  manifestOf,
  parseRootfsRecord,
  parseTable,
  recordOf,
  tableIdsOf,
} from './rootfs-record.ts'
import { SharedTables } from './shared-tables.ts'

/** The rootfs manifests of the catalog. A chunk table that several of them have is stored once, and is in memory once. */
export class RootfsRecords {
  readonly #records: CatalogRecords
  readonly #tables = new SharedTables()

  constructor({ records }: { records: CatalogRecords }) {
    this.#records = records
  }

  /** @returns the rootfs digest */
  async put(manifest: RootfsManifest): Promise<Digest> {
    const digest = rootfsDigest(manifest)
    const tables = new Map(tablesOf(manifest).map((table) => [table.id, table]))
    const known = await this.#records.hasMany([...tables.keys()].map(keys.table))
    const missing = [...tables.values()].filter((_table, i) => !known[i])
    for (const table of tables.values()) this.#tables.share(table)
    await this.#records.putAll([
      ...missing.map((table) => [keys.table(table.id), encodeTable(table)] as const),
      [keys.rootfs(digest), encodeRootfsRecord(recordOf(manifest))],
    ])
    return digest
  }

  async has(digest: Digest): Promise<boolean> {
    return await this.#records.has(keys.rootfs(digest))
  }

  async get(digest: Digest): Promise<RootfsManifest | undefined> {
    const bytes = await this.#records.get(keys.rootfs(digest))
    if (bytes === undefined) return undefined
    const record = parseRootfsRecord(bytes)
    const tables: ChunkTable[] = []
    for (const id of tableIdsOf(record)) {
      const table = this.#tables.get(id) ?? (await this.#storedTable(id))
      if (table === undefined) return undefined
      tables.push(table)
    }
    return manifestOf(record, tables)
  }

  async #storedTable(id: Digest): Promise<ChunkTable | undefined> {
    const bytes = await this.#records.get(keys.table(id))
    return bytes && this.#tables.share(parseTable(bytes, id))
  }

  /** The ids of a manifest's tables, and its layers' diff ids: less work than the manifest. */
  async parts(digest: Digest): Promise<{ tables: Digest[]; diffIds: Digest[] } | undefined> {
    const bytes = await this.#records.get(keys.rootfs(digest))
    if (bytes === undefined) return undefined
    const record = parseRootfsRecord(bytes)
    return { tables: tableIdsOf(record), diffIds: record.layers.map(({ diffId }) => diffId) }
  }

  async digests(): Promise<Digest[]> {
    const names = await this.#records.keys(under(prefixes.rootfs))
    return names.map((name) => parseDigest(name.slice(prefixes.rootfs.length)))
  }

  /** @param tables those that no other manifest has: they are removed, too */
  async delete(digest: Digest, tables: Iterable<Digest>): Promise<void> {
    await this.#records.delete(keys.rootfs(digest))
    for (const table of tables) await this.#records.delete(keys.table(table))
  }
}
