import { dirname } from 'node:path'

/** The owner and the mode bits of a directory. */
export interface DirectoryAccess {
  uid: number
  gid: number
  mode: number
}

const stickyBit = 0o1000
const groupBits = { write: 0o020, enter: 0o010 }
const otherBits = { write: 0o002, enter: 0o001 }

/** The directories above a path, from `/` down. @param path absolute, without symbolic links */
export function ancestorsOf(path: string): string[] {
  const parent = dirname(path)
  return parent === path ? [] : [...ancestorsOf(parent), parent]
}

/**
 * Whether the mode bits keep all users but root out. An access control list cannot let more in than the group bits say,
 * which are its mask then; if the group is root, and may enter, a list has to be looked for.
 */
export function keepsOthersOut({ uid, gid, mode }: DirectoryAccess): 'yes' | 'no' | 'unless listed' {
  if (uid !== 0 || (mode & otherBits.enter) !== 0) return 'no'
  if ((mode & groupBits.enter) === 0) return 'yes'
  return gid === 0 ? 'unless listed' : 'no'
}

/** Whether others than root and `trusted` may rename or replace what these have in the directory. */
export function isChangeable({ uid, gid, mode }: DirectoryAccess, { trusted = 0 }: { trusted?: number } = {}): boolean {
  if (uid !== 0 && uid !== trusted) return true
  if ((mode & stickyBit) !== 0) return false
  return (mode & otherBits.write) !== 0 || ((mode & groupBits.write) !== 0 && gid !== 0)
}
