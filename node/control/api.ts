/** What goes over the control socket: HTTP, JSON bodies. Long requests answer with one JSON object per line. */

import type { Origin, PullPolicy, Resolution } from '../model/image.ts'
import type { WholeRead } from '../model/whole-read.ts'
import type { Amount } from '../model/progress.ts'

/** An image, for which platform and as which filesystem; the daemon's own platform and ext4 (trees: erofs) if not given. */
export interface ImageRequest {
  image: string
  platform?: string
  format?: string
}

/** `POST /seed`: {@link SeedRequest}; answers {@link Progress} lines, then one {@link Outcome} of {@link SeedResult}. */
export interface SeedRequest extends ImageRequest {
  /** Whether the index goes into the image's repository, for hosts that start from the registry alone. */
  publish?: boolean
}

export interface SeedResult {
  reference: string
  platform: string
  format: string
  digest: string
  sizeBytes: number
  origin: Origin
  /** Where that was asked for. */
  published?: PublishResult
}

export interface PublishResult {
  /** Digest of the artifact's manifest. */
  digest: string
  /** Of all that it is made of. */
  sizeBytes: number
  /** Peer id of who attests it. */
  key: string
  /** Whether it was there already. */
  existed: boolean
}

/** `POST /mount`: {@link MountRequest}; answers {@link Progress} lines, then one {@link Outcome} of {@link MountResult}. */
export interface MountRequest extends ImageRequest {
  /** Absolute path of an existing directory. */
  directory: string
  /** `drive` if not given. */
  as?: 'drive' | 'tree'
  /** Trees: whether an overlay takes writes. */
  writable?: boolean
  /** Writable trees: how much can be written, bytes. */
  limitBytes?: number
  /** Drives: size of a second, writable drive, bytes. */
  scratchBytes?: number
  /** `auto` if not given. */
  pull?: PullPolicy
}

/** How the reads of a mount fare; mounts of one rootfs share it. */
export interface MountReport {
  sizeBytes: number
  /** Of that on this host. */
  localBytes: number
  /** What came of it since the daemon started, imports too. */
  fetched: { peer: Amount; registry: Amount }
  warnings: MountWarning[]
  /** Layers that are read whole now, or were in the last minutes, by diff id. */
  wholeReads: ({ layer: string } & WholeRead)[]
  /** Where the boot of the rootfs is replayed. */
  profile?: BootReplay
}

/**
 * `whole-layers`: some are read whole, or were in the last minutes; `wholeReads` says why. `peers-lost`: not all is here,
 * and no peer is connected, so the rest comes from the registry alone.
 */
export type MountWarning = 'whole-layers' | 'peers-lost'

export interface MountResult extends Placed, MountReport {
  as: 'drive' | 'tree'
  format: string
  /** The rootfs digest. */
  digest: string
  /** Digest of the image manifest: what a tag stood for when it was mounted. */
  manifestDigest: string
  origin: Origin
  resolution: Resolution
  /** Why the registry did not say what the tag stands for now, where it was asked. */
  unanswered?: string
  /** The OCI image config. */
  config: unknown
}

export interface Placed {
  /** Path of the image file, what a VM gets as its drive; of a tree the directory. */
  rootfs: string
  /** Path of the scratch drive's image file. */
  scratch?: string
}

/** `POST /umount`: answers one {@link Outcome} of an empty object. */
export interface UmountRequest {
  directory: string
}

/** `POST /reset`: answers one {@link Outcome} of {@link Placed}. */
export type ResetRequest = UmountRequest

/** `POST /import`: makes an image called `local:NAME`; answers as `POST /seed`. */
export interface ImportRequest {
  /** Absolute path of a directory or a tar, or `oci:DIR[:TAG]`. */
  source: string
  name: string
  format?: string
  platform?: string
}

/** `POST /export`: writes the image to a file; answers {@link Progress} lines, then one {@link Outcome} of {@link ExportResult}. */
export interface ExportRequest extends ImageRequest {
  /** Absolute path; what stands there is replaced when all is written. */
  file: string
}

export interface ExportResult {
  file: string
  digest: string
  sizeBytes: number
}

