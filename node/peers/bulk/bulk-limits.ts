import { maxBulkMessageBytes, maxBulkWants } from '../../../protocol/messages/bulk.ts'

/**
 * Everything that bulk connections can make this host keep, do or wait for. Where a number belongs to what both sides
 * keep to, it stands in `protocol/messages/bulk.ts` and is named here, so that the table is whole.
 */
export const bulkLimits = {
  /** Longest request for a grant, and longest answer (bytes). */
  messageBytes: maxBulkMessageBytes,
  /** Wants of one connection without an answer. */
  wants: maxBulkWants,

  grants: {
    /** Grants of one peer that are not used yet: a host opens one connection at a time. The oldest goes for a newer one. */
    perPeer: 2,
    /** Grants of all peers. Beyond it peers are refused for a moment: each grant lasts a few seconds. */
    inAll: 1024,
  },

  /** Connections that this host serves: each has up to {@link bulkLimits.buffers} and the copies that TLS makes. */
  connections: {
    /** Connections of one peer: a newer one takes the place of the older one, which may be dead. */
    perPeer: 1,
    /** Connections of one source address: identities take no more places than daemons behind one address need. */
    perSource: 16,
    /** Connections of all peers. Beyond it grants are refused, and chunks go over libp2p. */
    inAll: 128,
  },

  /**
   * Wants of each peer, on average, that may wait while peers are served each by itself. Where more wait, and more than one peer wants
   * something, each chunk is sent once, and the others are told who holds it: see `docs/decisions/upload-slots.md`.
   */
  slots: 2,

  /** Connections that this host has opened: one to each peer that delivers in bulk. */
  opened: 64,

  /** Chunks in memory for one connection that the peer has not taken: one is sent while the next one is read. */
  buffers: 2,

  /** How long this host waits for the grant and the connection together (ms). */
  openMs: 5_000,
  /**
   * How long chunks that nobody waits for are held back while a connection is opened (ms): a few round trips. It is
   * lost once in {@link bulkLimits.retryMs} where the port is not reached.
   */
  openWaitMs: 500,
  /** A holder that owes a chunk and does not bring one whole for so long is given up (ms). */
  stallMs: 8_000,
  /** An asker that takes nothing of what is sent to it for so long is cut off (ms). */
  unreadMs: 30_000,
  /** A connection on which nothing is wanted for so long is closed (ms). */
  idleMs: 30_000,
  /** A peer whose bulk port cannot be reached, or that refused, is not asked for a grant again for so long (ms). */
  retryMs: 60_000,

  /** Chunk files whose last check is remembered (32 GB of them): those are not hashed again before they are sent. */
  checkedFiles: 131_072,
} as const

/** Bytes under way to one peer from which on a bulk connection is worth its handshakes: a few chunks. */
export const worthBytes = 1024 * 1024

/** How much less the bulk threads get of a core that others want, too: reads that somebody waits for come first. */
export const bulkNiceness = 5
