import type { Belief } from '../../model/belief.ts'
import type { BootReplay } from '../../model/boot-replay.ts'
import type { Origin, PullPolicy, Resolution } from '../../model/image.ts'
import type { Owner } from '../../model/owner.ts'
import type { Amount } from '../../model/progress.ts'
import type { WholeRead } from '../../model/whole-read.ts'
import type { AuthorizedRequest } from './image-request.ts'

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
   * Whether the caller must prove that he may read the image, with one request to its registry, once a minute: with
   * `auth`, or as anybody.
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
  /** The hosts that are believed about the name and about the rootfs. */
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
