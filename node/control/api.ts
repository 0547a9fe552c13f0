/**
 * The control API: HTTP on a unix socket, with JSON bodies. An answer is one JSON object, the result or a {@link Problem};
 * for those who accept `application/x-ndjson` one object per line: any number of {@link Progress} lines, then one
 * {@link Outcome}. Fields that a later version adds are to be passed over.
 */

import type { ErrorCode } from '../../protocol/errors.ts'
import type { MountDemand } from '../../protocol/seed-job.ts'
import type { Delay } from '../base/event-loop-delay.ts'
import type { Belief } from '../model/belief.ts'
import type { BootReplay } from '../model/boot-replay.ts'
import type { Origin, PullPolicy, Resolution } from '../model/image.ts'
import type { Owner } from '../model/owner.ts'
import type { Amount, ByteProgress } from '../model/progress.ts'
import type { WholeRead } from '../model/whole-read.ts'

/** A request that needs no fields. */
export type EmptyRequest = Record<string, never>
export type EmptyResult = Record<string, never>

/** An error: problem details of RFC 9457. */
export interface Problem {
  /** The HTTP status. */
  status: number
  /** The HTTP status in words. */
  title: string
  /** What is wrong and what to do, for a person. */
  detail: string
  /** What kind of failure it is, for a program. */
  code: ErrorCode
  /** Present if the request itself is wrong, whatever the state of this host. */
  isUsage?: true
}

/** Names a rootfs: an image, its platform and the format of the filesystem. */
export interface ImageRequest {
  image: string
  /** `OS/ARCH` or `OS/ARCH/VARIANT`. Default: the platform that the daemon is configured for. */
  platform?: string
  /** Default: ext4 for drives, erofs for trees. Raw images are found without it. */
  format?: string
}

/**
 * Credentials of the caller for the image's registry, and for no other one: a name and a password, or one of the tokens. An
 * empty object asks as somebody who has none. They are kept in memory, as long as what was asked for stands.
 */
export interface Auth {
  username?: string
  password?: string
  /** An OAuth2 refresh token. */
  identityToken?: string
  /** A bearer token that is sent as it is. */
  registryToken?: string
}

/** A request that may ask the image's registry with the caller's own credentials. */
export interface AuthorizedRequest extends ImageRequest {
  /** Default: the credentials of the daemon. */
  auth?: Auth
}

export interface SeedRequest extends AuthorizedRequest {
  /** Whether the index is also published in the image's repository, for hosts that start from the registry alone. */
  publish?: boolean
  /** What it will be mounted as: each in its format, in the place of `format`. */
  as?: ('drive' | 'tree')[]
}

export interface SeedResult {
  reference: string
  platform: string
  format: string
  /** The rootfs digest. */
  digest: string
  sizeBytes: number
  origin: Origin
  /** The name by which it is mounted, here or elsewhere in the region, without a question to its registry: with the digest. */
  mountBy?: string
  /** Present if the request asked to publish. */
  published?: PublishResult
  /** The same image in the other formats that the request asked for. */
  others?: SeedResult[]
}

export interface PublishResult {
  /** Digest of the artifact's manifest. */
  digest: string
  /** Size of all parts of the artifact together. */
  sizeBytes: number
  /** Peer id of the host that signed it. */
  key: string
  /** Whether the same artifact was published before. */
  existed: boolean
}

export interface SeedJobRequest extends AuthorizedRequest {
  /** How many hosts are to hold the image; 1 where neither `copies` nor `on` is given. */
  copies?: number | 'all'
  /** Names or peer ids of the hosts that are to hold it. */
  on?: string[]
  /** What it will be mounted as: each in its format, in the place of `format`, and on the same hosts. */
  as?: ('drive' | 'tree')[]
  /** Whether metadata and boot profile go to all members, besides the whole image on those hosts. */
  hot?: boolean
  /** How long the image is pinned, from its begin (ms). Default: one day. */
  ttlMs?: number
  /** When it begins (ms since 1970). Default: now. */
  atMs?: number
  /** Whether to answer only when it is placed, or cannot be. Default: true. */
  wait?: boolean
  /** How long to wait for that, from its begin (ms). Default: one hour. */
  timeoutMs?: number
}

export interface SeedJobResult extends SeedJobReport {
  /** Whether as many verified copies as were wanted are there, in each format. Absent if the request did not wait. */
  placed?: boolean
  /** The orders for the same image in the other formats that the request asked for. */
  others?: SeedJobReport[]
}

export interface CancelSeedRequest {
  /** 32 hexadecimal digits. */
  id: string
}

export interface SeedJobs {
  /** Newest first. */
  seeds: SeedJobReport[]
}

