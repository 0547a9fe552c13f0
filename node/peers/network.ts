import type { Connection, Libp2p, PrivateKey, Stream } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { isMemberRecordSigned } from '../../protocol/member-record.ts'
import { bulkProtocol, type BulkMode } from '../../protocol/messages/bulk.ts'
import { maxChunkBytes } from '../../protocol/chunk-table.ts'
import type { Digest } from '../../protocol/digest.ts'
import { chunkProtocol } from '../../protocol/messages/chunk.ts'
import { guestProtocol } from '../../protocol/messages/guest.ts'
import { locationProtocol } from '../../protocol/messages/location.ts'
import { importProtocol } from '../../protocol/messages/import.ts'
import { objectProtocol } from '../../protocol/messages/object.ts'
import { regionProtocol } from '../../protocol/messages/region.ts'
import { reachProtocol } from '../../protocol/messages/reach.ts'
import { seedProtocol } from '../../protocol/messages/seed.ts'
import { systemClock } from '../base/clock.ts'
import { maxLevel, spanProtocol } from '../../protocol/messages/span.ts'
import { Bandwidth } from '../base/bandwidth.ts'
import type { Log } from '../base/log.ts'
import { guestNoiseProtocol } from './admission/region-noise.ts'
import { loadMemberList } from './admission/member-list.ts'
import { RegionGate, type StrangerCounts } from './admission/region-gate.ts'
import { guestSecret, loadRegionSecrets, openGuestSecret, openRegionSecret } from './admission/region-keys.ts'
import { sourceOfMultiaddr } from './admission/source.ts'
import { Availability } from './availability.ts'
import { BanList } from './ban-list.ts'
import { parseBulkListen } from './bulk/bulk-listen.ts'
import { BulkPlane } from './bulk/bulk-plane.ts'
import type { ChunkFiles } from './bulk/chunk-files.ts'
import { ByteBudget } from './byte-budget.ts'
import { ChunkClient } from './chunk/client.ts'
import { ChunkServer } from './chunk/server.ts'
import { Dialler } from './dialler.ts'
import { GuestServer } from './guest/server.ts'
import { loadIdentity } from './identity.ts'
import { ImportClient } from './import/client.ts'
import { limits } from './limits.ts'
import { listenError } from './listen-error.ts'
import { Location } from './location/location.ts'
import type { Trackers } from './location/tracker-map.ts'
import { Swarms } from './location/swarms.ts'
import { serveImport } from './import/server.ts'
import { Membership } from './membership.ts'
import { LocatedMembers } from './object/located-members.ts'
import { RegionObjects } from './object/region-objects.ts'
import { ObjectServer } from './object/server.ts'
import type { Peer } from './peer.ts'
import { createPeerHost } from './peer-host.ts'
import { serveRegion } from './region/server.ts'
import { ReachClient } from './reach/client.ts'
import { serveReach } from './reach/server.ts'
import { SeedClient } from './seed/client.ts'
import { serveSeed } from './seed/server.ts'
import type { KnownMembers } from './roster/roster.ts'
import type { ServedData } from './served-data.ts'
import { SourcePace } from './source-pace.ts'
import { SpanAnswers } from './spans/span-answers.ts'
import { SpanBook } from './spans/span-book.ts'
import { SpanClient } from './spans/client.ts'
import { SpanServer } from './spans/server.ts'
import { SpanStewards } from './spans/span-stewards.ts'
import { StewardQuestions } from './spans/steward-questions.ts'
import type { Traffic } from './traffic.ts'

export interface PeerNetworkParts {
  log: Log
  /** A limit on what is given to peers. */
  upload: Bandwidth
  /** A limit on what is taken from peers. */
  download?: Pick<Bandwidth, 'charge'>
  /** A limit on what guests are given; none where it is undefined. */
  guestBandwidth?: Bandwidth
}

export interface PeerNetworkOptions {
  region: string
  name: string
  listen: readonly string[]
  bootstrap: readonly string[]
  /** Holds the key of this host's identity. */
  identityFile: string
  /** Holds the region's keys. Without it, everybody who reaches a listening address is let in. */
  regionKeyFile: string | undefined
  /** Lists the peer ids of the region's members. Without it, everybody who knows a key of the region is a member. */
  memberFile: string | undefined
  /** Holds the key of guests. Without it, a region that has a key takes none. */
  guestKeyFile?: string | undefined
  /** How chunks are carried in bulk; undefined: over libp2p only. */
  bulk: { mode: BulkMode; listen: string | undefined } | undefined
  /** Members of a region that is connected each to each, at most; for tests. */
  fullMesh?: number
  /** Knowledge of the region that this host begins with; for simulations. */
  known?: { members: KnownMembers; trackers: Trackers } | undefined
}

