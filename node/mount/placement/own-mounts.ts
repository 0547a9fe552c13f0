import { dirname, join } from 'node:path'
import { isOverlayBelow } from './overlay-layers.ts'
import { readMounts, type MountInfo } from './mountinfo.ts'

export interface OwnMount extends MountInfo {
  /** Whether it stands elsewhere than below the given directories: on a directory of the user. */
  bound: boolean
}

/**
 * The mounts on and below the given directories, and all other mounts of the same filesystems, in the order in which
 * they were made.
 * @param roots without symbolic links
 */
export async function ownMounts(roots: readonly string[]): Promise<OwnMount[]> {
  const mounts = await readMounts()
  const isBelow = (mountPoint: string): boolean =>
    roots.some((root) => mountPoint === root || mountPoint.startsWith(`${root}/`))
  const devices = new Set(mounts.filter(({ mountPoint }) => isBelow(mountPoint)).map(({ device }) => device))
  return mounts
    .filter(({ device }) => devices.has(device))
    .map((mount) => ({ ...mount, bound: !isBelow(mount.mountPoint) }))
}

/**
 * Those of a list of own mounts that need no daemon: of filesystems that are mounted below a directory first, and the
 * writable trees on these, with their disks.
 */
export function lastingMounts(own: readonly OwnMount[], directory: string): OwnMount[] {
  const devicesOf = (mounts: readonly OwnMount[]): Set<string> => new Set(mounts.map(({ device }) => device))
  const native = own.filter(({ mountPoint }) => mountPoint.startsWith(`${directory}/`))
  const overlays = own.filter((mount) => isOverlayBelow(mount, directory))
  const disks = own.filter(({ mountPoint }) =>
    overlays.some((overlay) => !overlay.bound && mountPoint === join(dirname(overlay.mountPoint), 'disk')),
  )
  const devices = devicesOf([...native, ...overlays, ...disks])
  return own.filter(({ device }) => devices.has(device))
}
