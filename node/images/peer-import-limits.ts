const gibibyte = 1024 ** 3

/** The bounds of what this host imports for peers. Tests have others. */
export interface PeerImportLimits {
  /** Imports that run at once because peers want them: each takes two threads, and memory that grows with the image. */
  importsAtOnce: number
  /** Such imports that one peer has begun: the others are for other peers. */
  importsAtOncePerPeer: number
  /**
   * Requests that wait for an answer at once: each holds a stream, and gets two messages a second. A large region asks
   * for one image at once.
   */
  waiting: number
  /** Such requests of one peer: a host that starts many machines wants many images. */
  waitingPerPeer: number
  /** Requests of one peer in a minute, in all and at once: as many images as a host gets in a minute, twice over. */
  requestsPerMinutePerPeer: number
  /** Compressed layers of one image (bytes): the largest images of machine learning have half of that. */
  imageBytes: number
  /** The time of one import (ms): so many bytes at 10 MB/s, and a half more. */
  importMs: number
  /**
   * Room that is left for this host itself: work for peers neither begins nor goes on with less free space than this
   * share of the disk, or than so many bytes, whichever is less.
   */
  freeShare: number
  freeBytes: number
  /** How often the free space is looked at while an import runs (ms): at 500 MB/s a disk loses a tenth of the floor. */
  roomIntervalMs: number
}

export const peerImportLimits: PeerImportLimits = {
  importsAtOnce: 4,
  importsAtOncePerPeer: 2,
  waiting: 1024,
  waitingPerPeer: 32,
  requestsPerMinutePerPeer: 120,
  imageBytes: 32 * gibibyte,
  importMs: 90 * 60_000,
  freeShare: 0.1,
  freeBytes: 10 * gibibyte,
  roomIntervalMs: 2_000,
}

/** Peers whose requests are counted; the one that asked the longest time ago is forgotten first. */
export const maxCountedPeers = 4096
/** Registries that the log names as refused while the daemon runs: any peer can name any number of them. */
export const maxNamedRefusals = 64
/** The longest platform that is imported for a peer (characters): `linux/arm64/v8.1` and longer ones to come. */
export const maxPlatformLength = 64