/** `placing` where copies are wanted that are not there yet. Times are in ISO 8601. */
export interface SeedJobReport {
  id: string
  reference: string
  platform: string
  format: string
  /** The rootfs digest. */
  digest: string
  manifestDigest: string
  hot: boolean
  /** Why, where no operator has ordered it. */
  demand?: MountDemand
  /** As ordered: a number, or all members, or the peer ids of these hosts. */
  copies: number | 'all' | string[]
  state: 'scheduled' | 'placing' | 'placed' | 'cancelled'
  /** Hosts that hold the whole image and have hashed all of it. */
  verifiedCopies: number
  startsAt: string
  /** When the pins of the image end. */
  endsAt: string
  /** Peer id of the host that took the order. */
  acceptedBy: string
  /** Peer ids of the hosts that keep the job; the first of them that is awake coordinates it. */
  keepers: string[]
  hosts: SeedHost[]
}

/** What a host of a job says that it has, in chunks. */
export interface SeedHost {
  peer: string
  name: string
  extent: 'full' | 'hot'
  /** `gone`: it is not connected now. `failed`: it has refused or could not; `code` says why. */
  state: 'placing' | 'held' | 'failed' | 'gone'
  code?: string
  /** On its disk. */
  held: number
  /** On its disk, and hashed since the image was pinned there. */
  verified: number
  total: number
}

export interface MountRequest extends AuthorizedRequest {
  /** Absolute path of an existing directory. */
  directory: string
  /** Default: `drive`. */
  as?: 'drive' | 'tree'
  /** Trees only: whether an overlay takes writes. */
  writable?: boolean
  /** Writable trees only: how much can be written (bytes). */
  limitBytes?: number
  /** Drives only: size of a second, writable drive (bytes). */
  scratchBytes?: number
  /** Drives only: the user who may open the image file besides root, and gets the scratch drive. */
  owner?: Owner
  /** Trees only: whether all of the image works also where others than root can get to the directory. */
  allowOthers?: boolean
  /** Default: `auto`, which is the daemon's `--pull`. */
  pull?: PullPolicy
  /**
   * Whether the caller must prove that he may read the image, with one request to its registry, once a minute: with `auth`, or
   * as anybody.
   */
  requireAccess?: boolean
  /** The mount is given up after this time (ms). Default: none, but that of each step. */
  timeoutMs?: number
}

/** How the reads of a mount fare. Mounts of the same rootfs share these figures. */
export interface MountReport {
  sizeBytes: number
  /** How much of the rootfs is on this host. */
  localBytes: number
  /** How much of the rootfs this host has fetched since the daemon started, imports included. */
  fetched: { peer: Amount; neighbour: Amount; registry: Amount }
  warnings: MountWarning[]
  /** Layers that are read whole now, or were in the last minutes, by diff id. */
  wholeReads: ({ layer: string } & WholeRead)[]
  /** Present if a boot profile of this rootfs is being or has been replayed. */
  profile?: BootReplay
}

/**
 * `whole-layers`: layers are read whole, or were in the last minutes; `wholeReads` says why. `peers-lost`: a part of the
 * rootfs is not here and no peer is connected, so that part can only come from the registry.
 */
export type MountWarning = 'whole-layers' | 'peers-lost'

export interface MountResult extends Placed, MountReport {
  as: 'drive' | 'tree'
  format: string
  /** The rootfs digest. */
  digest: string
  /** Digest of the image manifest that the reference stood for when it was mounted. */
  manifestDigest: string
  origin: Origin
  resolution: Resolution
  /** Who is believed about the name and about the rootfs. */
  belief: Belief
  /** Present if the registry was asked what the tag stands for and gave no answer: the reason. */
  unanswered?: string
  /** The OCI image config. */
  config: unknown
}

export interface Placed {
  /** Path of the image file that a VM gets as its drive, or of the tree's directory. */
  rootfs: string
  /** Path of the scratch drive's image file. */
  scratch?: string
  /** Present if a part of the image does not work in the tree: the mount options that see to it, and why. */
  restricted?: Restriction
}

export interface Restriction {
  /** `nosuid`: no setuid or setgid program, no file capability; `nodev`: no device node. */
  options: string[]
  /** For a person. */
  reason: string
}

export interface UmountRequest {
  /** Absolute path of the directory of a mount. */
  directory: string
}

export type ResetRequest = UmountRequest

export interface ImportRequest {
  /** Absolute path of a directory or a tar file, or `oci:DIR[:TAG]`; with `raw`, of a file or a pipe. */
  source: string
  name: string
  /** Whether the source is a finished disk image, which stays as it is. There is no `format` then. */
  raw?: boolean
  format?: string
  platform?: string
}

