import type { Placed } from '../node/control/api.ts'
import { printNote } from './output.ts'

/** Says what of a tree does not work, and what to do about it. */
export function noteRestriction({ rootfs, restricted }: Placed): void {
  if (restricted === undefined) return
  printNote(
    `setuid programs and device nodes of the image do not work on ${rootfs}: ${restricted.reason}. They do below a ` +
      'directory that only root can enter (mode 700), or for everybody with --allow-others',
  )
}
