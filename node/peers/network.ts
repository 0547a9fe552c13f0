import { setTimeout as sleep } from 'node:timers/promises'
import type { Connection, Libp2p, PeerId, PrivateKey, Stream } from '@libp2p/interface'
import type { Bitmap } from '../../protocol/bitmap.ts'
import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { chunkProtocol } from '../../protocol/messages/chunk.ts'
import { importProtocol, type ImportRequest } from '../../protocol/messages/import.ts'
import { objectProtocol } from '../../protocol/messages/object.ts'
import {
  encodeRegionMessage,
  maxMembers,
  maxRegionMessageBytes,
  parseRegionMessage,
  regionProtocol,
  type Hello,
  type RegionMessage,
} from '../../protocol/messages/region.ts'
import type { Log } from '../base/log.ts'
import { Announcer } from './announcer.ts'
import { BanList } from './ban-list.ts'
import { ChunkClient } from './chunk/client.ts'
import { serveChunks } from './chunk/server.ts'
import { Dialler } from './dialler.ts'
import { readFrames, writeFrame } from './frames.ts'
import { loadIdentity } from './identity.ts'
import { askImport, serveImport, type ImportForPeer, type ImportOutcome, type ImportTold } from './import/exchange.ts'
import { serveObject, type LocalObjects } from './object/exchange.ts'
import { noTraffic, Peer, type Member, type StreamClass, type Traffic } from './peer.ts'
import { createPeerHost } from './peer-host.ts'
import { RegionObjects } from './object/region-objects.ts'
import { rendezvous } from './rendezvous.ts'

export interface LocalData extends LocalObjects {
  /** Verified bytes. */
  chunk: (digest: Digest, options: { signal: AbortSignal }) => Promise<Uint8Array | undefined>
  /** Every region that this host knows, with what it holds of it. */
  tables: () => Iterable<{ table: Digest; held: Bitmap }>
  import: ImportForPeer
}

export interface PeerNetworkOptions {
  region: string
  name: string
  listen: readonly string[]
  bootstrap: readonly string[]
  keyFile: string
}

export interface PeerStatus {
  peer: string
  name: string
  addresses: string[]
  connectedMs: number
  bytesSent: number
  chunksSent: number
  bytesReceived: number
  chunksReceived: number
}

/** Region messages that wait for a slow peer; one beyond is dropped, and told everything anew when it is back. */
const maxQueuedMessages = 4096
const newMembersIntervalMs = 500
/** A host that has met its region hears of no new member for so long, milliseconds: each tells of those it knows within half of it. */
const quietMs = 2 * newMembersIntervalMs
/** A host that meets nobody has no region to wait for, milliseconds. */
const meetTimeoutMs = 2_000
const meetPollMs = 50

/** The region as this host sees it: who is there, who holds what, and the exchange of chunks with them. */
export class PeerNetwork {
  readonly #local: LocalData
  readonly #log: Log
  readonly #options: PeerNetworkOptions
  readonly #bans = new BanList()
  readonly #peers = new Map<string, Peer>()
  readonly #announcer = new Announcer((message) => this.#broadcast(message))
  readonly #totals = noTraffic()
  readonly #stopping = new AbortController()
  /** What the members know. */
  readonly objects: RegionObjects
  #host: Libp2p | undefined
  #key: PrivateKey | undefined
  #dialler: Dialler | undefined
  #membersTimer: NodeJS.Timeout | undefined
  #hasMet = false
  #lastJoinedAt = 0

  constructor({ local, log }: { local: LocalData; log: Log }, options: PeerNetworkOptions) {
    this.#local = local
    this.#log = log
    this.#options = options
    this.objects = new RegionObjects({
      members: () => this.#members(),
      open: async ({ id }, signal) => await this.#started().dialProtocol(id, objectProtocol, { signal }),
      ban: (peer, error) => this.#ban(peer, error),
      log,
    })
  }

