import { promisify } from 'node:util'
import { zstdCompress, zstdDecompress } from 'node:zlib'
import { Level } from 'level'
import { encodeBlobMap, parseBlobMap, type BlobMap } from '../../protocol/blob-map.ts'
import { encodeBootProfile, parseBootProfile, type BootProfile } from '../../protocol/boot-profile.ts'
import { parseDigest, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { encodeImageRecord, parseImageRecord, type ImageName, type ImageRecord } from '../../protocol/image-record.ts'
import { compressPieces } from '../base/compress.ts'
import { encodeLayerIndexPieces, parseLayerIndex, type LayerIndex } from '../../protocol/layer-index.ts'
import { encodePublication, parsePublication, type Publication } from '../../protocol/publication.ts'
import {
  encodeRootfsManifest,
  parseRootfsManifest,
  rootfsDigest,
  type RootfsFormat,
  type RootfsManifest,
} from '../../protocol/rootfs-manifest.ts'
import { foreign, keys, prefixes, under } from './keys.ts'

const compress = promisify(zstdCompress)
const decompress = promisify(zstdDecompress)

/** What the object protocol carries; with LevelDB's write buffer of 4 MiB no file of the catalog is larger than 64 MiB, bytes. */
const maxLayerRecordBytes = 56 * 1024 * 1024

/** A directory that a rootfs is mounted on, and how. */
export interface MountRecord extends ImageName {
  /** Unique to this mount. */
  id: string
  directory: string
  rootfsDigest: Digest
  manifestDigest: Digest
  /** Where the rootfs manifest came from, and who said that the reference stands for it, at the time of the mount. */
  origin: 'local' | 'peer' | 'registry' | 'built'
  resolution: 'digest' | 'registry' | 'last-known'
  as: 'drive' | 'tree'
  writable: boolean
  limitBytes?: number
  scratchBytes?: number
  mountedAt: string
}

/**
 * What this host knows besides chunks: images, rootfs manifests, layer indexes, publications, boot profiles, mounts. A record is
 * written after all that it points to; `sync` puts reach the disk before they resolve.
 */
export class Catalog {
  readonly #level: Level<string, Uint8Array>

  constructor({ directory }: { directory: string }) {
    this.#level = new Level<string, Uint8Array>(directory, { valueEncoding: 'view' })
  }

  /** Forgets what another format version has left: images are then imported again. @throws conflict where another process has the catalog open. */
  async open(): Promise<void> {
    try {
      await this.#level.open()
    } catch (cause) {
      const locked = (cause as { cause?: { code?: string } }).cause?.code === 'LEVEL_LOCKED'
      if (!locked) throw cause
      throw new P2pfsError('conflict', `the catalog is in use by another daemon: ${this.#level.location}`, { cause })
    }
    for (const range of foreign) await this.#level.clear(range)
  }

  async close(): Promise<void> {
    await this.#level.close()
  }

  async putImage(record: ImageRecord): Promise<void> {
    await this.#put(keys.image(record), encodeImageRecord(record), true)
  }

  async image(name: ImageName): Promise<ImageRecord | undefined> {
    const bytes = await this.#level.get(keys.image(name))
    return bytes === undefined ? undefined : parseImageRecord(bytes)
  }

  async images(): Promise<ImageRecord[]> {
    return (await this.#level.values(under(prefixes.image)).all()).map(parseImageRecord)
  }

  /** @returns the rootfs digest. */
  async putRootfs(manifest: RootfsManifest): Promise<Digest> {
    const digest = rootfsDigest(manifest)
    await this.#put(keys.rootfs(digest), encodeRootfsManifest(manifest), true)
    return digest
  }

  /** The manifest's encoded form. */
  async rootfsBytes(digest: Digest): Promise<Uint8Array | undefined> {
    return await this.#level.get(keys.rootfs(digest))
  }

  async rootfs(digest: Digest): Promise<RootfsManifest | undefined> {
    const bytes = await this.rootfsBytes(digest)
    return bytes === undefined ? undefined : parseRootfsManifest(bytes)
  }

  /** Digests of all rootfs manifests here. */
  async rootfsDigests(): Promise<Digest[]> {
    const names = await this.#level.keys(under(prefixes.rootfs)).all()
    return names.map((name) => parseDigest(name.slice(prefixes.rootfs.length)))
  }

  /** Whether this host has built the rootfs with layer indexes that peers told: its own word for it is not worth more than theirs. */
  async isUnverified(rootfs: Digest): Promise<boolean> {
    return await this.#level.has(keys.unverified(rootfs))
  }

  async putUnverified(rootfs: Digest, isUnverified: boolean): Promise<void> {
    if (isUnverified) await this.#put(keys.unverified(rootfs), new Uint8Array(0), true)
    else await this.#level.del(keys.unverified(rootfs))
  }

  async putPublication(publication: Publication): Promise<void> {
    await this.#put(
      keys.publication(publication.manifestDigest, publication.format),
      encodePublication(publication),
      true,
    )
  }

  async publication(manifestDigest: Digest, format: RootfsFormat): Promise<Publication | undefined> {
    const bytes = await this.#level.get(keys.publication(manifestDigest, format))
    return bytes === undefined ? undefined : parsePublication(bytes)
  }

  /**
   * @param told whether it is a peer's word, which nobody has signed
   * @throws invalid for an index that is too large to be stored, or sent to peers
   */
  async putLayer(index: LayerIndex, { told = false }: { told?: boolean } = {}): Promise<void> {
    const bytes = await compressPieces(encodeLayerIndexPieces(index))
    if (bytes.length > maxLayerRecordBytes) {
      throw new P2pfsError(
        'invalid',
        `layer ${index.diffId}: its index takes ${bytes.length} bytes compressed; ${maxLayerRecordBytes} is the most`,
        { layer: index.diffId },
      )
    }
    await this.#put(told ? keys.unverifiedLayer(index.diffId) : keys.layer(index.diffId), bytes, true)
  }

  async putBlobMap(map: BlobMap): Promise<void> {
    await this.#put(keys.blobMap(map.digest), await compress(encodeBlobMap(map)), true)
  }

  /** The blob map's encoded form, zstd. */
  async blobMapBytes(digest: Digest): Promise<Uint8Array | undefined> {
    return await this.#level.get(keys.blobMap(digest))
  }

  async blobMap(digest: Digest): Promise<BlobMap | undefined> {
    const bytes = await this.blobMapBytes(digest)
    return bytes === undefined ? undefined : parseBlobMap(await decompress(bytes))
  }

  async blobMapDigests(): Promise<Digest[]> {
    const names = await this.#level.keys(under(prefixes.blobMap)).all()
    return names.map((name) => parseDigest(name.slice(prefixes.blobMap.length)))
  }

  async hasLayer(diffId: Digest, { told = true }: { told?: boolean } = {}): Promise<boolean> {
    return (
      (await this.#level.has(keys.layer(diffId))) || (told && (await this.#level.has(keys.unverifiedLayer(diffId))))
    )
  }

  /** Diff ids of all layers whose index is here. */
  async layerDiffIds(): Promise<Digest[]> {
    const names = await this.#level.keys(under(prefixes.layer)).all()
    return names.map((name) => parseDigest(name.slice(prefixes.layer.length)))
  }

  async deleteLayer(diffId: Digest): Promise<void> {
    await this.#level.del(keys.layer(diffId))
    await this.#level.del(keys.unverifiedLayer(diffId))
  }

  /** The layer index's encoded form. @param told whether a peer's word will do, where this host has not read the layer */
  async layerBytes(diffId: Digest, { told = true }: { told?: boolean } = {}): Promise<Uint8Array | undefined> {
    const bytes =
      (await this.#level.get(keys.layer(diffId))) ??
      (told ? await this.#level.get(keys.unverifiedLayer(diffId)) : undefined)
    return bytes === undefined ? undefined : await decompress(bytes)
  }

  async layer(diffId: Digest, options: { told?: boolean } = {}): Promise<LayerIndex | undefined> {
    const bytes = await this.layerBytes(diffId, options)
    return bytes === undefined ? undefined : parseLayerIndex(bytes)
  }

  async putProfile(profile: BootProfile): Promise<void> {
    await this.#put(keys.profile(profile.rootfs), encodeBootProfile(profile), false)
  }

  async profile(rootfs: Digest): Promise<BootProfile | undefined> {
    const bytes = await this.#level.get(keys.profile(rootfs))
    return bytes === undefined ? undefined : parseBootProfile(bytes)
  }

  async *profiles(): AsyncGenerator<BootProfile> {
    for await (const bytes of this.#level.values(under(prefixes.profile))) yield parseBootProfile(bytes)
  }

  async putMount(record: MountRecord): Promise<void> {
    await this.#put(keys.mount(record.directory), Buffer.from(JSON.stringify(record)), false)
  }

  async deleteMount(directory: string): Promise<void> {
    await this.#level.del(keys.mount(directory))
  }

  async mounts(): Promise<MountRecord[]> {
    const values = await this.#level.values(under(prefixes.mount)).all()
    return values.map((value) => JSON.parse(Buffer.from(value).toString()) as MountRecord)
  }

  async #put(key: string, value: Uint8Array, sync: boolean): Promise<void> {
    try {
      // `sync` is an option of classic-level, which `level` is on this platform.
      await this.#level.put(key, value, { sync } as object)
    } catch (cause) {
      throw new P2pfsError('unavailable', `cannot write the catalog: ${(cause as Error).message}`, { cause, key })
    }
  }
}
