import type { MountDemand } from '../../../protocol/seed-job.ts'
import type { Delay } from '../../base/event-loop-delay.ts'
import type { Belief } from '../../model/belief.ts'
import type { Origin, Resolution } from '../../model/image.ts'
import type { Owner } from '../../model/owner.ts'
import type { Amount, ByteProgress } from '../../model/progress.ts'
import type { LimitReport } from './limits.ts'
import type { MountReport } from './mounts.ts'

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
  /** The hosts that are let in as peers: those that prove the region's key, or all that reach this host. */
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
    /**
     * The hosts that are believed about it. Absent where none is any more: the image is resolved anew when it is asked
     * for.
     */
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
    /** The most that `usedBytes` and `placedBytes` may each be. */
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
    /**
     * `native`: the kernel answers its reads by itself, so they are missing in `served` and boot profiles. `fuse`: the
     * daemon does.
     */
    reads: 'native' | 'fuse'
    /** Present if this host has proved since that the rootfs is not the image. */
    contradicted?: true
  } & MountReport)[]
  /** Disk that files for native reads take, besides the chunks (bytes). */
  nativeBytes: number
  /** Number of chunks in the store. */
  chunks: number
  /**
   * The room of the store on the disk, files for native reads included. `limitBytes`: the most that it may be now,
   * where there is a limit.
   */
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

/**
 * `open`; `idle`: none is needed now. Otherwise chunks come over libp2p: the peer has none for this host (`refused`: it
 * has `--bulk off`, another mode or too many), its port is not reached (`unreachable`), or this host has none (`off`).
 */
export type BulkLink = 'open' | 'idle' | 'refused' | 'unreachable' | 'off'

/** A read of a mount that waits for a chunk. */
export interface WaitingReadReport {
  /** References of the images that are mounted of the rootfs. */
  images: string[]
  /** The rootfs digest. */
  rootfs: string
  chunk: string
  waitedSeconds: number
  /** The time until its reader gets an I/O error, unless the chunk comes. */
  failsInSeconds: number
  /** Peers that have been asked and have not answered. */
  asked: { peer: string; name?: string }[]
  /** Peers that did not deliver, with the code of the error. */
  refusals: { peer: string; name?: string; code: string }[]
  /**
   * `asked`: the registry's answer is waited for, or that of a neighbour region. Otherwise the code that it failed
   * with.
   */
  registry?: string
  /** The code with which the last try failed; another one follows. */
  failure?: string
}
