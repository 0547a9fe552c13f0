import type { Connection, Libp2p, PeerId, PrivateKey, Stream } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { bulkProtocol, type BulkMode } from '../../protocol/messages/bulk.ts'
import { chunkProtocol } from '../../protocol/messages/chunk.ts'
import { importProtocol } from '../../protocol/messages/import.ts'
import { objectProtocol } from '../../protocol/messages/object.ts'
import { regionProtocol } from '../../protocol/messages/region.ts'
import type { Log } from '../base/log.ts'
import { loadMemberList } from './admission/member-list.ts'
import { RegionGate, type StrangerCounts } from './admission/region-gate.ts'
import { loadRegionSecrets, openRegionSecret } from './admission/region-keys.ts'
import { Availability } from './availability.ts'
import { BanList } from './ban-list.ts'
import { parseBulkListen } from './bulk/bulk-listen.ts'
import { BulkPlane } from './bulk/bulk-plane.ts'
import type { ChunkFiles } from './bulk/chunk-files.ts'
import { ChunkClient } from './chunk/client.ts'
import { serveChunks } from './chunk/server.ts'
import { Dialler } from './dialler.ts'
import { loadIdentity } from './identity.ts'
import { ImportClient } from './import/client.ts'
import { serveImport } from './import/server.ts'
import { Membership } from './membership.ts'
import { RegionObjects } from './object/region-objects.ts'
import { serveObject } from './object/server.ts'
import type { Peer } from './peer.ts'
import { createPeerHost } from './peer-host.ts'
import { serveRegion } from './region/server.ts'
import type { ServedData } from './served-data.ts'
import type { Traffic } from './traffic.ts'

/** Streams of one protocol that one peer may have open to this host: half of all its streams. */
const maxInboundStreams = 64

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
  /** How chunks are carried in bulk; undefined: over libp2p only. */
  bulk: { mode: BulkMode; listen: string | undefined } | undefined
}

/** This host's place among its peers: what it asks them, and, once it has started, what it serves them. */
export class PeerNetwork {
  readonly peerId: string
  readonly membership: Membership
  readonly availability: Availability
  readonly chunks: ChunkClient
  readonly objects: RegionObjects
  readonly imports: ImportClient
  readonly bulk: BulkPlane
  readonly #key: PrivateKey
  readonly #gate: RegionGate
  readonly #host: Libp2p
  readonly #dialler: Dialler
  readonly #log: Log
  readonly #listen: readonly string[]
  readonly #isPrivate: boolean
  readonly #stopping = new AbortController()

  /**
   * Loads the identity and makes the libp2p host. It connects to nobody before {@link start}.
   * @throws invalid for addresses that are not usable, and for files that are not what they should be
   */
  static async open({ log }: { log: Log }, options: PeerNetworkOptions): Promise<PeerNetwork> {
    const { region, listen, identityFile, regionKeyFile, memberFile } = options
    const key = await loadIdentity(identityFile)
    const secrets =
      regionKeyFile === undefined ? [openRegionSecret(region)] : await loadRegionSecrets(regionKeyFile, region)
    const listed = memberFile === undefined ? undefined : await loadMemberList(memberFile)
    const bans = new BanList()
    if (listed?.has(peerIdFromPrivateKey(key).toString()) === false)
      log.warn('list of members does not name this host; hosts with the same list turn it away', { file: memberFile })
    const gate = new RegionGate({ log }, secrets)
    const isBarred = (peerId: string): boolean => bans.has(peerId) || listed?.has(peerId) === false
    const host = await createPeerHost({ privateKey: key, gate }, { listen, isBarred })
    return new PeerNetwork({ key, bans, gate, host, log }, options)
  }