/** `POST /inspect`: answers one {@link Outcome} of {@link InspectResult}. */
export type InspectRequest = ImageRequest

export interface InspectResult {
  reference: string
  platform: string
  format: string
  digest: string
  sizeBytes: number
  /** Of that on this host. */
  localBytes: number
  metadataBytes: number
  chunks: number
  layers: InspectedLayer[]
  /** Other images that this host knows, most in common first. */
  sharing: { reference: string; platform: string; format: string; sharedChunks: number; sharedBytes: number }[]
  /** The OCI image config. */
  config: unknown
}

export interface InspectedLayer {
  diffId: string
  /** As it is in the registry. */
  digest: string
  compressedBytes: number
  tarBytes: number
  /** Entries of the tar by type; whiteouts and opaque markers too. */
  entries: Record<string, number>
  /** Contents of files. */
  dataBytes: number
  chunks: number
  localBytes: number
}

/** `POST /verify`: answers {@link Progress} lines, then one {@link Outcome} of {@link VerifyResult}. */
export type VerifyRequest = ImageRequest

export interface VerifyResult {
  reference: string
  platform: string
  format: string
  /** Of the image manifest whose layers were read. */
  manifestDigest: string
  /** The rootfs that they make. */
  digest: string
  /** Whether nothing that is used is different. */
  same: boolean
  /** By this host, by the region, and what is published in the registry; none where nobody knows the image. */
  uses: VerifiedUse[]
}

/** `unknown`: there is nothing to compare. */
export type Comparison = 'same' | 'different' | 'unknown'

export interface VerifiedUse {
  source: 'host' | 'region' | 'registry'
  /** The rootfs digest. */
  digest: string
  /** `other image`: what the reference stands for there is another image manifest. */
  rootfs: Comparison | 'other image'
  /** Peer id of who attests it; whether that is this host; whether this host takes his word. */
  maker: string
  own: boolean
  accepted: boolean
  /** Why it cannot be read. */
  error?: string
  /** Chunk table, layer index and blob map of each. */
  layers: { diffId: string; digest: string; chunks: Comparison; index: Comparison; map: Comparison }[]
}

export interface Progress {
  progress: { step: 'import' | 'fetch' | 'export' | 'publish' | 'verify'; doneBytes: number; totalBytes: number }
}

export type Outcome<T> = { result: T } | { error: { code: string; message: string } }

/** How far what an earlier boot read has been fetched ahead, and where that is known from; mounts of one rootfs share it. */
export interface BootReplay {
  source: 'local' | 'peer' | 'registry'
  total: Amount
  /** Of that here. */
  done: Amount
  /** Of that fetched by the replay. */
  fetched: Amount
}

/** `GET /status`. */
export interface Status {
  version: string
  daemonPid: number
  uptimeSeconds: number
  name: string
  region: string
  peerId: string
  addresses: string[]
  peers: { peer: string; name: string; addresses: string[]; connectedSeconds: number; sent: Amount; received: Amount }[]
  images: {
    reference: string
    platform: string
    format: string
    digest: string
    sizeBytes: number
    localBytes: number
  }[]
  /** Under way on this host, with the peers that wait for them. Bytes are those of the compressed layers. */
  imports: { reference: string; forPeers: number; doneBytes: number; totalBytes: number }[]
  mounts: ({
    directory: string
    reference: string
    format: string
    digest: string
    manifestDigest: string
    /** Where its rootfs manifest came from, and who said that the reference stands for it, when it was mounted. */
    origin: Origin
    resolution: Resolution
    as: 'drive' | 'tree'
    writable: boolean
    limitBytes?: number
    scratchBytes?: number
    mountedAt: string
  } & MountReport)[]
  chunks: number
  /** What mounts have read since the daemon started, by where the chunk came from in that time. */
  served: { local: Amount; peer: Amount; registry: Amount }
  /** What this host has fetched since the daemon started; imports count as registry. */
  fetched: { peer: Amount; registry: Amount }
  /** Of the registry's, what was read at random since the daemon started: requests, and bytes as it sent them, compressed. */
  readAtRandom: { requests: number; bytes: number }
  /** What peers have had from this host since the daemon started. */
  sent: Amount
}
