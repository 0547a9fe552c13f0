import type { Digest } from '../../protocol/digest.ts'
import type { ImageName } from '../../protocol/image-record.ts'
import { formatVersion } from '../../protocol/layer-index.ts'
import type { RootfsFormat } from '../../protocol/rootfs-manifest.ts'

/** The catalog's key space. A record that depends on the format version has the version in its key: another version never reads it. */
export const keys = {
  /** -> image record (CBOR) */
  image: ({ reference, platform, format }: ImageName): string => `${prefixes.image}${format}/${platform}/${reference}`,
  /** -> rootfs manifest (CBOR) */
  rootfs: (digest: Digest): string => `${formatVersion}/rootfs/${digest}`,
  /** -> layer index (CBOR, zstd) */
  layer: (diffId: Digest): string => `${formatVersion}/layer/${diffId}`,
  /** -> layer index of a peer, which nobody has signed (CBOR, zstd) */
  unverifiedLayer: (diffId: Digest): string => `${formatVersion}/told/${diffId}`,
  /** -> blob map (CBOR, zstd) */
  blobMap: (digest: Digest): string => `${formatVersion}/map/${digest}`,
  /** -> nothing: this host has built the rootfs with layer indexes of peers */
  unverified: (rootfsDigest: Digest): string => `${formatVersion}/hearsay/${rootfsDigest}`,
  /** -> digest of the image manifest that an index names for the platform (UTF-8) */
  manifestOfIndex: (index: Digest, platform: string): string => `${formatVersion}/index/${platform}/${index}`,
  /** -> publication (CBOR) */
  publication: (manifestDigest: Digest, format: RootfsFormat): string =>
    `${formatVersion}/publication/${format}/${manifestDigest}`,
  /** -> boot profile (CBOR) */
  profile: (rootfs: Digest): string => `${formatVersion}/profile/${rootfs}`,
  /** -> mount record (JSON) */
  mount: (directory: string): string => `mount/${directory}`,
}

interface KeyRange {
  gte: string
  lt: string
}

export const prefixes = {
  image: `${formatVersion}/record/`,
  rootfs: `${formatVersion}/rootfs/`,
  layer: `${formatVersion}/layer/`,
  blobMap: `${formatVersion}/map/`,
  profile: `${formatVersion}/profile/`,
  mount: 'mount/',
} as const

/** All keys under `prefix`, as a range of the ordered key space. */
export function under(prefix: (typeof prefixes)[keyof typeof prefixes]): KeyRange {
  return { gte: prefix, lt: `${prefix.slice(0, -1)}0` }
}

/** The keys of other format versions, and of image records without an attestation: all but this version's keys and mounts. */
export const foreign: readonly KeyRange[] = [
  { gte: `${formatVersion}/image/`, lt: `${formatVersion}/image0` },
  { gte: '', lt: `${formatVersion}/` },
  { gte: `${formatVersion}0`, lt: 'mount/' },
  { gte: 'mount0', lt: '\uffff' },
]
