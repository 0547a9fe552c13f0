import type { RootfsFormat } from '../../../protocol/rootfs-manifest.ts'

/** What is to stand on a directory. */
export interface MountSpec {
  /** Of this mount, unique; names what is kept for it. */
  id: string
  /** Absolute. */
  directory: string
  /** Name of the rootfs in the FUSE mount. */
  rootfs: string
  format: RootfsFormat
  /** `drive`: the image file, for a VM. `tree`: the files in it, mounted by the host's kernel. */
  as: 'drive' | 'tree'
  /** Trees only: an overlay on top takes writes, which end with the mount. */
  writable: boolean
  /** Of writable trees: how much can be written, bytes; unlimited if not given. */
  limitBytes?: number
  /** Drives only: size of a second, writable drive, bytes; none if not given. */
  scratchBytes?: number
}

/** Where the user finds what was placed. */
export interface Placed {
  /** The image file of a drive, the directory of a tree. */
  rootfs: string
  /** The image file of the scratch drive. */
  scratch?: string
}

/** How a rootfs gets from the FUSE mount to the directory that the user names. */
export interface Placement {
  /** Directories that something of ours stands on. */
  standing: () => Promise<Set<string>>
  /** @throws missing where there is no such directory; conflict where it is taken; unsupported for what this host cannot do */
  place: (spec: MountSpec, options: { signal: AbortSignal }) => Promise<Placed>
  /** Gives the mount a fresh scratch drive or a fresh upper layer. @throws invalid where it has none; conflict where it is in use */
  reset: (spec: MountSpec) => Promise<Placed>
  /** @throws conflict where it is in use */
  remove: (spec: MountSpec) => Promise<void>
  /** Removes what cannot outlive the daemon, when it stops and for mounts that are gone when it starts. */
  end: (specs: readonly MountSpec[]) => Promise<void>
  /** No mount has this rootfs as a tree any more. @returns false where something still uses it */
  release: (rootfs: string) => Promise<boolean>
  /** Before anything is placed: removes whatever belongs to none of these mounts, what a crash or a reboot has left. */
  tidy: (specs: readonly MountSpec[]) => Promise<void>
}
