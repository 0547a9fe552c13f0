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
