import { promisify } from 'node:util'
import { zstdCompress, zstdDecompress } from 'node:zlib'
import { encodeBlobMap, parseBlobMap, type BlobMap } from '../../protocol/blob-map.ts'
import { encodeBootProfile, parseBootProfile, type BootProfile } from '../../protocol/boot-profile.ts'
import { parseDigest, type Digest } from '../../protocol/digest.ts'
import { encodeCbor, Fields, parseCbor } from '../../protocol/cbor.ts'
import { encodeImageRecord, parseImageRecord, type ImageName, type ImageRecord } from '../../protocol/image-record.ts'
import { parseNameStatement, type NameStatement } from '../../protocol/name-statement.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import { encodePublication, parsePublication, type Publication } from '../../protocol/publication.ts'
import {
  encodeRootfsManifest,
  parseRootfsManifest,
  type RootfsFormat,
  type RootfsManifest,
} from '../../protocol/rootfs-manifest.ts'
import { encodeSeedJob, parseSeedJob, type SeedJob } from '../../protocol/seed-job.ts'
import { CatalogDatabase, type CatalogDatabaseParts } from './catalog-database.ts'
import { removeFormerRecords } from './former-records.ts'
import { keys, prefixes, under } from './keys.ts'
import { LayerRecords, type LayerLookup } from './layer-records.ts'
import { encodeLieRecord, parseLieRecord, type LieRecord } from './lie-record.ts'
import { parseMountRecord, type MountRecord } from './mount-record.ts'
import { encodePinRecord, parsePinRecord, type PinKey, type PinRecord } from './pin-record.ts'
import { CatalogRecords } from './catalog-records.ts'
import { RootfsRecords } from './rootfs-records.ts'
import { isByDigest, isSameImage } from './same-image.ts'

const compress = promisify(zstdCompress)
const decompress = promisify(zstdDecompress)

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
 * jobs, pins. A record is written after all that it points to; `sync` puts reach the disk before they resolve.
 */
export class Catalog implements AsyncDisposable {
  readonly #database: CatalogDatabase
  readonly #records: CatalogRecords
  readonly #rootfs: RootfsRecords
  readonly #layers: LayerRecords
  readonly #listeners = new Set<ObjectListener>()

  private constructor(database: CatalogDatabase, records: CatalogRecords) {
    this.#database = database
    this.#records = records
    this.#rootfs = new RootfsRecords({ records })
    this.#layers = new LayerRecords({ records })
  }

  /**
   * Removes what earlier versions left and this one cannot use; see {@link removeFormerRecords}.
   * @param options `memoryDirectory`: where it is while the disk is full, on a tmpfs
   * @throws as {@link CatalogDatabase.open}
   */
  static async open(
    parts: CatalogDatabaseParts,
    { directory, memoryDirectory = `${directory}-in-memory` }: { directory: string; memoryDirectory?: string },
  ): Promise<Catalog> {
    const database = await CatalogDatabase.open(parts, { disk: directory, memory: memoryDirectory })
    const records = new CatalogRecords({ database, log: parts.log })
    const catalog = new Catalog(database, records)
    await removeFormerRecords(records, parts.log)
    for await (const [key, bytes] of records.each(under(prefixes.wholeRootfs))) {
      const manifest = await records.parse(key, bytes, parseRootfsManifest)
      if (manifest === undefined) continue
      await catalog.putRootfs(manifest)
      await records.delete(key)
    }
    return catalog
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
    await this.#records.put(keys.image(record), encodeImageRecord(record), { sync })
    this.#tell({ kind: 'image', name: record }, true)
  }

  /** A record that cannot be read is removed: its image is resolved again. */
  async image(name: ImageName): Promise<ImageRecord | undefined> {
    return await this.#records.record(keys.image(name), parseImageRecord)
  }

  /** As {@link image}. */
  async images(): Promise<ImageRecord[]> {
    return await this.#records.records(under(prefixes.image), parseImageRecord)
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
    await this.#records.delete(keys.image(name))
    this.#tell({ kind: 'image', name }, false)
  }

  async putNamePast(name: Omit<ImageName, 'format'>, { manifestDigest, nameStatement }: AcceptedName): Promise<void> {
    await this.#records.put(keys.namePast(name), encodeCbor({ manifestDigest, nameStatement }), { sync: false })
  }