/** This host's place among its peers: what it asks them, and, once it has started, what it serves them. */
export class PeerNetwork {
  readonly peerId: string
  readonly membership: Membership
  readonly location: Location
  readonly availability: Availability
  readonly chunks: ChunkClient
  readonly objects: RegionObjects
  readonly imports: ImportClient
  readonly seeds: SeedClient
  readonly reach: ReachClient
  readonly spans: SpanStewards
  readonly bulk: BulkPlane
  readonly #guestBandwidth: Bandwidth
  readonly #bans: BanList
  #guests: GuestServer | undefined
  readonly #key: PrivateKey
  readonly #gate: RegionGate
  readonly #swarms: Swarms
  readonly #host: Libp2p
  readonly #dialler: Dialler
  readonly #answers: SpanAnswers
  readonly #log: Log
  readonly #upload: Bandwidth
  readonly #listen: readonly string[]
  readonly #isPrivate: boolean
  readonly #regionPace = new SourcePace(limits.region.bytes)
  readonly #stopping = new AbortController()

  /**
   * Loads the identity and makes the libp2p host. It connects to nobody before {@link start}.
   * @throws invalid for addresses that are not usable, and for files that are not what they should be
   */
  static async open(
    { log, upload, download, guestBandwidth }: PeerNetworkParts,
    options: PeerNetworkOptions,
  ): Promise<PeerNetwork> {
    const { region, listen, identityFile, regionKeyFile, guestKeyFile, memberFile } = options
    const key = await loadIdentity(identityFile)
    const secrets =
      regionKeyFile === undefined ? [openRegionSecret(region)] : await loadRegionSecrets(regionKeyFile, region)
    const guestSecrets =
      guestKeyFile !== undefined
        ? await loadRegionSecrets(guestKeyFile, region, { derive: guestSecret })
        : regionKeyFile === undefined
          ? [openGuestSecret(region)]
          : []
    const listed = memberFile === undefined ? undefined : await loadMemberList(memberFile)
    const bans = new BanList()
    if (listed?.has(peerIdFromPrivateKey(key).toString()) === false)
      log.warn('list of members does not name this host; hosts with the same list turn it away', { file: memberFile })
    const gate = new RegionGate({ log }, secrets, guestSecrets)
    const isBarred = (peerId: string): boolean => bans.has(peerId) || listed?.has(peerId) === false
    const host = await createPeerHost({ privateKey: key, gate }, { listen, isBarred })
    return new PeerNetwork(
      { key, bans, gate, host, log, upload, ...(download && { download }), ...(guestBandwidth && { guestBandwidth }) },
      options,
    )
  }

  /**
   * The same over a libp2p host of the caller's, such as one of a modelled network; there is no region key then.
   * @param createHost makes the host; it neither dials nor lets in whom `isBarred` names
   */
  static over(
    {
      key,
      log,
      upload,
      createHost,
    }: PeerNetworkParts & {
      key: PrivateKey
      createHost: (options: { isBarred: (peerId: string) => boolean }) => Libp2p
    },
    options: Omit<PeerNetworkOptions, 'identityFile' | 'regionKeyFile' | 'memberFile'>,
  ): PeerNetwork {
    const bans = new BanList()
    const gate = new RegionGate({ log }, [openRegionSecret(options.region)])
    const host = createHost({ isBarred: (peerId) => bans.has(peerId) })
    const files = { identityFile: '', regionKeyFile: undefined, memberFile: undefined }
    return new PeerNetwork({ key, bans, gate, host, log, upload }, { ...options, ...files })
  }

