import type { MountDemand } from '../../../protocol/seed-job.ts'
import type { AuthorizedRequest } from './image-request.ts'

export interface SeedJobRequest extends AuthorizedRequest {
  /** How many hosts are to hold the image; 1 where neither `copies` nor `on` is given. */
  copies?: number | 'all'
  /** Names or peer ids of the hosts that are to hold it. */
  on?: string[]
  /** The kinds of mounts that it is for: it is placed in the format of each, on the same hosts. Excludes `format`. */
  as?: ('drive' | 'tree')[]
  /** Whether metadata and boot profile go to all members, besides the whole image on those hosts. */
  hot?: boolean
  /** How long the image is pinned, from its begin (ms). Default: one day. */
  ttlMs?: number
  /** The time at which it begins (ms since 1970). Default: now. */
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
  /** The time at which the pins of the image end. */
  endsAt: string
  /** Peer id of the host that took the order. */
  acceptedBy: string
  /** Peer ids of the hosts that keep the job; the first of them that is awake coordinates it. */
  keepers: string[]
  hosts: SeedHost[]
}

/** A host of a job, with the chunks that it says it has. */
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
