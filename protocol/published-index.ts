import { encodeBlobMap, parseBlobMap, type BlobMap } from './blob-map.ts'
import { encodeCbor, Fields, parseCbor } from './cbor.ts'
import { digestOf, type Digest } from './digest.ts'
import { P2pfsError } from './errors.ts'
import { formatVersion } from './layer-index.ts'
import { parseRootfsManifest, type RootfsManifest } from './rootfs-manifest.ts'

/** All that a host needs to begin with an image, but for its metadata region: the index blob of a publication. */
export interface PublishedIndex {
  rootfsDigest: Digest
  manifest: RootfsManifest
  /** Of the image's blobs, each once. */
  maps: readonly PublishedMap[]
  /** A boot profile, encoded; opaque here. */
  profile?: Uint8Array
}

export interface PublishedMap {
  map: BlobMap
  /** Where the map's window region begins in the publication's windows blob, bytes; undefined where it is not in it. */
  windowsOffset: number | undefined
}

/** No image has more layers than that, nor blobs. */
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