  async namePast(name: Omit<ImageName, 'format'>): Promise<AcceptedName | undefined> {
    return await this.#records.record(keys.namePast(name), parseAcceptedName)
  }

  async deleteNamePast(name: Omit<ImageName, 'format'>): Promise<void> {
    await this.#records.delete(keys.namePast(name))
  }

  async putLie(lie: LieRecord): Promise<void> {
    await this.#records.put(keys.lie(lie), encodeLieRecord(lie), { sync: true })
  }

  async lies(): Promise<LieRecord[]> {
    return await this.#records.records(under(prefixes.lie), parseLieRecord)
  }

  async deleteLie(lie: LieRecord): Promise<void> {
    await this.#records.delete(keys.lie(lie))
  }

  /** Tables that other rootfs have too are stored once. @returns the rootfs digest */
  async putRootfs(manifest: RootfsManifest): Promise<Digest> {
    const digest = await this.#rootfs.put(manifest)
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
    return await this.#rootfs.get(digest)
  }

  async hasRootfs(digest: Digest): Promise<boolean> {
    return await this.#rootfs.has(digest)
  }

  /** The ids of a rootfs manifest's tables, and its layers' diff ids: less work than the manifest. */
  async rootfsParts(digest: Digest): Promise<{ tables: Digest[]; diffIds: Digest[] } | undefined> {
    return await this.#rootfs.parts(digest)
  }

  /** Digests of all rootfs manifests here. */
  async rootfsDigests(): Promise<Digest[]> {
    return await this.#rootfs.digests()
  }

  /** Removes a rootfs manifest, and those of its tables that no other one has. */
  async deleteRootfs(digest: Digest, { tables }: { tables: Iterable<Digest> }): Promise<void> {
    await this.#rootfs.delete(digest, tables)
    await this.#records.delete(keys.profile(digest))
    await this.#records.delete(keys.use(digest))
    this.#tell({ kind: 'rootfs', digest }, false)
  }

  /** Records the last time at which a rootfs was used here (ms since 1970). */
  async putUse(rootfs: Digest, usedAtMs: number): Promise<void> {
    await this.#records.put(keys.use(rootfs), encodeCbor({ usedAtMs }), { sync: false })
  }

