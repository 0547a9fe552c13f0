import type { Statement } from '../../protocol/attestation.ts'
import type { Digest } from '../../protocol/digest.ts'
import type { ImageName } from '../../protocol/image-record.ts'
import { formatVersion } from '../../protocol/layer-index.ts'
import type { RootfsFormat } from '../../protocol/rootfs-manifest.ts'
import type { PinKey } from './pin-record.ts'

/** The catalog's key space. A record that depends on the format version has the version in its key: another version never reads it. */
export const keys = {
  /** -> image record (CBOR) */
  image: ({ reference, platform, format }: ImageName): string => `${prefixes.image}${format}/${platform}/${reference}`,
  /** -> the newest statement that this host has accepted for the name (CBOR) */
  namePast: ({ reference, platform }: Omit<ImageName, 'format'>): string =>
    `${formatVersion}/past/${platform}/${reference}`,
  /** -> rootfs record (CBOR): a rootfs manifest with the ids of its chunk tables */
  rootfs: (digest: Digest): string => `${prefixes.rootfs}${digest}`,
  /** -> chunk table (CBOR) */
  table: (id: Digest): string => `${formatVersion}/table/${id}`,
  /** -> layer index (CBOR, zstd) */
  layer: (diffId: Digest): string => `${formatVersion}/layer/${diffId}`,
  /** -> layer index of a peer, which nobody has signed (CBOR, zstd) */
  unverifiedLayer: (diffId: Digest): string => `${formatVersion}/told/${diffId}`,
  /** -> blob map (CBOR, zstd) */
  blobMap: (digest: Digest): string => `${formatVersion}/map/${digest}`,
  /** -> digest of the image manifest that an index names for the platform (UTF-8) */
  manifestOfIndex: (index: Digest, platform: string): string => `${formatVersion}/index/${platform}/${index}`,
  /** -> publication (CBOR) */
  publication: (manifestDigest: Digest, format: RootfsFormat): string =>
    `${formatVersion}/publication/${format}/${manifestDigest}`,
  /** -> boot profile (CBOR) */
  profile: (rootfs: Digest): string => `${formatVersion}/profile/${rootfs}`,
  /** -> lie record (JSON) */
  lie: ({ manifestDigest, format, rootfsDigest, maker }: Statement & { maker: string }): string =>
    `${prefixes.lie}${format}/${manifestDigest}/${rootfsDigest}/${maker}`,
  /** -> seed job (CBOR) */
  seedJob: (id: string): string => `${prefixes.seedJob}${id}`,
  /** -> pin record (CBOR) */
  pin: ({ job, rootfsDigest }: PinKey): string => `${prefixes.pin}${job}/${rootfsDigest}`,
  /** -> when the rootfs was mounted or seeded here the last time (ms since 1970, CBOR) */
  use: (rootfs: Digest): string => `${prefixes.use}${rootfs}`,
  /** -> mount record of an earlier version (JSON) */
  mount: (directory: string): string => `mount/${directory}`,
}

export interface KeyRange {
  gte: string
  lt: string
}

export const prefixes = {
  image: `${formatVersion}/signed/`,
  rootfs: `${formatVersion}/root/`,
  /** -> rootfs manifest (CBOR), of an earlier version, each with its own copy of its tables */
  wholeRootfs: `${formatVersion}/rootfs/`,
  layer: `${formatVersion}/layer/`,
  blobMap: `${formatVersion}/map/`,
  profile: `${formatVersion}/profile/`,
  seedJob: `${formatVersion}/seed/`,
  pin: `${formatVersion}/pin/`,
  use: `${formatVersion}/use/`,
  lie: 'lie/',
  mount: 'mount/',
} as const

/** All keys under `prefix`, as a range of the ordered key space. */
export function under(prefix: (typeof prefixes)[keyof typeof prefixes]): KeyRange {
  return { gte: prefix, lt: `${prefix.slice(0, -1)}0` }
}

/** Image records whose name nobody has signed, or that nobody has signed at all: of earlier versions. */
export const unsigned: readonly KeyRange[] = ['image', 'record', 'hearsay'].map((room) => ({
  gte: `${formatVersion}/${room}/`,
  lt: `${formatVersion}/${room}0`,
}))

/** The keys of other format versions: all but this version's keys, mounts, and lies, which are lies in every version. */
export const foreign: readonly KeyRange[] = [
  { gte: '', lt: `${formatVersion}/` },
  { gte: `${formatVersion}0`, lt: prefixes.lie },
  { gte: 'lie0', lt: prefixes.mount },
  { gte: 'mount0', lt: '\uffff' },
]
