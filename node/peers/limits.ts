import { maxObjectBytes, maxObjectRequestBytes } from '../../protocol/messages/object.ts'
import { maxChunkBytes } from '../../protocol/chunk-table.ts'
import { maxLocationRequestBytes } from '../../protocol/messages/location.ts'
import { maxOutstandingWants, maxWantMessageBytes } from '../../protocol/messages/chunk.ts'
import {
  maxAddresses,
  maxOpenQueries,
  maxRegionMessageBytes,
  maxTablesPerQuery,
  maxTextLength,
  regionMessageRate,
} from '../../protocol/messages/region.ts'

const kibibyte = 1024
const mebibyte = 1024 * kibibyte

/**
 * Everything that one peer, or all peers together, can make this host keep, do or wait for. Where a peer reaches a
 * bound, it waits, or its stream is reset; it is banned only for what no honest host does. Numbers that both sides keep
 * to stand in `protocol/messages/` and are named here, so that the table is whole; those of bulk connections in
 * `bulk/bulk-limits.ts`. The windows of streams stand in `peer-host.ts`: what a peer sends and this host has not read
 * is at most one window a stream, 4 MiB.
 */
export const limits = {
  /** Connections whose other side has not proved the region key yet. Beyond a bound the oldest is dropped. */
  handshakes: {
    /** Handshakes of one source address. An honest host has one or two; many hosts may share one address. */
    perSource: 32,
    /** In all, each a socket and a few KiB. */
    inAll: 512,
    /** How long one may take (ms): two round trips, and a busy machine. */
    timeoutMs: 3_000,
  },

  connections: {
    /**
     * Connections of one source address: several daemons behind it, with two to each at most. One member cannot take all
     * places with identities that he makes up.
     */
    perSource: 64,
    /** Connections of one peer: two hosts that dial each other at once have two. One more is closed. */
    perPeer: 2,
    /** Connections of all peers: a region has fewer members. libp2p closes those beyond. */
    inAll: 1024,
  },

  /** Streams of one connection that the peer has opened and that are open at once. libp2p resets those beyond. */
  streams: {
    /** Streams of all protocols together. */
    perConnection: 128,
    /** One, and one that takes its place. */
    region: 2,
    /** A client has two, and for a moment those that took their place. */
    chunk: 8,
    /** One, and one that takes its place. */
    span: 2,
    /** One at a time: it asks for a connection. */
    bulk: 2,
    /** One for each object that is asked for. */
    object: 64,
    /** One for each image that is waited for. */
    import: 32,
    /** A host asks one at a time of each tracker, and registers meanwhile. */
    location: 32,
    /** One for each image that a coordinator places here, and some for its records. */
    seed: 32,
    /** One question of p2pfs doctor, and one that takes its place. */
    reach: 2,
    /** Streams of all protocols while the peer's hello is waited for: enough for the requests of its first milliseconds. */
    beforeHello: 16,
  },

  /** Questions of one source whether it is reached: each may cost four sockets for three seconds. */
  reachRequests: { perSecond: 0.5, burst: 4 },

  hello: {
    /** How long a request waits for the hello of a peer (ms): it is sent first, on a stream of its own. */
    requestWaitMs: 2_000,
    /** A peer that has not said hello for so long is cut off (ms). */
    deadlineMs: 10_000,
  },

  /** The messages of a peer's region stream. */
  region: {
    /** Longest message (bytes). */
    messageBytes: maxRegionMessageBytes,
    /** Messages: what a sender keeps to. A peer that sends more than twice as many is banned. */
    messages: regionMessageRate,
    /** Bytes of the peers of one source: beyond it this host reads no faster: parsing takes a small part of a core. */
    bytes: { perSecond: 8 * mebibyte, burst: 64 * mebibyte },
    tablesPerQuery: maxTablesPerQuery,
    openQueries: maxOpenQueries,
    textLength: maxTextLength,
  },

  /**
   * The registrations that this host keeps as a tracker: which members hold which keys. One takes about 240 bytes, so all
   * take 32 MB at most. A member that lies has no more than its own share; each lie costs others a question.
   */
  location: {
    /** Members of one key: enough for each asker to find others, of an image that a whole region runs. */
    membersPerKey: 256,
    /** Keys of one member: a host with 1,000 images has 30,000 keys, spread over many trackers. */
    keysPerMember: 16_384,
    /** Registrations of all members together. */
    registrations: 131_072,
    /** A registration ends after this (ms), unless the member repeats it: it does so every half hour. */
    registrationMs: 75 * 60_000,
    requestBytes: maxLocationRequestBytes,
    /** Requests of the peers of one source. Beyond it they wait. */
    perSecond: 64,
    burst: 1024,
  },

  /** Region messages that wait for peers that do not take them (bytes). Beyond it news is told later, as it is then. */
  sendQueue: {
    perPeer: 4 * mebibyte,
    inAll: 64 * mebibyte,
    /**
     * Messages that can be sent to a peer for which nothing waits, although the bound on all is reached: a hello, and
     * some changes.
     */
    freeBytes: 64 * kibibyte,
  },

  /**
   * The chunks that peers say they hold. Bitmaps are kept of segments that this host tracks, and of no others: a bit
   * for each chunk, and up to 300 bytes, for each segment and peer. The number of segments is this host's own: 100,000
   * of 16 chunks are 30 MB for each peer that holds something of all of them.
   */
  bitmaps: { overheadBytes: 300 },

  /** How long the first fetch of a segment waits for members that were asked who holds it (ms): a round trip. */
  questionWaitMs: 100,
  /** A member that did not answer such a question in time is not waited for, for so long (ms). */
  questionPenaltyMs: 30_000,

  members: {
    /** Members that this host remembers and dials. Beyond it, those that never answered are forgotten first. */
    inAll: 4096,
    /** Addresses of one member in a message. */
    addresses: maxAddresses,
    /** Addresses of one member that are dialled: those of the interfaces of one host. */
    dialledAddresses: 8,
    /** Members that one teller has named and that have not answered yet: as many as it can be connected to. */
    hintsPerTeller: 1024,
    /** Tellers that are believed about one member at a time: a lie must not keep the truth away. */
    tellersPerMember: 4,
    /** A member that answered once is forgotten when it has not been reached for so long (ms). */
    forgetMs: 10 * 60_000,
    /** One that never answered is forgotten after this (ms). */
    forgetUnprovenMs: 2 * 60_000,
  },

  /** The list of the region's members. */
  roster: {
    /**
     * Members of all tellers: some 700 bytes each. Beyond it, the teller of most loses its newest member that has not
     * proved itself.
     */
    inAll: 16_384,
    /** Members that one teller has told of first, and that have not been connected: more than a region has. */
    perTeller: 12_288,
    /** Members that are dead, of which older records count for nothing. */
    dead: 16_384,
    /** A suspect that does not refute it is dead after so long (ms): news pass a region of 10,000 in one second. */
    suspectMs: 5_000,
    /** Records of one member: this often (ms), and so many at once. */
    updates: { everyMs: 1_000, burst: 8 },
    /** New records that one teller has this host check: a tenth of a millisecond each. */
    records: { perSecond: 1_000, burst: 16_384 },
    /** Comparisons that one teller asks for, and wants of records: beyond it they are not answered. */
    questions: { perSecond: 2, burst: 16 },
    /** Suspicions of one teller: beyond it they are ignored. */
    suspects: { perSecond: 64, burst: 1024 },
    /** A region of so many members, this host included, is connected each to each; a larger one is in cohorts. */
    fullMesh: 64,
    /**
     * Connections to members that are neither neighbours, nor of the cohort, nor kept. Those that nothing passed over
     * for `idleMs` go beyond the first bound, any beyond both together: the one that was used the longest time ago
     * first.
     */
    onDemand: { idle: 64, idleMs: 10_000, inUse: 192 },
  },

  /** Dials of addresses that peers told and that did not lead to who was named there. The operator's are not counted. */
  dials: {
    /**
     * Dials of one IP address and port, by whomever it was named. An honest host is dialled seven times in the first
     * minute.
     */
    perEndpoint: { perMinute: 8, burst: 8 },
    /** Dials of one IP address, with all its ports. */
    perAddress: { perMinute: 32, burst: 32 },
    /** Failed dials of the addresses that one peer has named, its own included. */
    perTeller: { perMinute: 16, burst: 16 },
    /** Failed dials of the addresses that all peers have named. As many are under way at once. */
    inAll: { perMinute: 64, burst: 64 },
    /** Endpoints and addresses whose dials are counted. */
    remembered: 8192,
  },

  /** Wants of chunks. Beyond it this host reads no faster. */
  wants: {
    messageBytes: maxWantMessageBytes,
    /** Wants of one stream that are read and not answered yet: as many as a client has on the way. */
    outstanding: maxOutstandingWants,
    /**
     * Wants of all streams that wait to be served: a quarter of a second at 1 Gbit/s, for chunks of 100 KiB. Beyond it
     * the peer is told who else has the chunk.
     */
    slots: 256,
    /**
     * Wants of the peers of one source: 2 Gbit/s of chunks of 64 KiB. To say that a chunk is not here takes a fifth of
     * a core at that pace.
     */
    perSecond: 4_000,
    burst: 8_192,
  },

  /**
   * Chunks that this host reads from the registry for peers, at once: of segments that it tracks itself. Beyond it the
   * peer is told that this host is busy.
   */
  relays: {
    /** Reads for the peers of one source: enough for the boots of a few hosts behind one address. */
    perSource: 1024,
    inAll: 8192,
  },

  /** Questions to this host as a steward of spans. Beyond the pace it reads no faster. */
  spans: {
    /** Questions of one stream without an answer, on the asker's side. */
    outstanding: 1024,
    /** Spans of the peers of one source: 8 GB of chunks at once, and 500 MB in each second. */
    perSecond: 256,
    burst: 4096,
  },

  /** Requests for objects. Beyond it they wait for their turn. */
  objects: {
    requestBytes: maxObjectRequestBytes,
    answerBytes: maxObjectBytes,
    /** Requests of the peers of one source: an image of 127 layers takes 255 at once. */
    perSecond: 64,
    burst: 1024,
    /** Looked up at once, for one peer and in all: a layer index may take 512 MiB while it is compressed. */
    lookupsPerPeer: 2,
    lookupsInAll: 4,
  },

  /** Answers that have been read from the disk and that the peer has not taken yet (bytes). Further ones wait. */
  unsent: {
    /** One object of the longest kind and a few chunks, or 64 chunks. */
    perPeer: maxObjectBytes + 16 * maxChunkBytes,
    /** In all. Beyond it a peer for which nothing waits still gets one answer of up to {@link maxChunkBytes}. */
    inAll: 256 * mebibyte,
  },

  /** A stream whose peer does not take one message or answer for so long is reset (ms): the asker has given up by then. */
  unread: {
    /** The peer is cut off with it. */
    regionMs: 30_000,
    chunkMs: 60_000,
    objectMs: 60_000,
    /** The asker waits for a second. */
    locationMs: 10_000,
  },

  /** Guests: hosts of other regions. */
  guests: {
    /** Connections: a host of another region has one to each of eight members. */
    inAll: 64,
    /** Questions of one source. */
    questions: { perSecond: 16, burst: 64 },
    /** Chunks that have been read for them and that they have not taken yet (bytes). */
    unsent: { perPeer: 4 * mebibyte, inAll: 16 * mebibyte },
    /** A guest's chunk lets the members' go first, so many times so long (ms) at most. */
    yieldMs: 10,
    yields: 10,
  },

  bans: {
    /** How long a peer that broke the protocol is kept away (ms). */
    ms: 10 * 60_000,
    /** Identities. Beyond it the oldest ban ends early: each one that pushes it out has broken the protocol itself. */
    inAll: 4096,
  },

  /** How long a peer of another region is not dialled (ms). */
  otherRegionMs: 10 * 60_000,
} as const
