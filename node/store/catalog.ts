import { promisify } from 'node:util'
import { zstdCompress, zstdDecompress } from 'node:zlib'
import { encodeBlobMap, parseBlobMap, type BlobMap } from '../../protocol/blob-map.ts'
import { encodeBootProfile, parseBootProfile, type BootProfile } from '../../protocol/boot-profile.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { parseDigest, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { encodeCbor, Fields, parseCbor } from '../../protocol/cbor.ts'
import { encodeImageRecord, parseImageRecord, type ImageName, type ImageRecord } from '../../protocol/image-record.ts'
import { parseNameStatement, type NameStatement } from '../../protocol/name-statement.ts'
import { compressPieces, expandPieces } from '../base/compress.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import { release } from '../base/release.ts'
import { encodeLayerIndexPieces, formatVersion, LayerIndexParser, type LayerIndex } from '../../protocol/layer-index.ts'
import { encodePublication, parsePublication, type Publication } from '../../protocol/publication.ts'
import {
  encodeRootfsManifest,
  parseRootfsManifest,
  rootfsDigest,
  type RootfsFormat,
  type RootfsManifest,
} from '../../protocol/rootfs-manifest.ts'
import { encodeSeedJob, parseSeedJob, type SeedJob } from '../../protocol/seed-job.ts'
import type { Log } from '../base/log.ts'
import { CatalogDatabase, type CatalogDatabaseParts, type Database } from './catalog-database.ts'
import { foreign, keys, prefixes, under, unsigned, type KeyRange } from './keys.ts'
import { encodeLieRecord, parseLieRecord, type LieRecord } from './lie-record.ts'
import { parseMountRecord, type MountRecord } from './mount-record.ts'
import {
  encodeRootfsRecord,
  encodeTable,
  manifestOf,
  parseRootfsRecord,
  parseTable,
  recordOf,
  tableIdsOf,
} from './rootfs-record.ts'
import { isByDigest, isSameImage } from './same-image.ts'
import { SharedTables } from './shared-tables.ts'
import { encodePinRecord, parsePinRecord, type PinKey, type PinRecord } from './pin-record.ts'

const compress = promisify(zstdCompress)
const decompress = promisify(zstdDecompress)

/** The largest record that the object protocol carries; with LevelDB's write buffer of 4 MiB no file of the catalog grows beyond 64 MiB (bytes). */
const maxLayerRecordBytes = 56 * 1024 * 1024

/** An object that peers may ask for. */
export type CatalogObject = { kind: 'image'; name: ImageName } | { kind: 'rootfs' | 'layer' | 'map'; digest: Digest }

/** Told of an object that has come to the catalog, or gone from it. */
export type ObjectListener = (object: CatalogObject, isHere: boolean) => void

/** The newest statement that this host has accepted for a name. */
export interface AcceptedName {
  manifestDigest: Digest
  nameStatement: NameStatement
}

/**
 * The records of this host, besides chunks: images, rootfs manifests, layer indexes, publications, boot profiles, seed
 * jobs, pins, mounts. A record is written after all that it points to; `sync` puts reach the disk before they resolve.
 */
export class Catalog implements AsyncDisposable {
  readonly #log: Log
  readonly #database: CatalogDatabase
  readonly #tables = new SharedTables()
  readonly #listeners = new Set<ObjectListener>()

  private constructor({ database, log }: { database: CatalogDatabase; log: Log }) {
    this.#log = log
    this.#database = database
  }

