import type { Status } from './status.ts'

/** A mount, as it was asked for, and how its reads fare. */
export type MountStatus = Status['mounts'][number]

export interface MountList {
  mounts: MountStatus[]
}
