import type { RootfsFormat } from '../../../protocol/rootfs-manifest.ts'
import type { Owner } from '../../model/owner.ts'

/** A description of what is to stand on a directory. */
export interface MountSpec {
  /** Unique to this mount: the name of what is kept for it. */
  id: string
  /** Absolute, as the user spelt it. */
  directory: string
  /** Identifies the mount, see {@link PlacedMount}; undefined before it is placed. */
  identity?: string
  /** Name of the rootfs in the FUSE mount. */
  rootfs: string
  format: RootfsFormat
  /** `drive`: the image file, for a VM. `tree`: the files in it, mounted by the host's kernel. */
  as: 'drive' | 'tree'
  /** Trees only: an overlay on top takes writes, which end with the mount. */
  writable: boolean
  /** Writable trees only: how much can be written (bytes); unlimited if not given. */
  limitBytes?: number
  /** Drives only: size of a second, writable drive (bytes); none if not given. */
  scratchBytes?: number
  /** Drives only: who gets the scratch drive, and may open the image file besides root. */
  owner?: Owner
  /** Trees only: whether all of the image works also where others than root can get to the directory. */
  allowOthers?: boolean
}

/** Paths at which the user finds what was placed. */
export interface Placed {
  /** The image file of a drive, the directory of a tree. */
  rootfs: string
  /** The image file of the scratch drive. */
  scratch?: string
  /** Present if a part of the image does not work in the tree. */
  restricted?: Restriction
}

/** The mount options that keep other users from a part of an image, and the reason for a person. */
export interface Restriction {
  options: string[]
  reason: string
}

/**
 * Answers the reads of a mount that the page cache does not have: the kernel by itself (`native`), or the daemon
 * (`fuse`).
 */
export type Reads = 'native' | 'fuse'

export interface PlacedMount {
  placed: Placed
  reads: Reads
  /** Tells the mount from all others while it stands, whatever its directory is called or wherever it is moved. */
  identity: string
}

/** A directory that a path leads to. */
export interface Place {
  /** Without symbolic links. */
  path: string
  /** The identity of the mount that stands on it, which may be none of ours; undefined if none does. */
  identity: string | undefined
}

/** How a rootfs gets from the FUSE mount to the directory that the user names. */
export interface Placement {
  /** The directory that a path leads to, however it is spelt; undefined if there is no such directory. */
  locate: (directory: string) => Promise<Place | undefined>
  /** Finds the mounts that stand. @returns the identity of each, by the id of its spec */
  standing: (specs: readonly MountSpec[]) => Promise<Map<string, string>>
  /** Whether the kernel or the daemon answers the reads of mounts that stand, by the id of their spec. */
  reads: (specs: readonly MountSpec[]) => Promise<Map<string, Reads>>
  /** @throws missing if there is no such directory; conflict if it is taken; unsupported if this host cannot do it */
  place: (spec: MountSpec, options: { signal: AbortSignal }) => Promise<PlacedMount>
  /**
   * Gives the mount a fresh scratch drive or a fresh upper layer.
   * @throws invalid if it has neither; conflict if it is in use
   */
  reset: (spec: MountSpec) => Promise<PlacedMount>
  /** Ends the mount. Parts that other users of it still need stay until {@link tidy}. @throws conflict if it is in use */
  remove: (spec: MountSpec) => Promise<void>
  /** Removes what cannot outlive the daemon, when it stops and for mounts that are gone when it starts. */
  end: (specs: readonly MountSpec[]) => Promise<void>
  /**
   * No mount has this rootfs as a tree any more: ends what nothing is bound to. @returns false if something still uses
   * it
   */
  release: (rootfs: string) => Promise<boolean>
  /** Removes what belongs to none of these mounts, and is not in use: what a crash or a reboot has left. */
  tidy: (specs: readonly MountSpec[]) => Promise<void>
}
