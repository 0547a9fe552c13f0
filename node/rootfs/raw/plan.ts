import type { FilesystemPlan } from '../filesystem-plan.ts'

/** A raw image has its filesystem, if any, in its data segments: nothing stands before them. */
export function planRaw(_tree: unknown, segmentBytes: readonly number[]): FilesystemPlan {
  return {
    metadataBytes: 0,
    sizeBytes: segmentBytes.reduce((sum, bytes) => sum + bytes, 0),
    // oxlint-disable-next-line require-yield
    pieces: function* () {
      return
    },
  }
}
