const minuteMs = 60_000

/** The bounds of what is counted and placed because it is mounted often. Tests have others. */
export interface HotLimits {
  /** A mount counts half as much after so long (ms). */
  halfLifeMs: number
  /** An image is hot when so many mounts are counted, and until fewer than `cool` are. */
  hot: number
  cool: number
  /**
   * Most that one source address adds to the count of one image: less than makes it hot, so that two hosts are needed, and
   * one that lies does not decide alone.
   */
  perSource: number
  /** Sources that are counted for one image: as many as the most copies need. */
  sources: number
  /** Images that are counted, in all, and those that one source alone has mounted: 10 MiB at most. */
  images: number
  imagesPerSource: number
  /** Images that one source may tell of: after a pause, and in a second. More are not counted. */
  told: { burst: number; perSecond: number }
  /** An image that is hot is placed so long after it has become so (ms): a burst of mounts needs the links for itself. */
  settleMs: number
  /** Hosts that hold the whole image, at least and at most. */
  copies: { least: number; most: number }
  /** Images that are placed at once because of this host's counts; the heaviest. */
  jobs: number
  /** How long an order lasts (ms). It is given anew in the second half of that, as long as the image is hot. */
  ttlMs: number
  /** How often a hot tag is looked at in the registry (ms): unasked, and at most, where a member tells of another digest. */
  lookMs: number
  toldLookMs: number
  /**
   * Tags that are not hot and are asked for ahead of their mounts: those of which so many mounts are counted (one mount counts
   * half after the half-life), the heaviest, and so many each time that counts are looked at.
   */
  refresh: { mounts: number; atOnce: number }
}

export const hotLimits: HotLimits = {
  halfLifeMs: 10 * minuteMs,
  hot: 3,
  cool: 1,
  perSource: 2,
  sources: 32,
  images: 4096,
  imagesPerSource: 256,
  told: { burst: 256, perSecond: 4 },
  settleMs: 30_000,
  copies: { least: 2, most: 16 },
  jobs: 32,
  ttlMs: 20 * minuteMs,
  lookMs: 3 * minuteMs,
  toldLookMs: 10_000,
  refresh: { mounts: 0.5, atOnce: 4 },
}

/** Hosts that count the mounts of one image: two may be lost. */
export const countersOfImage = 3