  /** The times of {@link putUse}, by rootfs. A record that cannot be read is removed. */
  async uses(): Promise<Map<Digest, number>> {
    const uses = new Map<Digest, number>()
    for (const [key, bytes] of await this.#records.entries(under(prefixes.use))) {
      const usedAtMs = await this.#records.parse(key, bytes, (record) =>
        new Fields(parseCbor(record, 'use record'), 'use record').unsigned('usedAtMs'),
      )
      if (usedAtMs !== undefined) uses.set(parseDigest(key.slice(prefixes.use.length)), usedAtMs)
    }
    return uses
  }

  /** Remembers which image manifest an index names for the platform through other indexes. */
  async putManifestOfIndex(index: Digest, platform: string, manifest: Digest): Promise<void> {
    await this.#records.put(keys.manifestOfIndex(index, platform), Buffer.from(manifest), { sync: false })
  }

  async manifestOfIndex(index: Digest, platform: string): Promise<Digest | undefined> {
    const bytes = await this.#records.get(keys.manifestOfIndex(index, platform))
    return bytes === undefined ? undefined : parseDigest(Buffer.from(bytes).toString())
  }

  async putPublication(publication: Publication): Promise<void> {
    const { manifestDigest, format } = publication
    await this.#records.put(keys.publication(manifestDigest, format), encodePublication(publication), { sync: true })
  }

  async publication(manifestDigest: Digest, format: RootfsFormat): Promise<Publication | undefined> {
    const bytes = await this.#records.get(keys.publication(manifestDigest, format))
    return bytes === undefined ? undefined : parsePublication(bytes)
  }

  /**
   * @param options `unverified`: a peer has sent it, and nobody has signed it
   * @throws invalid for an index that is too large to be stored, or to be sent to peers
   */
  async putLayer(index: LayerIndex, { unverified = false }: { unverified?: boolean } = {}): Promise<void> {
    await this.#layers.put(index, { unverified })
    this.#tell({ kind: 'layer', digest: index.diffId }, true)
  }

  async putBlobMap(map: BlobMap): Promise<void> {
    await this.#records.put(keys.blobMap(map.digest), await compress(encodeBlobMap(map)), { sync: true })
    this.#tell({ kind: 'map', digest: map.digest }, true)
  }

  /** The blob map's encoded form, zstd. */
  async blobMapBytes(digest: Digest): Promise<Uint8Array | undefined> {
    return await this.#records.get(keys.blobMap(digest))
  }

  async blobMap(digest: Digest): Promise<BlobMap | undefined> {
    const bytes = await this.blobMapBytes(digest)
    return bytes === undefined ? undefined : parseBlobMap(await decompress(bytes))
  }

  async deleteBlobMap(digest: Digest): Promise<void> {
    await this.#records.delete(keys.blobMap(digest))
    this.#tell({ kind: 'map', digest }, false)
  }

  async blobMapDigests(): Promise<Digest[]> {
    const names = await this.#records.keys(under(prefixes.blobMap))
    return names.map((name) => parseDigest(name.slice(prefixes.blobMap.length)))
  }

  async hasLayer(diffId: Digest, options: LayerLookup = {}): Promise<boolean> {
    return await this.#layers.has(diffId, options)
  }

  /** Diff ids of all layers whose index is here. */
  async layerDiffIds(): Promise<Digest[]> {
    return await this.#layers.diffIds()
  }

  /** Removes an index of a peer, which nobody has signed. */
  async deleteUnverifiedLayer(diffId: Digest): Promise<void> {
    await this.#layers.deleteUnverified(diffId)
  }

  async deleteLayer(diffId: Digest): Promise<void> {
    await this.#layers.delete(diffId)
    this.#tell({ kind: 'layer', digest: diffId }, false)
  }

  /** The layer index's encoded form. */
  async layerBytes(diffId: Digest, options: LayerLookup = {}): Promise<Uint8Array | undefined> {
    return await this.#layers.bytes(diffId, options)
  }

  async layer(diffId: Digest, options: LayerLookup = {}): Promise<LayerIndex | undefined> {
    return await this.#layers.get(diffId, options)
  }

  async putProfile(profile: BootProfile): Promise<void> {
    await this.#records.put(keys.profile(profile.rootfs), encodeBootProfile(profile), { sync: false })
  }

  async profile(rootfs: Digest): Promise<BootProfile | undefined> {
    const bytes = await this.#records.get(keys.profile(rootfs))
    return bytes === undefined ? undefined : parseBootProfile(bytes)
  }

  async *profiles(): AsyncGenerator<BootProfile> {
    for await (const [, bytes] of this.#records.each(under(prefixes.profile))) yield parseBootProfile(bytes)
  }

  /** @param options `sync`: whether it must be on the disk before this resolves */
  async putSeedJob(job: SeedJob, { sync }: { sync: boolean }): Promise<void> {
    await this.#records.put(keys.seedJob(job.id), encodeSeedJob(job), { sync })
  }

  /** A record that cannot be read is removed. */
  async seedJobs(): Promise<SeedJob[]> {
    return await this.#records.records(under(prefixes.seedJob), parseSeedJob)
  }

  async deleteSeedJob(id: string): Promise<void> {
    await this.#records.delete(keys.seedJob(id))
  }

  async putPin(pin: PinRecord): Promise<void> {
    await this.#records.put(keys.pin(pin), encodePinRecord(pin), { sync: true })
  }

  /** A record that cannot be read is removed. */
  async pins(): Promise<PinRecord[]> {
    return await this.#records.records(under(prefixes.pin), parsePinRecord)
  }

  async deletePin(pin: PinKey): Promise<void> {
    await this.#records.delete(keys.pin(pin))
  }

  /** Removes a record of {@link mounts}. */
  async deleteMount(directory: string): Promise<void> {
    await this.#records.delete(keys.mount(directory))
  }

  /**
   * The records of mounts that an earlier version has kept here.
   * @param onMalformed called for each record that cannot be read, which then stays
   */
  async mounts(onMalformed: (key: string, error: unknown) => void): Promise<MountRecord[]> {
    const records: MountRecord[] = []
    for (const [key, value] of await this.#records.entries(under(prefixes.mount))) {
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
}

/** @throws invalid */
function parseAcceptedName(bytes: Uint8Array): AcceptedName {
  const fields = new Fields(parseCbor(bytes, 'accepted name'), 'accepted name')
  return {
    manifestDigest: fields.digest('manifestDigest'),
    nameStatement: parseNameStatement(fields.get('nameStatement')),
  }
}