export interface PushRequest {
  /** A raw image. */
  image: string
  platform?: string
  /** The name in a registry, with a tag. */
  target: string
  /** For the target's registry. Default: the credentials of the daemon. */
  auth?: Auth
}

export interface PushResult {
  /** As the image is called from now on. */
  reference: string
  platform: string
  /** The rootfs digest. */
  digest: string
  manifestDigest: string
  sizeBytes: number
  /** Size of its layers in the registry, those that were there before included; each counts once. */
  compressedBytes: number
  published: PublishResult
}

export interface ExportRequest extends ImageRequest {
  /** Absolute path. An existing file is replaced once everything is written. */
  file: string
}

export interface ExportResult {
  file: string
  /** The rootfs digest. */
  digest: string
  sizeBytes: number
}

export type InspectRequest = ImageRequest

export interface InspectResult {
  reference: string
  platform: string
  format: string
  /** The rootfs digest. */
  digest: string
  /** Who is believed about the name and about the rootfs. */
  belief: Belief
  sizeBytes: number
  /** How much of the rootfs is on this host. */
  localBytes: number
  metadataBytes: number
  chunks: number
  layers: InspectedLayer[]
  /** Other images that this host knows and that share chunks with this one, most shared bytes first. */
  sharing: { reference: string; platform: string; format: string; sharedChunks: number; sharedBytes: number }[]
  /** The OCI image config. */
  config: unknown
}

export interface InspectedLayer {
  diffId: string
  /** Digest of the layer's blob in the registry. */
  digest: string
  compressedBytes: number
  /** Size of the tar; of a raw image, the part of the image that the layer is. */
  tarBytes: number
  /** Number of tar entries by type, whiteouts and opaque markers included. */
  entries: Record<string, number>
  /** Size of the contents of all files. */
  dataBytes: number
  chunks: number
  localBytes: number
}

/** Names an image of this host, in all of its platforms and formats that are not ruled out. */
export type ImageNameRequest = ImageRequest

/** The images of this host, those that were used last first. */
export interface ImageList {
  images: ListedImage[]
}

export interface ListedImage {
  reference: string
  platform: string
  format: string
  /** The rootfs digest. */
  digest: string
  sizeBytes: number
  /** How much of it is on this host, and how much of that is in layers that other images here have, too. */
  localBytes: number
  sharedBytes: number
  /** When it was mounted, unmounted or seeded here the last time (ISO 8601); now while it is mounted; absent where nobody knows. */
  lastUsedAt?: string
  /** Why it is not evicted; empty where it may be. */
  pins: PinReason[]
  /** Directories that it is mounted on. */
  mounts: string[]
}

/** `pin`: by p2pfs pin. `seed`: for a seed job. `hot`: it is mounted often. `local`: it was made here, and nobody else need have it. */
export interface PinReason {
  why: 'pin' | 'seed' | 'hot' | 'local'
  job?: string
  /** Absent where it has no end (ISO 8601). */
  until?: string
}

export interface RemoveImageResult {
  removed: { reference: string; platform: string; format: string; digest: string }[]
  /** Chunks that no other image here has. */
  freed: Amount
}

export interface PinRequest extends ImageNameRequest {
  /** Default: it has no end. */
  ttlMs?: number
}

export interface PinResult {
  images: {
    reference: string
    platform: string
    format: string
    digest: string
    sizeBytes: number
    /** How much of it is here, and kept from now on; absent in the answer to unpin. */
    localBytes?: number
  }[]
  until?: string
}

export interface GcRequest {
  /** Whether nothing is to be removed. */
  dryRun?: boolean
}

export interface GcResult {
  dryRun: boolean
  /** Images that no name stands for any more, and layers of none, that were removed, or would be. */
  rootfs: number
  layers: number
  /** Chunks of these, and of nothing. */
  unneeded: Amount
  /** Chunks beyond the limit. */
  evicted: Amount
  storeBytes: number
  limitBytes?: number
}

export type VerifyRequest = AuthorizedRequest

export interface VerifyResult {
  reference: string
  platform: string
  format: string
  /** Digest of the image manifest whose layers were read. */
  manifestDigest: string
  /** Digest of the rootfs that these layers make. */
  digest: string
  /** Whether everything that is in use agrees with the layers. */
  same: boolean
  /** The rootfs that this host, the region and the registry use for the image; empty if none of them knows it. */
  uses: VerifiedUse[]
}

/** `unknown`: there is nothing to compare with. */
export type Comparison = 'same' | 'different' | 'unknown'