  /** @throws invalid for addresses that are not usable */
  async start(): Promise<void> {
    const { keyFile, listen, bootstrap } = this.#options
    this.#key = await loadIdentity(keyFile)
    const host = await createPeerHost(this.#key, listen, this.#bans)
    this.#dialler = new Dialler({ host, log: this.#log }, bootstrap)
    host.addEventListener('peer:connect', ({ detail }) => this.#connected(detail))
    host.addEventListener('peer:disconnect', ({ detail }) => this.#disconnected(detail))
    const serve = (protocol: string, handler: (stream: Stream, peer: Peer) => Promise<void>): Promise<void> =>
      host.handle(protocol, async (stream, connection) => await this.#serve(stream, connection, handler), {
        maxInboundStreams: 64,
      })
    await serve(regionProtocol, async (stream, peer) => await this.#listen(stream, peer))
    await serve(objectProtocol, async (stream) => await serveObject(stream, this.#local))
    await serve(importProtocol, async (stream, peer) => {
      if (peer.hello === undefined) throw new P2pfsError('unavailable', 'peer has not introduced itself')
      await serveImport(stream, this.#local.import, { signal: this.#stopping.signal, peer: peer.id.toString() })
    })
    await serve(
      chunkProtocol,
      async (stream, peer) =>
        await serveChunks(stream, { chunk: this.#local.chunk, onSent: (bytes) => this.#sent(peer, bytes) }),
    )
    try {
      await host.start()
    } catch (cause) {
      throw new P2pfsError('invalid', `cannot listen on ${listen.join(', ')}: ${(cause as Error).message}`, { cause })
    }
    this.#host = host
    this.#dialler.start()
  }

  /** Ends all connections. */
  async stop(): Promise<void> {
    if (this.#stopping.signal.aborted) return
    this.#stopping.abort(new P2pfsError('closed', 'peer exchange stopped'))
    this.#announcer.stop()
    this.#dialler?.stop()
    clearTimeout(this.#membersTimer)
    await this.#host?.stop()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  get peerId(): string {
    return this.#started().peerId.toString()
  }

  /** Signs with this host's key, whose public half the peer id is. */
  async sign(bytes: Uint8Array): Promise<Uint8Array> {
    this.#started()
    return await this.#key!.sign(bytes)
  }

  /** Where this host can be reached, its peer id included. */
  multiaddrs(): string[] {
    return this.#started().getMultiaddrs().map(String)
  }

  /** Members of the region that are connected. */
  peers(): PeerStatus[] {
    return this.#members().map(({ id, hello, connectedAt, traffic }) => ({
      peer: id.toString(),
      name: hello.name,
      addresses: hello.addresses,
      connectedMs: performance.now() - connectedAt,
      ...traffic,
    }))
  }

  /** Whether no member is connected, though this host knows of some: to meet first, or from before. */
  isAlone(): boolean {
    return this.#members().length === 0 && (this.#hasMet || this.#options.bootstrap.length > 0)
  }

  totals(): Traffic {
    return { ...this.#totals }
  }

  /** Tells the region of a table that is new here. */
  announce(table: Digest, held: Bitmap): void {
    this.#announcer.table(table, held)
  }

  /** Tells the region of chunks that are new here; gathered for some milliseconds. */
  announceHave(table: Digest, indexes: readonly number[]): void {
    this.#announcer.change(table, indexes, [])
  }

  /** Tells the region of chunks that are no longer here. */
  withdraw(table: Digest, indexes: readonly number[]): void {
    this.#announcer.change(table, [], indexes)
  }

  /** Ids of connected members that say they hold the chunk. */
  holders(table: Digest, index: number): string[] {
    return this.#members()
      .filter(({ holdings }) => holdings.has(table, index))
      .map(({ id }) => id.toString())
  }

  /**
   * One verified chunk from one peer. A peer that sends something else is cut off and kept away for a while.
   * @throws missing, busy, timeout, unavailable, invalid
   */
  async fetchChunk(
    peerId: string,
    digest: Digest,
    lengthBytes: number,
    { signal, priority, timeoutMs }: { signal: AbortSignal; priority: StreamClass; timeoutMs: number },
  ): Promise<Uint8Array> {
    const peer = this.#peers.get(peerId)
    if (peer === undefined) throw new P2pfsError('unavailable', 'peer is not connected', { peer: peerId })
    try {
      const client = await this.#client(peer, priority)
      const bytes = await client.fetch(digest, lengthBytes, { signal, timeoutMs })
      for (const traffic of [peer.traffic, this.#totals]) {
        traffic.bytesReceived += bytes.length
        traffic.chunksReceived++
      }
      return bytes
    } catch (error) {
      if (isP2pfsError(error, 'invalid')) this.#ban(peer, error)
      throw error
    }
  }

  /**
   * Resolves when this host has met its region, as far as it can tell: it has bootstrap peers, a member is connected, and
   * none has come in the last second. After two seconds it resolves anyway, and at once where there are no bootstrap peers.
   */
  async whenRegionKnown({ signal }: { signal: AbortSignal }): Promise<void> {
    const deadline = performance.now() + meetTimeoutMs
    const met = (): boolean => this.#members().length > 0 && performance.now() - this.#lastJoinedAt >= quietMs
    while (this.#options.bootstrap.length > 0 && !met() && performance.now() < deadline)
      await sleep(meetPollMs, undefined, { signal })
  }

  /** This host and the connected members that are not silent, in the order in which they are responsible for the key. */
  byResponsibility(key: string): string[] {
    return rendezvous(key, [
      this.peerId,
      ...this.#members()
        .filter((peer) => !peer.isSilent)
        .map(({ id }) => id.toString()),
    ])
  }

  /**
   * Has the peer import an image. One that breaks the protocol, or answers for another image, is cut off.
   * @throws timeout, unavailable, invalid
   */
  async askImport(
    peerId: string,
    request: ImportRequest,
    { signal, ...told }: ImportTold & { signal: AbortSignal },
  ): Promise<ImportOutcome> {
    const peer = this.#peers.get(peerId)
    if (peer === undefined) throw new P2pfsError('unavailable', 'peer is not connected', { peer: peerId })
    try {
      return await askImport(
        async (bounded) => await this.#started().dialProtocol(peer.id, importProtocol, { signal: bounded }),
        request,
        { signal, ...told },
      )
    } catch (error) {
      signal.throwIfAborted()
      if (isP2pfsError(error, 'invalid')) this.#ban(peer, error)
      if (isP2pfsError(error, 'timeout')) peer.silentAt = performance.now()
      throw isP2pfsError(error)
        ? error
        : new P2pfsError('unavailable', `the peer cannot be asked: ${(error as Error).message}`, {
            cause: error,
            peer: peerId,
          })
    }
  }

  async #client(peer: Peer, priority: StreamClass): Promise<ChunkClient> {
    let client = peer.clients.get(priority)
    if (client === undefined) {
      const opened = this.#openClient(peer)
      const forget = (): void => {
        if (peer.clients.get(priority) === opened) peer.clients.delete(priority)
      }
      opened
        .then(
          async ({ ended }) => await ended,
          () => undefined,
        )
        .then(forget, forget)
      peer.clients.set(priority, opened)
      client = opened
    }
    return await client
  }

  async #openClient(peer: Peer): Promise<ChunkClient> {
    try {
      return new ChunkClient(
        await this.#started().dialProtocol(peer.id, chunkProtocol, { signal: this.#stopping.signal }),
        peer.id.toString(),
      )
    } catch (cause) {
      throw new P2pfsError('unavailable', `cannot open a stream to the peer: ${(cause as Error).message}`, {
        cause,
        peer: peer.id.toString(),
      })
    }
  }

  #started(): Libp2p {
    if (this.#host === undefined) throw new P2pfsError('closed', 'peer exchange is not running')
    return this.#host
  }

  #members(): Member[] {
    return [...this.#peers.values()].filter((peer): peer is Member => peer.hello !== undefined)
  }

  #sent(peer: Peer, lengthBytes: number): void {
    for (const traffic of [peer.traffic, this.#totals]) {
      traffic.bytesSent += lengthBytes
      traffic.chunksSent++
    }
  }

  #ban(peer: Peer, error: P2pfsError): void {
    this.#log.warn('peer sent what it should not; it is left alone for ten minutes', {
      error,
      peer: peer.id.toString(),
    })
    this.#bans.add(peer.id.toString())
    this.#drop(peer)
  }

  #drop(peer: Peer): void {
    this.#peers.delete(peer.id.toString())
    this.#host?.hangUp(peer.id).catch(() => undefined)
  }

  async #serve(
    stream: Stream,
    connection: Connection,
    handler: (stream: Stream, peer: Peer) => Promise<void>,
  ): Promise<void> {
    const peer = this.#peer(connection.remotePeer)
    try {
      await handler(stream, peer)
    } catch (error) {
      stream.abort(error as Error)
      if (isP2pfsError(error, 'invalid')) this.#ban(peer, error)
      else this.#log.debug('stream of a peer ended', { error, peer: peer.id.toString() })
    }
  }

  #peer(id: PeerId): Peer {
    const key = id.toString()
    let peer = this.#peers.get(key)
    if (peer === undefined) {
      peer = new Peer(id)
      this.#peers.set(key, peer)
    }
    return peer
  }

  #connected(id: PeerId): void {
    const peer = this.#peer(id)
    this.#introduce(peer).catch((error: unknown) => {
      this.#log.debug('peer does not take part in a region', { error, peer: id.toString() })
      this.#drop(peer)
    })
  }

  #disconnected(id: PeerId): void {
    const peer = this.#peers.get(id.toString())
    if (peer === undefined) return
    this.#peers.delete(id.toString())
    if (peer.hello !== undefined) this.#log.info('peer left', { peer: id.toString(), name: peer.hello.name })
  }

  /** Opens this host's own region stream, and tells who it is and what it holds. */
  async #introduce(peer: Peer): Promise<void> {
    peer.region = await this.#started().dialProtocol(peer.id, regionProtocol, { signal: this.#stopping.signal })
    const { region, name } = this.#options
    this.#tell(peer, { type: 'hello', region, name, addresses: this.multiaddrs().slice(0, 32) })
    for (const { table, held } of this.#local.tables()) this.#tell(peer, { type: 'have', table, held })
  }

  #tell(peer: Peer, message: RegionMessage): void {
    const stream = peer.region
    if (stream === undefined) return
    if (peer.queued >= maxQueuedMessages) {
      this.#log.warn('peer does not listen; connection closed', { peer: peer.id.toString() })
      return this.#drop(peer)
    }
    // Encoded now: a bitmap goes on changing, and its changes follow.
    const bytes = encodeRegionMessage(message)
    peer.queued++
    peer.queue = peer.queue
      .then(async () => await writeFrame(stream, [bytes], { signal: this.#stopping.signal }))
      .catch((error: unknown) => this.#log.debug('peer cannot be told', { error, peer: peer.id.toString() }))
      .finally(() => peer.queued--)
  }

  #broadcast(message: RegionMessage): void {
    for (const peer of this.#peers.values()) this.#tell(peer, message)
  }

  /** What the peer tells, until it leaves. */
  async #listen(stream: Stream, peer: Peer): Promise<void> {
    for await (const bytes of readFrames(stream, maxRegionMessageBytes)) {
      const message = parseRegionMessage(bytes)
      if (message.type === 'hello') {
        if (!this.#welcome(peer, message)) return
      } else if (peer.hello === undefined) throw new P2pfsError('invalid', 'peer did not introduce itself')
      else if (message.type === 'members') for (const member of message.members) this.#dialler?.learn(member)
      else peer.holdings.update(message)
    }
  }

  #welcome(peer: Peer, hello: Hello): boolean {
    const id = peer.id.toString()
    if (hello.region !== this.#options.region) {
      this.#log.info('peer of another region; connection closed', { peer: id })
      // Kept away for a while, or it would be dialled again and again.
      this.#bans.add(id)
      this.#drop(peer)
      return false
    }
    if (peer.hello === undefined) {
      this.#lastJoinedAt = performance.now()
      this.#log.info('peer joined', { peer: id, name: hello.name })
    }
    peer.hello = hello
    this.#hasMet = true
    this.#dialler?.learn({ peer: id, addresses: hello.addresses })
    // Gathered: when many join at once, each is told once of all.
    this.#membersTimer ??= setTimeout(() => {
      this.#membersTimer = undefined
      const members = this.#members().map((member) => ({
        peer: member.id.toString(),
        addresses: member.hello.addresses,
      }))
      this.#broadcast({ type: 'members', members: members.slice(0, maxMembers) })
    }, newMembersIntervalMs)
    return true
  }
}
