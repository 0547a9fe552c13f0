import { encodeBlobMap, parseBlobMap, type BlobMap } from './blob-map.ts'
import { encodeCbor, Fields, parseCbor } from './cbor.ts'
import { digestOf, type Digest } from './digest.ts'
import { P2pfsError } from './errors.ts'
import { formatVersion } from './layer-index.ts'
import { parseRootfsManifest, type RootfsManifest } from './rootfs-manifest.ts'

/** The index blob of a publication: all that a host needs to mount an image, except the metadata segment. */
export interface PublishedIndex {
  rootfsDigest: Digest
  manifest: RootfsManifest
  /** The map of each of the image's blobs, once. */
  maps: readonly PublishedMap[]
  /** A boot profile, encoded. It is not parsed here. */
  profile?: Uint8Array
}

export interface PublishedMap {
  map: BlobMap
  /** Offset of the map's window segment in the windows blob (bytes); undefined where that blob does not have it. */
  windowsOffset: number | undefined
}

/** Most blob maps: no image has more layers. */
const maxMaps = 512

/** SPEC.md, "Published index". @param manifest the rootfs manifest's encoded form */
export function encodePublishedIndex({
  manifest,
  maps,
  profile,
}: {
  manifest: Uint8Array
  maps: readonly PublishedMap[]
  profile?: Uint8Array | undefined
}): Uint8Array {
  return encodeCbor({
    version: formatVersion,
    rootfs: manifest,
    maps: maps.map(({ map, windowsOffset }) => ({
      map: encodeBlobMap(map),
      ...(windowsOffset === undefined ? {} : { windows: windowsOffset }),
    })),
    ...(profile === undefined ? {} : { profile }),
  })
}

/** @throws invalid for bytes that are not a published index of this format version */
export function parsePublishedIndex(bytes: Uint8Array): PublishedIndex {
  const what = 'published index'
  const fields = new Fields(parseCbor(bytes, what), what)
  if (fields.get('version') !== formatVersion)
    throw new P2pfsError('invalid', `${what}: its format version is not ${formatVersion}`)
  const rootfs = fields.bytes('rootfs')
  const maps = fields.list('maps')
  if (maps.length > maxMaps) throw new P2pfsError('invalid', `${what}: more than ${maxMaps} blob maps`)
  return {
    rootfsDigest: digestOf(rootfs),
    manifest: parseRootfsManifest(rootfs),
    maps: maps.map((value) => {
      const entry = new Fields(value, what)
      return {
        map: parseBlobMap(entry.bytes('map')),
        windowsOffset: entry.get('windows') === undefined ? undefined : entry.unsigned('windows'),
      }
    }),
    ...(fields.get('profile') === undefined ? {} : { profile: Uint8Array.from(fields.bytes('profile')) }),
  }
}