export interface VerifiedUse {
  source: 'host' | 'region' | 'registry'
  /** The rootfs digest. */
  digest: string
  /** `other image`: this source takes the reference for another image manifest. */
  rootfs: Comparison | 'other image'
  /** Peer id of the host that signed the rootfs. */
  maker: string
  /** Whether the maker is this host. */
  own: boolean
  /** Whether this host accepts the maker's signatures. */
  accepted: boolean
  /** Present if the rootfs cannot be read: the reason. */
  error?: string
  /** For each layer, how its chunk table, layer index and blob map compare. */
  layers: { diffId: string; digest: string; chunks: Comparison; index: Comparison; map: Comparison }[]
}

/** `POST /v1/doctor` answers with a {@link DoctorResult}. */
export interface DoctorRequest {
  /** An image whose registry is asked. Without it no registry is. */
  image?: string
  /** Default: the platform that the daemon is configured for. */
  platform?: string
  /** Instead of the daemon's own credentials. */
  auth?: Auth
}

export interface DoctorResult {
  /** What only the daemon can look at: peers, clocks, registry. */
  checks: Check[]
  stateDir: string
  /** The daemon's options as they count, without secrets. */
  config: Record<string, unknown>
}

/** One thing that was looked at. */
export interface Check {
  name: string
  /** `problem`: something does not work; `warning`: it may come to that; `left-out`: it could not be looked at. */
  state: 'ok' | 'warning' | 'problem' | 'left-out'
  /** What was found, for a person. */
  found: string
  /** What to do about it. */
  advice?: string
}

export interface Progress {
  progress: { step: 'import' | 'fetch' | 'export' | 'push' | 'publish' | 'verify' | 'place' } & ByteProgress
}

export type Outcome<T> = { result: T } | { error: Problem }

/**
 * `open`; `idle`: none is needed now. Otherwise chunks come over libp2p: the peer has none for this host (`refused`: it
 * has `--bulk off`, another mode or too many), its port is not reached (`unreachable`), or this host has none (`off`).
 */
export type BulkLink = 'open' | 'idle' | 'refused' | 'unreachable' | 'off'

/** Flows that can be limited, in bytes a second. */
export const limitNames = ['upload', 'download', 'registry', 'seed', 'neighbour', 'guest', 'hot'] as const
export type LimitName = (typeof limitNames)[number]

export interface LimitsRequest {
  /** Rates such as `200Mbit` or `25MB`, or `none`. */
  set?: Partial<Record<LimitName, string>>
  /** Whether limits that were changed before are those of the daemon's options again; `set` comes after that. */
  reset?: boolean
}

export interface Limits {
  limits: LimitReport[]
}

export interface LimitReport {
  name: LimitName
  /** As it was given; `none` where there is no limit. */
  rate: string
  /** Whether it is not the daemon's option. */
  isChanged: boolean
  /** The rate of the last five seconds; of less where the daemon has just started. */
  bytesPerSecond: number
  /** Pieces that wait for the limit now. */
  waiting: number
  /** Pieces that have waited for it since the daemon started, in bulk or otherwise. */
  waits: number
  /** Those of them that somebody waited for, and how long these have waited together (ms). */
  urgentWaits: number
  urgentWaitedMs: number
}

/** A read of a mount that waits for a chunk. */
export interface WaitingReadReport {
  /** References of the images that are mounted of the rootfs. */
  images: string[]
  /** The rootfs digest. */
  rootfs: string
  chunk: string
  waitedSeconds: number
  /** When its reader gets an I/O error, unless the chunk comes. */
  failsInSeconds: number
  /** Peers that have been asked and have not answered. */
  asked: { peer: string; name?: string }[]
  /** Peers that did not deliver, with the code of the error. */
  refusals: { peer: string; name?: string; code: string }[]
  /** `asked`: the registry's answer is waited for, or that of a neighbour region. Otherwise the code that it failed with. */
  registry?: string
  /** The code with which the last try failed; another one follows. */
  failure?: string
}

