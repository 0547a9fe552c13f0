/** Flows that can be limited, in bytes a second. */
export const limitNames = ['upload', 'download', 'registry', 'seed', 'neighbour', 'guest', 'hot'] as const
export type LimitName = (typeof limitNames)[number]

export interface LimitsRequest {
  /** Rates such as `200Mbit` or `25MB`, or `none`. */
  set?: Partial<Record<LimitName, string>>
  /** Whether limits that were changed before are those of the daemon's options again; `set` comes after that. */
  reset?: boolean
}

export interface Limits {
  limits: LimitReport[]
}

export interface LimitReport {
  name: LimitName
  /** As it was given; `none` where there is no limit. */
  rate: string
  /** Whether it is not the daemon's option. */
  isChanged: boolean
  /** The rate of the last five seconds; of less where the daemon has just started. */
  bytesPerSecond: number
  /** Pieces that wait for the limit now. */
  waiting: number
  /** Pieces that have waited for it since the daemon started, in bulk or otherwise. */
  waits: number
  /** Those of them that somebody waited for, and how long these have waited together (ms). */
  urgentWaits: number
  urgentWaitedMs: number
}
