import { readMounts, type MountInfo } from './mountinfo.ts'

/**
 * The mounts on and below the given directories, and all others of the same filesystems, in the order in which they were made.
 * `bound`: it stands elsewhere, on a directory of the user.
 */
export async function ownMounts(roots: readonly string[]): Promise<(MountInfo & { bound: boolean })[]> {
  const mounts = await readMounts()
  const isBelow = (mountPoint: string): boolean =>
    roots.some((root) => mountPoint === root || mountPoint.startsWith(`${root}/`))
  const devices = new Set(mounts.filter(({ mountPoint }) => isBelow(mountPoint)).map(({ device }) => device))
  return mounts
    .filter(({ device }) => devices.has(device))
    .map((mount) => ({ ...mount, bound: !isBelow(mount.mountPoint) }))
}