  /**
   * Removes the records of other format versions: their images are imported again. Image records of earlier versions, whose
   * names nobody has signed, are removed too: their images are resolved again.
   * @param options `memoryDirectory`: where it is while the disk is full, on a tmpfs
   * @throws as {@link CatalogDatabase.open}
   */
  static async open(
    parts: CatalogDatabaseParts,
    { directory, memoryDirectory = `${directory}-in-memory` }: { directory: string; memoryDirectory?: string },
  ): Promise<Catalog> {
    const database = await CatalogDatabase.open(parts, { disk: directory, memory: memoryDirectory })
    const catalog = new Catalog({ database, log: parts.log })
    for (const range of unsigned) {
      const records = (await catalog.#read(async (level) => await level.keys(range).all())).length
      if (records === 0) continue
      parts.log.info('image records of an earlier version are removed; their images are resolved again', { records })
      await catalog.#clear(range)
    }
    await catalog.#removeForeign()
    for (const key of await catalog.#read(async (level) => await level.keys(under(prefixes.wholeRootfs)).all())) {
      const bytes = await catalog.#read(async (level) => await level.get(key))
      const manifest = bytes && (await catalog.#parse(key, bytes, parseRootfsManifest))
      if (manifest === undefined) continue
      await catalog.putRootfs(manifest)
      await catalog.#delete(key)
    }
    return catalog
  }

  /** A release that changes the format, or one from before that, loses what this host knew of images, and says so. */
  async #removeForeign(): Promise<void> {
    for (const range of foreign) {
      const keys = await this.#read(async (level) => await level.keys(range).all())
      if (keys.length === 0) continue
      const versions = [...new Set(keys.map((key) => /^(\d+)\//.exec(key)?.[1] ?? 'none'))]
      this.#log.warn(
        'records of another format version are removed: their images are imported again, their seeds are forgotten',
        { records: keys.length, versions, version: formatVersion },
      )
      await this.#clear(range)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#database.close()
  }

  /** Calls the listener for each object that comes or goes. */
  onObject(listener: ObjectListener): void {
    this.#listeners.add(listener)
  }

  /** The objects that peers may ask for. */
  async *objects(): AsyncGenerator<CatalogObject> {
    for (const name of await this.images()) yield { kind: 'image', name }
    for (const digest of await this.rootfsDigests()) yield { kind: 'rootfs', digest }
    for (const digest of await this.layerDiffIds()) yield { kind: 'layer', digest }
    for (const digest of await this.blobMapDigests()) yield { kind: 'map', digest }
  }

  /** @param options `sync`: whether it must be on the disk before this resolves */
  async putImage(record: ImageRecord, { sync = true }: { sync?: boolean } = {}): Promise<void> {
    await this.#put(keys.image(record), encodeImageRecord(record), sync)
    this.#tell({ kind: 'image', name: record }, true)
  }

  /** A record that cannot be read is removed: its image is resolved again. */
  async image(name: ImageName): Promise<ImageRecord | undefined> {
    const bytes = await this.#read(async (level) => await level.get(keys.image(name)))
    return bytes === undefined ? undefined : await this.#parse(keys.image(name), bytes, parseImageRecord)
  }

  /** As {@link image}. */
  async images(): Promise<ImageRecord[]> {
    return await this.#parseAll(prefixes.image, parseImageRecord)
  }

  /** With the last of its tags an image loses the name that is its digest, which a seed has given it. */
  async deleteImage(name: ImageName): Promise<void> {
    const record = await this.image(name)
    await this.#forgetImage(name)
    if (record === undefined || isByDigest(name)) return
    const others = (await this.images()).filter((other) => isSameImage(other, record))
    if (others.length === 1 && isByDigest(others[0]!)) await this.#forgetImage(others[0]!)
  }

  async #forgetImage(name: ImageName): Promise<void> {
    await this.#delete(keys.image(name))
    this.#tell({ kind: 'image', name }, false)
  }

  async putNamePast(name: Omit<ImageName, 'format'>, { manifestDigest, nameStatement }: AcceptedName): Promise<void> {
    await this.#put(keys.namePast(name), encodeCbor({ manifestDigest, nameStatement }), false)
  }

  async namePast(name: Omit<ImageName, 'format'>): Promise<AcceptedName | undefined> {
    const key = keys.namePast(name)
    const bytes = await this.#read(async (level) => await level.get(key))
    return bytes === undefined ? undefined : await this.#parse(key, bytes, parseAcceptedName)
  }

  async deleteNamePast(name: Omit<ImageName, 'format'>): Promise<void> {
    await this.#delete(keys.namePast(name))
  }

  async putLie(lie: LieRecord): Promise<void> {
    await this.#put(keys.lie(lie), encodeLieRecord(lie), true)
  }

  async lies(): Promise<LieRecord[]> {
    return await this.#parseAll(prefixes.lie, parseLieRecord)
  }

  async deleteLie(lie: LieRecord): Promise<void> {
    await this.#delete(keys.lie(lie))
  }

  /** Tables that other rootfs have too are stored once. @returns the rootfs digest */
  async putRootfs(manifest: RootfsManifest): Promise<Digest> {
    const digest = rootfsDigest(manifest)
    const tables = new Map(tablesOf(manifest).map((table) => [table.id, table]))
    const known = await this.#read(async (level) => await level.hasMany([...tables.keys()].map(keys.table)))
    const missing = [...tables.values()].filter((_table, i) => !known[i])
    for (const table of tables.values()) this.#tables.share(table)
    await this.#putAll([
      ...missing.map((table) => [keys.table(table.id), encodeTable(table)] as const),
      [keys.rootfs(digest), encodeRootfsRecord(recordOf(manifest))],
    ])
    this.#tell({ kind: 'rootfs', digest }, true)
    return digest
  }

  /** The manifest's encoded form. */
  async rootfsBytes(digest: Digest): Promise<Uint8Array | undefined> {
    const manifest = await this.rootfs(digest)
    return manifest && encodeRootfsManifest(manifest)
  }

  /** Its tables are those of other manifests, where somebody uses them now. */
  async rootfs(digest: Digest): Promise<RootfsManifest | undefined> {
    const bytes = await this.#read(async (level) => await level.get(keys.rootfs(digest)))
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
    const bytes = await this.#read(async (level) => await level.get(keys.table(id)))
    return bytes && this.#tables.share(parseTable(bytes, id))
  }

  async hasRootfs(digest: Digest): Promise<boolean> {
    return await this.#read(async (level) => await level.has(keys.rootfs(digest)))
  }

  /** The ids of a rootfs manifest's tables, and its layers' diff ids: less work than the manifest. */
  async rootfsParts(digest: Digest): Promise<{ tables: Digest[]; diffIds: Digest[] } | undefined> {
    const bytes = await this.#read(async (level) => await level.get(keys.rootfs(digest)))
    if (bytes === undefined) return undefined
    const record = parseRootfsRecord(bytes)
    return { tables: tableIdsOf(record), diffIds: record.layers.map(({ diffId }) => diffId) }
  }

  /** Removes a rootfs manifest, and those of its tables that no other one has. */
  async deleteRootfs(digest: Digest, { tables }: { tables: Iterable<Digest> }): Promise<void> {
    await this.#delete(keys.rootfs(digest))
    for (const key of [...[...tables].map(keys.table), keys.profile(digest), keys.use(digest)]) await this.#delete(key)
    this.#tell({ kind: 'rootfs', digest }, false)
  }

  /** When a rootfs was used here the last time (ms since 1970). */
  async putUse(rootfs: Digest, usedAtMs: number): Promise<void> {
    await this.#put(keys.use(rootfs), encodeCbor({ usedAtMs }), false)
  }

  /** As {@link putUse} has it, by rootfs. A record that cannot be read is passed over. */
  async uses(): Promise<Map<Digest, number>> {
    const uses = new Map<Digest, number>()
    for (const [key, bytes] of await this.#read(async (level) => await level.iterator(under(prefixes.use)).all())) {
      const usedAtMs = await this.#parse(key, bytes, (record) =>
        new Fields(parseCbor(record, 'use record'), 'use record').unsigned('usedAtMs'),
      )
      if (usedAtMs !== undefined) uses.set(parseDigest(key.slice(prefixes.use.length)), usedAtMs)
    }
    return uses
  }

