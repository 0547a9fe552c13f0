import type { MountInfo } from './mountinfo.ts'

const prefix = 'p2pfs@'

/**
 * The source that a filesystem names which is mounted on a directory of ours first. Mountinfo shows it for all its mounts: so
 * those of users are known as ours also when somebody has unmounted the first one by hand. Not the path alone, by which umount(8)
 * would find them.
 */
export function sourceOf(directory: string): string {
  return `${prefix}${directory}`
}

/** Whether a filesystem was first mounted on or below a directory, or from a file there. */
export function isFrom({ source }: Pick<MountInfo, 'source'>, directory: string): boolean {
  const path = source.startsWith(prefix) ? source.slice(prefix.length) : source
  return path === directory || path.startsWith(`${directory}/`)
}