/** Counters begin at zero when the daemon starts. */
export interface Status {
  version: string
  daemonPid: number
  /**
   * How long the daemon's main thread lets what is due wait (ms): of the minute under way or the one before, whichever is
   * worse.
   */
  eventLoopDelayMs: Delay
  uptimeSeconds: number
  name: string
  region: string
  peerId: string
  addresses: string[]
  /** Who is let in as a peer: hosts that prove the region's key, or everybody who reaches this host. */
  access: 'region-key' | 'everybody'
  /** Connections whose other side did not prove it, and those of them that were dropped for newer ones. */
  strangers: { turnedAway: number; dropped: number }
  /** Members of the region that are known, connected or not, without this host. `peers` are those that are connected. */
  members: number
  /** How chunks that nobody waits for are carried beside libp2p, and the port for that; absent with `--bulk off`. */
  bulk?: { mode: 'tls' | 'plain'; port?: number }
  peers: {
    peer: string
    name: string
    addresses: string[]
    connectedSeconds: number
    sent: Amount
    received: Amount
    /** The connection over which this host takes such chunks from the peer. */
    bulk: BulkLink
  }[]
  /** Other regions that this host is a guest of. */
  neighbours: {
    region: string
    /** Peer ids of the members that are connected; none while nothing is read. */
    members: string[]
    /** Members that are known, connected or not. */
    known: number
    received: Amount
    /** For how long the region is passed over still. */
    passedOverSeconds: number
    /** Why no member is connected, where the last one that was dialled was not reached, or did not take this host. */
    problem?: string
  }[]
  /** Limits on bandwidth. */
  limits: LimitReport[]
  /** Hosts of other regions that this host serves. */
  guests: { connected: number; sent: Amount }
  images: {
    reference: string
    platform: string
    format: string
    digest: string
    /** Who is believed about it; absent where nobody is any more, so that it is resolved anew when it is asked for. */
    belief?: Belief
    sizeBytes: number
    localBytes: number
    /** Whether the next mount of it is read by the kernel alone, as far as the option nativeReads has that for its kind. */
    isReadyForNative: boolean
  }[]
  /** Images that this host keeps until a time (ISO 8601), each for a seed job. */
  pins: {
    reference: string
    digest: string
    extent: 'full' | 'hot'
    until: string
    job: string
    sizeBytes: number
    /** Why, where no operator has ordered it. */
    demand?: MountDemand
  }[]
  /** Images that the region mounts often. */
  hot: {
    isOn: boolean
    /** Images that this host counts for the region, the most mounted first; `mounts` halve every ten minutes. */
    counted: {
      reference: string
      platform: string
      format: string
      manifestDigest: string
      digest: string
      mounts: number
      hosts: number
      isHot: boolean
    }[]
    /** Room that the pins with a `demand` take. */
    usedBytes: number
    /** Images that came because they were mounted often, pinned or no longer, that nobody has ordered here. */
    placedBytes: number
    /** What both may be. */
    diskBytes: number
  }
  /** How many images that are believed on the word of members wait to be verified, or are verified now. */
  toVerify: number
  /** Imports under way on this host. `forPeers` counts the peers that wait for one; bytes are of compressed layers. */
  imports: ({ reference: string; forPeers: number } & ByteProgress)[]
  /** Images that are made whole on this host now, for `seed` or `import`; bytes are of the rootfs. */
  seeds: ({ reference: string } & ByteProgress)[]
  mounts: ({
    directory: string
    reference: string
    format: string
    digest: string
    manifestDigest: string
    /** As they were when the image was mounted. */
    origin: Origin
    resolution: Resolution
    as: 'drive' | 'tree'
    writable: boolean
    limitBytes?: number
    scratchBytes?: number
    owner?: Owner
    allowOthers?: boolean
    mountedAt: string
    /** Who answers its reads: the kernel by itself, which leaves them out of `served` and of boot profiles, or the daemon. */
    reads: 'native' | 'fuse'
    /** Present if this host has proved since that the rootfs is not the image. */
    contradicted?: true
  } & MountReport)[]
  /** Disk that files for native reads take, besides the chunks (bytes). */
  nativeBytes: number
  /** Number of chunks in the store. */
  chunks: number
  /** What the store takes on the disk, files for native reads included; what it may take now, where there is a limit; what was evicted. */
  storeBytes: number
  limitBytes?: number
  evicted: Amount
  /** Bytes that mounts have read, by the source of each chunk. */
  served: { local: Amount; peer: Amount; neighbour: Amount; registry: Amount }
  /** Reads of mounts that were answered with an I/O error. */
  readErrors: number
  /** Reads of mounts that wait for data; `slow`: for two seconds or more. The longest come first, five at most. */
  waitingReads: { count: number; slow: number; longest: WaitingReadReport[] }
  /** Bytes that this host has fetched; imports count as registry. */
  fetched: { peer: Amount; neighbour: Amount; registry: Amount }
  /** Reads at random from registries: requests, and bytes as they were sent (compressed). */
  readAtRandom: { requests: number; bytes: number }
  /** Bytes that this host has sent to peers. */
  sent: Amount
}

/** A mount, as it was asked for, and how its reads fare. */
export type MountStatus = Status['mounts'][number]

export interface MountList {
  mounts: MountStatus[]
}
