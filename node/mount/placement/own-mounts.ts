import { dirname, join } from 'node:path'
import { isFrom } from './filesystem-source.ts'
import { isOverlayBelow } from './overlay-layers.ts'
import { readMounts, type MountInfo } from './mountinfo.ts'

export interface OwnMount extends MountInfo {
  /** Whether it stands elsewhere than below the given directories: on, or in, a directory of the user. */
  bound: boolean
}

/**
 * The mounts on and below the given directories, and all other mounts of the same filesystems, in the order in which
 * they were made. A filesystem is ours if it is mounted there as a whole: a file or directory of the host's disk may be
 * bound there, and that disk has other mounts. It stays ours, by its source, when it was unmounted there by hand. A mount on a
 * file of a tmpfs of ours belongs to that tmpfs, see {@link DriveDirectories}.
 * @param roots without symbolic links
 */
export async function ownMounts(roots: readonly string[]): Promise<OwnMount[]> {
  return ownMountsOf(await readMounts(), roots)
}

/** As {@link ownMounts}, of a list of all mounts. */
export function ownMountsOf(mounts: readonly MountInfo[], roots: readonly string[]): OwnMount[] {
  const isBelow = (mountPoint: string): boolean =>
    roots.some((root) => mountPoint === root || mountPoint.startsWith(`${root}/`))
  const devices = new Set(
    mounts
      .filter((mount) => (mount.root === '/' && isBelow(mount.mountPoint)) || roots.some((root) => isFrom(mount, root)))
      .map(({ device }) => device),
  )
  const directories = new Set(
    mounts.filter(({ type, device }) => type === 'tmpfs' && devices.has(device)).map(({ id }) => id),
  )
  return mounts
    .filter(({ device, parent }) => devices.has(device) || directories.has(parent))
    .map((mount) => ({ ...mount, bound: !isBelow(mount.mountPoint) }))
}

/**
 * Those of a list of own mounts that need no daemon: of filesystems that are mounted below a directory first, the
 * writable trees on these, with their disks, and the directories of drives whose image is one of these.
 */
export function lastingMounts(own: readonly OwnMount[], directory: string): OwnMount[] {
  const devicesOf = (mounts: readonly OwnMount[]): Set<string> => new Set(mounts.map(({ device }) => device))
  const native = own.filter((mount) => mount.mountPoint.startsWith(`${directory}/`) || isFrom(mount, directory))
  const overlays = own.filter((mount) => isOverlayBelow(mount, directory))
  const disks = own.filter(({ mountPoint }) =>
    overlays.some((overlay) => !overlay.bound && mountPoint === join(dirname(overlay.mountPoint), 'disk')),
  )
  const nativeDevices = devicesOf(native)
  const drives = own.filter(
    ({ id, type }) => type === 'tmpfs' && own.some(({ parent, device }) => parent === id && nativeDevices.has(device)),
  )
  const inDrives = new Set(drives.map(({ id }) => id))
  const devices = devicesOf([...native, ...overlays, ...disks, ...drives])
  return own.filter(({ device, parent }) => devices.has(device) || inDrives.has(parent))
}