  private constructor(
    { key, bans, gate, host, log }: { key: PrivateKey; bans: BanList; gate: RegionGate; host: Libp2p; log: Log },
    { region, name, listen, bootstrap, regionKeyFile, bulk }: PeerNetworkOptions,
  ) {
    const { signal } = this.#stopping
    this.#key = key
    this.#gate = gate
    this.#host = host
    this.#log = log
    this.#listen = listen
    this.#isPrivate = regionKeyFile !== undefined
    this.#dialler = new Dialler({ host, log }, bootstrap)
    this.peerId = host.peerId.toString()
    this.membership = new Membership(
      { host, bans, dialler: this.#dialler, log, signal },
      { region, name, hasBootstrap: bootstrap.length > 0 },
    )
    const { membership } = this
    this.availability = new Availability({ membership })
    this.chunks = new ChunkClient({ host, membership, signal })
    this.objects = new RegionObjects({ host, membership, log })
    this.imports = new ImportClient({ host, membership })
    this.bulk = new BulkPlane(
      { host, membership, log, signal },
      bulk === undefined ? undefined : { mode: bulk.mode, listen: parseBulkListen(bulk.listen, listen) },
    )
  }

  /**
   * Begins to listen, to serve, and to connect to the region.
   * @param files the chunk store, for bulk transfers
   * @throws invalid for addresses that cannot be listened on
   */
  async start(served: ServedData, files: ChunkFiles): Promise<void> {
    const { membership, availability } = this
    const { signal } = this.#stopping
    this.#host.addEventListener('peer:connect', ({ detail }) => void this.#introduce(detail, served))
    this.#host.addEventListener('peer:disconnect', ({ detail }) => {
      membership.leave(detail)
      this.bulk.leave(detail.toString())
    })
    const servers: Record<string, (stream: Stream, peer: Peer) => Promise<void>> = {
      [regionProtocol]: async (stream, peer) => await serveRegion(stream, peer, { membership, availability }),
      [objectProtocol]: async (stream) => await serveObject(stream, served),
      [importProtocol]: async (stream, peer) => await serveImport(stream, peer, served, { signal }),
      [chunkProtocol]: async (stream, peer) => await serveChunks(stream, peer, served),
      [bulkProtocol]: async (stream, peer) => await this.bulk.serve(stream, peer),
    }
    await this.bulk.start(files)
    for (const [protocol, serve] of Object.entries(servers)) {
      const handle = async (stream: Stream, connection: Connection): Promise<void> =>
        await this.#serve(stream, connection, serve)
      await this.#host.handle(protocol, handle, { maxInboundStreams })
    }
    try {
      await this.#host.start()
    } catch (cause) {
      throw new P2pfsError('invalid', `cannot listen on ${this.#listen.join(', ')}: ${(cause as Error).message}`, {
        cause,
      })
    }
    this.#dialler.start()
  }

  /** Ends all connections. */
  async stop(): Promise<void> {
    if (this.#stopping.signal.aborted) return
    this.#stopping.abort(new P2pfsError('closed', 'peer network stopped'))
    this.availability.stop()
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

  /** Who is let in as a peer. */
  get access(): 'region-key' | 'everybody' {
    return this.#isPrivate ? 'region-key' : 'everybody'
  }

  /** Strangers that were turned away. */
  get strangers(): StrangerCounts {
    return this.#gate.strangers
  }

  /** Chunks that were exchanged with all peers. */
  totals(): Traffic {
    return this.membership.traffic.snapshot()
  }

  async #introduce(id: PeerId, served: ServedData): Promise<void> {
    const peer = this.membership.peerOf(id)
    try {
      await this.membership.introduce(peer, () => {
        this.availability.flush()
        return served.heldSegments()
      })
    } catch (error) {
      this.#log.debug('peer does not speak the region protocol; connection closed', { error, peer: peer.id })
      this.membership.drop(peer)
    }
  }

  async #serve(
    stream: Stream,
    { remotePeer }: Connection,
    serve: (stream: Stream, peer: Peer) => Promise<void>,
  ): Promise<void> {
    const peer = this.membership.peerOf(remotePeer)
    try {
      await serve(stream, peer)
    } catch (error) {
      stream.abort(error as Error)
      if (isP2pfsError(error, 'invalid')) this.membership.ban(peer, error)
      else this.#log.debug('stream of a peer failed', { error, peer: peer.id })
    }
  }
}
