import { escapeOverlayPath } from './kernel-mounter.ts'
import type { MountInfo } from './mountinfo.ts'

/** Whether a mount is an overlay whose lower layer is below a directory. */
export function isOverlayBelow({ type, options }: Pick<MountInfo, 'type' | 'options'>, directory: string): boolean {
  return (
    type === 'overlay' &&
    options.split(',').some((option) => option.startsWith(`lowerdir=${escapeOverlayPath(directory)}/`))
  )
}