  /** Digests of all rootfs manifests here. */
  async rootfsDigests(): Promise<Digest[]> {
    const names = await this.#read(async (level) => await level.keys(under(prefixes.rootfs)).all())
    return names.map((name) => parseDigest(name.slice(prefixes.rootfs.length)))
  }

  /** Remembers which image manifest an index names for the platform through other indexes. */
  async putManifestOfIndex(index: Digest, platform: string, manifest: Digest): Promise<void> {
    await this.#put(keys.manifestOfIndex(index, platform), Buffer.from(manifest), false)
  }

  async manifestOfIndex(index: Digest, platform: string): Promise<Digest | undefined> {
    const bytes = await this.#read(async (level) => await level.get(keys.manifestOfIndex(index, platform)))
    return bytes === undefined ? undefined : parseDigest(Buffer.from(bytes).toString())
  }

  async putPublication(publication: Publication): Promise<void> {
    await this.#put(
      keys.publication(publication.manifestDigest, publication.format),
      encodePublication(publication),
      true,
    )
  }

  async publication(manifestDigest: Digest, format: RootfsFormat): Promise<Publication | undefined> {
    const bytes = await this.#read(async (level) => await level.get(keys.publication(manifestDigest, format)))
    return bytes === undefined ? undefined : parsePublication(bytes)
  }

  /**
   * @param options `unverified`: a peer has sent it, and nobody has signed it
   * @throws invalid for an index that is too large to be stored, or to be sent to peers
   */
  async putLayer(index: LayerIndex, { unverified = false }: { unverified?: boolean } = {}): Promise<void> {
    const bytes = await compressPieces(encodeLayerIndexPieces(index))
    if (bytes.length > maxLayerRecordBytes) {
      throw new P2pfsError(
        'invalid',
        `layer ${index.diffId}: its index takes ${bytes.length} bytes compressed; ${maxLayerRecordBytes} is the most`,
        { layer: index.diffId },
      )
    }
    await this.#put(unverified ? keys.unverifiedLayer(index.diffId) : keys.layer(index.diffId), bytes, true)
    release(bytes)
    this.#tell({ kind: 'layer', digest: index.diffId }, true)
  }

  async putBlobMap(map: BlobMap): Promise<void> {
    await this.#put(keys.blobMap(map.digest), await compress(encodeBlobMap(map)), true)
    this.#tell({ kind: 'map', digest: map.digest }, true)
  }

  /** The blob map's encoded form, zstd. */
  async blobMapBytes(digest: Digest): Promise<Uint8Array | undefined> {
    return await this.#read(async (level) => await level.get(keys.blobMap(digest)))
  }

  async blobMap(digest: Digest): Promise<BlobMap | undefined> {
    const bytes = await this.blobMapBytes(digest)
    return bytes === undefined ? undefined : parseBlobMap(await decompress(bytes))
  }

  async deleteBlobMap(digest: Digest): Promise<void> {
    await this.#delete(keys.blobMap(digest))
    this.#tell({ kind: 'map', digest }, false)
  }

  async blobMapDigests(): Promise<Digest[]> {
    const names = await this.#read(async (level) => await level.keys(under(prefixes.blobMap)).all())
    return names.map((name) => parseDigest(name.slice(prefixes.blobMap.length)))
  }

  async hasLayer(diffId: Digest, { includeUnverified = true }: { includeUnverified?: boolean } = {}): Promise<boolean> {
    return (
      (await this.#read(async (level) => await level.has(keys.layer(diffId)))) ||
      (includeUnverified && (await this.#read(async (level) => await level.has(keys.unverifiedLayer(diffId)))))
    )
  }

  /** Diff ids of all layers whose index is here. */
  async layerDiffIds(): Promise<Digest[]> {
    const names = await this.#read(async (level) => await level.keys(under(prefixes.layer)).all())
    return names.map((name) => parseDigest(name.slice(prefixes.layer.length)))
  }

  /** Removes an index of a peer, which nobody has signed. */
  async deleteUnverifiedLayer(diffId: Digest): Promise<void> {
    await this.#delete(keys.unverifiedLayer(diffId))
  }

  async deleteLayer(diffId: Digest): Promise<void> {
    await this.#delete(keys.layer(diffId))
    await this.#delete(keys.unverifiedLayer(diffId))
    this.#tell({ kind: 'layer', digest: diffId }, false)
  }

  /**
   * The layer index's encoded form.
   * @param options `includeUnverified`: also an index of a peer, where this host has not read the layer
   */
  async layerBytes(diffId: Digest, options: { includeUnverified?: boolean } = {}): Promise<Uint8Array | undefined> {
    const compressed = await this.#storedLayer(diffId, options)
    return compressed === undefined ? undefined : await decompress(compressed)
  }

  async layer(diffId: Digest, options: { includeUnverified?: boolean } = {}): Promise<LayerIndex | undefined> {
    const compressed = await this.#storedLayer(diffId, options)
    if (compressed === undefined) return undefined
    const parser = new LayerIndexParser()
    for await (const piece of expandPieces(compressed)) parser.push(piece)
    return parser.finish()
  }

  async putProfile(profile: BootProfile): Promise<void> {
    await this.#put(keys.profile(profile.rootfs), encodeBootProfile(profile), false)
  }

  async profile(rootfs: Digest): Promise<BootProfile | undefined> {
    const bytes = await this.#read(async (level) => await level.get(keys.profile(rootfs)))
    return bytes === undefined ? undefined : parseBootProfile(bytes)
  }

  async *profiles(): AsyncGenerator<BootProfile> {
    for (const key of await this.#read(async (level) => await level.keys(under(prefixes.profile)).all())) {
      const bytes = await this.#read(async (level) => await level.get(key))
      if (bytes !== undefined) yield parseBootProfile(bytes)
    }
  }

  /** @param options `sync`: whether it must be on the disk before this resolves */
  async putSeedJob(job: SeedJob, { sync }: { sync: boolean }): Promise<void> {
    await this.#put(keys.seedJob(job.id), encodeSeedJob(job), sync)
  }

  /** A record that cannot be read is removed. */
  async seedJobs(): Promise<SeedJob[]> {
    return await this.#parseAll(prefixes.seedJob, parseSeedJob)
  }

  async deleteSeedJob(id: string): Promise<void> {
    await this.#delete(keys.seedJob(id))
  }

  async putPin(pin: PinRecord): Promise<void> {
    await this.#put(keys.pin(pin), encodePinRecord(pin), true)
  }

  /** A record that cannot be read is removed. */
  async pins(): Promise<PinRecord[]> {
    return await this.#parseAll(prefixes.pin, parsePinRecord)
  }

  async deletePin(pin: PinKey): Promise<void> {
    await this.#delete(keys.pin(pin))
  }

  /** Removes a record of {@link mounts}. */
  async deleteMount(directory: string): Promise<void> {
    await this.#delete(keys.mount(directory))
  }

  /**
   * The records of mounts that an earlier version has kept here.
   * @param onMalformed called for each record that cannot be read, which then stays
   */
  async mounts(onMalformed: (key: string, error: unknown) => void): Promise<MountRecord[]> {
    const records: MountRecord[] = []
    for (const [key, value] of await this.#read(async (level) => await level.iterator(under(prefixes.mount)).all())) {
      try {
        records.push(parseMountRecord(value))
      } catch (error) {
        onMalformed(key, error)
      }
    }
    return records
  }

  #tell(object: CatalogObject, isHere: boolean): void {
    for (const listener of this.#listeners) listener(object, isHere)
  }

  async #parseAll<T>(prefix: (typeof prefixes)[keyof typeof prefixes], parse: (bytes: Uint8Array) => T): Promise<T[]> {
    const records: T[] = []
    for (const [key, bytes] of await this.#read(async (level) => await level.iterator(under(prefix)).all())) {
      const record = await this.#parse(key, bytes, parse)
      if (record !== undefined) records.push(record)
    }
    return records
  }

  /** A record that cannot be read is removed. */
  async #parse<T>(key: string, bytes: Uint8Array, parse: (bytes: Uint8Array) => T): Promise<T | undefined> {
    try {
      return parse(bytes)
    } catch (error) {
      this.#log.warn('record of the catalog cannot be read; it is removed, and its image is resolved again', {
        error,
        key,
      })
      await this.#delete(key)
      return undefined
    }
  }

  async #storedLayer(
    diffId: Digest,
    { includeUnverified = true }: { includeUnverified?: boolean },
  ): Promise<Uint8Array | undefined> {
    return (
      (await this.#read(async (level) => await level.get(keys.layer(diffId)))) ??
      (includeUnverified ? await this.#read(async (level) => await level.get(keys.unverifiedLayer(diffId))) : undefined)
    )
  }

  /** Puts all or nothing, and it is on the disk when this resolves. */
  async #putAll(entries: readonly (readonly [string, Uint8Array])[]): Promise<void> {
    const puts = entries.map(([key, value]) => ({ type: 'put' as const, key, value }))
    await this.#write(entries.at(-1)![0], async (level) => await level.batch(puts, { sync: true } as object))
  }

  async #put(key: string, value: Uint8Array, sync: boolean): Promise<void> {
    // `sync` is an option of classic-level, which `level` is on this platform.
    await this.#write(key, async (level) => await level.put(key, value, { sync } as object))
  }

  async #delete(key: string): Promise<void> {
    await this.#write(key, async (level) => await level.del(key))
  }

  async #clear(range: KeyRange): Promise<void> {
    await this.#write(range.gte, async (level) => await level.clear(range))
  }

  async #write(key: string, write: (level: Database) => Promise<void>): Promise<void> {
    await this.#database.write(key, write)
  }

  async #read<T>(task: (level: Database) => Promise<T>): Promise<T> {
    return await this.#database.read(task)
  }
}

/** @throws invalid */
function parseAcceptedName(bytes: Uint8Array): AcceptedName {
  const fields = new Fields(parseCbor(bytes, 'accepted name'), 'accepted name')
  return {
    manifestDigest: fields.digest('manifestDigest'),
    nameStatement: parseNameStatement(fields.get('nameStatement')),
  }
}
