const minuteMs = 60_000
const dayMs = 24 * 60 * minuteMs
const gibibyte = 1024 ** 3

/** The bounds of what this host does and keeps for seeds. Tests have others. */
export interface SeedLimits {
  /** Jobs of this host's operator that are kept, and as many again of members: half a MiB each at most. */
  jobs: number
  /** Jobs that one member may have kept here. */
  jobsPerPeer: number
  /**
   * Images that are made whole here at once for members, of different ones, and as many for the operator: each has 128
   * chunks under way, at the lowest priority.
   */
  placementsAtOnce: number
  /** Requests for that which wait or run, in all and of one member. Each is a stream. */
  waiting: number
  waitingPerPeer: number
  /** Such requests of one member in a minute: 64 jobs, which look once a minute, and some that are being placed. */
  requestsPerMinutePerPeer: number
  /** A placement for a member to which no chunk comes for so long is ended (ms). */
  stallMs: number
  /** Pins that members may have here. */
  pins: number
  /** The share of the disk that images pinned for members may take: for all members together, and for one. */
  pinnedShare: number
  pinnedSharePerPeer: number
  /**
   * Room that is left for this host itself: nothing is placed here for a member with less free space than this share of
   * the disk, or than so many bytes, whichever is less; nor what would leave less.
   */
  freeShare: number
  freeBytes: number
  /** How often the free space is looked at during a placement (ms). */
  roomIntervalMs: number
  /** How long a job may last from now on (ms). */
  ttlMs: number
  /** How far the clock of another host may be ahead (ms). */
  clockSkewMs: number
  /** A cancelled job is remembered so long, so that a keeper that was away does not revive it (ms). */
  cancelledMs: number
}

export const seedLimits: SeedLimits = {
  jobs: 256,
  jobsPerPeer: 64,
  placementsAtOnce: 3,
  waiting: 128,
  waitingPerPeer: 32,
  requestsPerMinutePerPeer: 240,
  stallMs: 2 * minuteMs,
  pins: 1024,
  pinnedShare: 0.5,
  pinnedSharePerPeer: 0.25,
  freeShare: 0.1,
  freeBytes: 10 * gibibyte,
  roomIntervalMs: 2_000,
  ttlMs: 90 * dayMs,
  clockSkewMs: 10 * minuteMs,
  cancelledMs: 60 * minuteMs,
}