  private constructor(
    {
      key,
      bans,
      gate,
      host,
      log,
      upload,
      download,
      guestBandwidth = new Bandwidth(),
    }: PeerNetworkParts & { key: PrivateKey; bans: BanList; gate: RegionGate; host: Libp2p },
    { region, name, listen, bootstrap, regionKeyFile, bulk, fullMesh, known }: PeerNetworkOptions,
  ) {
    const { signal } = this.#stopping
    this.#guestBandwidth = guestBandwidth
    this.#bans = bans
    this.#key = key
    this.#gate = gate
    this.#host = host
    this.#log = log
    this.#upload = upload
    this.#listen = listen
    this.#isPrivate = regionKeyFile !== undefined
    this.#dialler = new Dialler({ host, log }, { bootstrap, listen })
    this.peerId = host.peerId.toString()
    this.membership = new Membership(
      {
        host,
        bans,
        dialler: this.#dialler,
        signing: { sign: async (bytes) => await key.sign(bytes), isSigned: isMemberRecordSigned },
        log,
        signal,
      },
      {
        region,
        name,
        hasBootstrap: bootstrap.length > 0,
        ...(fullMesh !== undefined && { fullMesh }),
        known: known?.members,
      },
    )
    const { membership } = this
    this.location = new Location({ host, membership, signal }, { fullMesh, known: known?.trackers })
    const { location } = this
    this.#swarms = new Swarms({ location, membership, clock: systemClock, signal })
    this.availability = new Availability({ membership, location, swarms: this.#swarms })
    this.chunks = new ChunkClient({ host, membership, signal })
    this.objects = new RegionObjects({
      host,
      membership,
      located: new LocatedMembers({ membership, location, clock: systemClock }),
      log,
      onBytes: (bytes) => download?.charge(bytes),
    })
    this.imports = new ImportClient({ host, membership })
    this.seeds = new SeedClient({ host, membership })
    this.reach = new ReachClient({ host, membership })
    const own = this.peerId
    const isHere = (id: string): boolean => id === own || membership.isAwake(id)
    const now = (): number => performance.now()
    const holdersOf = (table: Digest, index: number, asker: string): string[] => [
      ...(this.availability.isHeldHere(table, index) ? [own] : []),
      ...this.availability.holders(table, index),
      ...location.holders(table, { asker, order: index }),
    ]
    const client = new SpanClient({ host, membership, signal })
    const questions = new StewardQuestions({ own, membership, client, log, signal, clock: systemClock })
    this.#answers = new SpanAnswers({
      books: Array.from({ length: maxLevel + 1 }, (_, level) =>
        level === 0 ? new SpanBook({ isHere, holdersOf, now }) : new SpanBook({ isHere, now }),
      ),
      answering: (level, table, group) => {
        if (level > 0) return membership.byResponsibility(`${table} ${group}`, membership.part(level))
        // Its trackers know who holds it; groups of a large layer are spread among them.
        const trackers = location.trackersOf(table).filter(isHere)
        const first = group % trackers.length
        return [...trackers.slice(first), ...trackers.slice(0, first)]
      },
      questions,
    })
    this.spans = new SpanStewards({ own, membership, questions, answers: this.#answers })
    this.bulk = new BulkPlane(
      { host, membership, log, upload, signal },
      bulk === undefined ? undefined : { mode: bulk.mode, listen: parseBulkListen(bulk.listen, listen) },
    )
  }

  /**
   * Begins to listen, to serve, and to connect to the region.
   * @param files the chunk store, for bulk transfers
   * @throws invalid for addresses that cannot be listened on; unavailable where they are in use
   */
  async start(served: ServedData, files: ChunkFiles): Promise<void> {
    const { membership } = this
    const { signal } = this.#stopping
    this.#host.addEventListener('connection:open', ({ detail }) => void this.#meet(detail))
    this.#host.addEventListener('peer:disconnect', ({ detail }) => {
      membership.leave(detail)
      this.bulk.leave(detail.toString())
    })
    const unsent = new ByteBudget({ ...limits.unsent, freeBytes: maxChunkBytes })
    const objects = new ObjectServer({ served, unsent, upload: this.#upload, log: this.#log })
    const chunks = new ChunkServer({ served, unsent, upload: this.#upload })
    const { bans, log } = { bans: this.#bans, log: this.#log }
    const bandwidth = this.#guestBandwidth
    this.#guests = new GuestServer({
      served,
      membership,
      location: this.location,
      bans,
      unsent,
      bandwidth,
      log,
      signal,
    })
    const { streams } = limits
    const refuse = async (): Promise<never> =>
      await Promise.reject(new P2pfsError('denied', 'members ask members in other ways'))
    await this.#handle(guestProtocol, streams.object, refuse)
    await this.#handle(regionProtocol, streams.region, async (stream, peer) => await this.#serveRegion(stream, peer))
    await this.#handleMembers(objectProtocol, streams.object, async (stream, peer) => await objects.serve(stream, peer))
    await this.#handleMembers(chunkProtocol, streams.chunk, async (stream, peer) => await chunks.serve(stream, peer))
    const spans = new SpanServer({ answers: this.#answers })
    await this.#handleMembers(spanProtocol, streams.span, async (stream, peer) => await spans.serve(stream, peer))
    await this.#handleMembers(
      importProtocol,
      streams.import,
      async (stream, peer) => await serveImport(stream, peer, served, { signal }),
    )
    await this.#handleMembers(
      seedProtocol,
      streams.seed,
      async (stream, peer) => await serveSeed(stream, peer, served.seeds, { signal }),
    )
    const reachPace = new SourcePace(limits.reachRequests)
    await this.#handleMembers(
      reachProtocol,
      streams.reach,
      async (stream, { source }, address) => await serveReach(stream, { source, address }, reachPace, { signal }),
    )
    await this.#handleMembers(
      locationProtocol,
      streams.location,
      async (stream, peer) => await this.location.serve(stream, peer),
    )
    await this.#handleMembers(bulkProtocol, streams.bulk, async (stream, peer) => await this.bulk.serve(stream, peer))
    await this.bulk.start(files)
    try {
      await this.#host.start()
    } catch (cause) {
      throw listenError(this.#listen, cause)
    }
    this.#dialler.start()
    membership.start()
    this.location.start()
  }

  /** Ends all connections. */
  async stop(): Promise<void> {
    if (this.#stopping.signal.aborted) return
    // A neighbour that does not hear it finds out within seconds.
    await this.membership.sayGoodbye().catch(() => undefined)
    if (this.#stopping.signal.aborted) return
    this.#stopping.abort(new P2pfsError('closed', 'peer network stopped'))
    this.availability.stop()
    this.#swarms.stop()
    this.location.stop()
    this.#dialler.stop()
    await this.bulk.stop()
    await this.#host.stop()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  /** Signs with this host's key, whose public half is the peer id. */
  async sign(bytes: Uint8Array): Promise<Uint8Array> {
    return await this.#key.sign(bytes)
  }

  /** Addresses on which this host can be dialled, with its peer id. There are none before {@link start}. */
  multiaddrs(): string[] {
    return this.#host.getMultiaddrs().map(String)
  }

  /** The hosts that are let in as peers. */
  get access(): 'region-key' | 'everybody' {
    return this.#isPrivate ? 'region-key' : 'everybody'
  }

  /** Strangers that were turned away. */
  get strangers(): StrangerCounts {
    return this.#gate.strangers
  }

  /** Hosts of other regions that are served: connections, and what they were given. */
  guests(): { connected: number } & Traffic {
    const none = { bytesSent: 0, chunksSent: 0, bytesReceived: 0, chunksReceived: 0 }
    return { connected: this.#guests?.count ?? 0, ...(this.#guests?.given() ?? none) }
  }

  /** Chunks that were exchanged with all peers. */
  totals(): Traffic {
    return this.membership.traffic.snapshot()
  }

  /** Introduces this host to a peer that has connected. A connection that is one too many of its peer is closed. */
  async #meet(connection: Connection): Promise<void> {
    const { remotePeer } = connection
    if (this.#host.getConnections(remotePeer).length > limits.connections.perPeer) {
      this.#log.debug('peer has too many connections; the last one is closed', { peer: remotePeer.toString() })
      return connection.abort(new P2pfsError('busy', 'too many connections'))
    }
    if (connection.encryption === guestNoiseProtocol) return this.#guests?.meet(connection)
    const peer = this.membership.peerOf(remotePeer)
    peer.source = sourceOfMultiaddr(connection.remoteAddr)
    if (peer.isMet) return
    peer.isMet = true
    try {
      await this.membership.introduce(peer, () => this.availability.next(peer))
    } catch (error) {
      this.#log.debug('peer does not speak the region protocol; connection closed', { error, peer: peer.id })
      this.membership.drop(peer)
    }
  }

  /** Serves the region stream of a peer. When it ends, so does the connection: the peer hears nothing more of this host. */
  async #serveRegion(stream: Stream, peer: Peer): Promise<void> {
    const { membership, availability } = this
    const { signal } = this.#stopping
    // The peer has begun anew, and this host has not noticed: both do.
    if (peer.hasRegionStream) return membership.drop(peer)
    peer.hasRegionStream = true
    try {
      await serveRegion(stream, peer, { membership, availability, pace: this.#regionPace }, { signal })
    } catch (error) {
      if (!isP2pfsError(error, 'invalid')) membership.drop(peer)
      throw error
    }
    membership.drop(peer)
  }

  /** Nothing is served to a peer before its hello. */
  async #handleMembers(
    protocol: string,
    maxInboundStreams: number,
    serve: (stream: Stream, peer: Peer, address: string) => Promise<void>,
  ): Promise<void> {
    await this.#handle(protocol, maxInboundStreams, async (stream, peer, address) => {
      await peer.whenMember()
      await serve(stream, peer, address)
    })
  }

  /** @param serve also gets the IP address that the connection comes from */
  async #handle(
    protocol: string,
    maxInboundStreams: number,
    serve: (stream: Stream, peer: Peer, address: string) => Promise<void>,
  ): Promise<void> {
    const handle = async (stream: Stream, connection: Connection): Promise<void> => {
      const { remotePeer, remoteAddr } = connection
      // The guest server decides for all protocols what guests may have.
      if (connection.encryption === guestNoiseProtocol) return await this.#guests?.serve(protocol, stream, connection)
      const peer = this.membership.peerOf(remotePeer)
      peer.source = sourceOfMultiaddr(remoteAddr)
      try {
        await serve(stream, peer, remoteAddr.getComponents()[0]?.value ?? '')
      } catch (error) {
        stream.abort(error as Error)
        if (isP2pfsError(error, 'invalid')) this.membership.ban(peer, error)
        else this.#log.debug('stream of a peer failed', { error, peer: peer.id })
      }
    }
    await this.#host.handle(protocol, handle, { maxInboundStreams })
  }
}
