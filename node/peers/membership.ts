import { setTimeout as sleepFor } from 'node:timers/promises'
import type { Libp2p, PeerId } from '@libp2p/interface'
import { P2pfsError } from '../../protocol/errors.ts'
import {
  fittingHello,
  maxTextLength,
  membersMessages,
  regionProtocol,
  type Hello,
  type MemberAddresses,
  type RegionMessage,
} from '../../protocol/messages/region.ts'
import type { Log } from '../base/log.ts'
import type { BanList } from './ban-list.ts'
import { ByteBudget } from './byte-budget.ts'
import type { Dialler } from './dialler.ts'
import { limits } from './limits.ts'
import { isMember, Peer, type Member } from './peer.ts'
import { RegionClient } from './region/client.ts'
import { rendezvous } from './rendezvous.ts'
import { TrafficCounter, type Traffic } from './traffic.ts'

/** New members are gathered for so long before the others hear of them (ms): many that join at once are one message. */
const newMembersIntervalMs = 500
/** A region is known when no member has joined for so long (ms): each host passes on its members within half of it. */
const quietMs = 2 * newMembersIntervalMs
/** How long to wait for a first member, or for the last one (ms): beyond it there may be none. */
const meetTimeoutMs = 2_000
const meetPollMs = 50

export interface PeerStatus extends Traffic {
  peer: string
  name: string
  addresses: string[]
  connectedMs: number
}

export interface MembershipParts {
  host: Pick<Libp2p, 'peerId' | 'dialProtocol' | 'hangUp' | 'getMultiaddrs'>
  bans: Pick<BanList, 'add'>
  dialler: Pick<Dialler, 'learn' | 'hear' | 'avoid'>
  log: Log
  /** Aborts when this host leaves. */
  signal: AbortSignal
  /** The clock (ms). */
  now?: () => number
  sleep?: (ms: number, options: { signal: AbortSignal }) => Promise<void>
}

export interface MembershipOptions {
  region: string
  name: string
  /** Whether this host has bootstrap peers: a region to join. */
  hasBootstrap: boolean
}

/** Keeps the connected peers, and knows which of them are members of this host's region. */
export class Membership {
  /** Counts the chunks that are exchanged with all peers. */
  readonly traffic = new TrafficCounter()
  readonly #parts: MembershipParts
  readonly #now: () => number
  readonly #sleep: NonNullable<MembershipParts['sleep']>
  readonly #options: MembershipOptions
  readonly #peers = new Map<string, Peer>()
  /** Cut peers off that do not say hello. */
  readonly #helloTimers = new Map<Peer, NodeJS.Timeout>()
  readonly #queues = new ByteBudget(limits.sendQueue)
  /** Members so far, for {@link Peer.toldMembers}; and of each member the count at which it joined. */
  #joined = 0
  readonly #joinedAt = new WeakMap<Peer, number>()
  #membersTimer: NodeJS.Timeout | undefined
  #hadMembers = false
  #lastJoinedAtMs = 0

  /** @throws invalid for a region whose name is too long */
  constructor(parts: MembershipParts, options: MembershipOptions) {
    if (options.region.length > maxTextLength)
      throw new P2pfsError('invalid', `the name of the region is longer than ${maxTextLength} characters`)
    this.#parts = parts
    this.#now = parts.now ?? (() => performance.now())
    this.#sleep = parts.sleep ?? (async (ms, { signal }) => await sleepFor(ms, undefined, { signal }))
    this.#options = options
    const stopTimers = (): void => {
      for (const timer of [this.#membersTimer, ...this.#helloTimers.values()]) clearTimeout(timer)
    }
    parts.signal.addEventListener('abort', stopTimers, { once: true })
  }

  /** The members that are connected. */
  members(): Member[] {
    return [...this.#peers.values()].filter(isMember)
  }

  /** All peers that are connected, also those that have not said hello. */
  connected(): Iterable<Peer> {
    return this.#peers.values()
  }

  /** The members that are connected, as `p2pfs status` shows them. */
  peers(): PeerStatus[] {
    return this.members().map(({ id, hello, connectedAtMs, traffic }) => ({
      peer: id,
      name: hello.name,
      addresses: hello.addresses,
      connectedMs: this.#now() - connectedAtMs,
      ...traffic.snapshot(),
    }))
  }

  /** Bytes of messages that wait for peers that do not take them. */
  get queuedBytes(): number {
    return this.#queues.usedBytes
  }

  /** A connected peer. @throws unavailable where it is not connected */
  connectedPeer(peerId: string): Peer {
    const peer = this.#peers.get(peerId)
    if (peer === undefined) throw new P2pfsError('unavailable', 'peer is not connected', { peer: peerId })
    return peer
  }

  /** Whether it is a member that is connected, and not silent. */
  isAwake(peerId: string): boolean {
    const peer = this.#peers.get(peerId)
    return peer !== undefined && isMember(peer) && !peer.standing.isSilent
  }

  /** Whether no member is connected although there should be some: this host had members, or has bootstrap peers. */
  isAlone(): boolean {
    return this.members().length === 0 && (this.#hadMembers || this.#options.hasBootstrap)
  }

  /**
   * Resolves when this host knows the members of its region, as far as it can tell: one is connected, and none has
   * joined in the last second. It resolves after two seconds at the latest, and at once where there are no bootstrap
   * peers.
   */
  async whenRegionKnown({ signal }: { signal: AbortSignal }): Promise<void> {
    const deadline = this.#now() + meetTimeoutMs
    const isKnown = (): boolean => this.members().length > 0 && this.#now() - this.#lastJoinedAtMs >= quietMs
    while (this.#options.hasBootstrap && !isKnown() && this.#now() < deadline) await this.#sleep(meetPollMs, { signal })
  }

  /**
   * Ids of this host and of the connected members that are not silent, in the order in which they answer for the key.
   */
  byResponsibility(key: string): string[] {
    const awake = this.members().filter((peer) => !peer.standing.isSilent)
    return rendezvous(key, [this.#parts.host.peerId.toString(), ...awake.map(({ id }) => id)])
  }

  /**
   * The peer of a connection, which is no member before it says hello. It has ten seconds for that.
   */
  peerOf(id: PeerId): Peer {
    const key = id.toString()
    let peer = this.#peers.get(key)
    if (peer === undefined) {
      const created = new Peer(id, { total: this.traffic, now: this.#now })
      peer = created
      this.#peers.set(key, peer)
      const timer = setTimeout(() => {
        this.#parts.log.info('peer does not say hello; connection closed', { peer: key })
        this.drop(created)
      }, limits.hello.deadlineMs)
      timer.unref()
      this.#helloTimers.set(peer, timer)
    }
    return peer
  }

  /**
   * Opens this host's region stream to the peer, and says who this host is.
   * @param news what to send when the peer has said hello too; read when it takes more
   */
  async introduce(peer: Peer, news: () => RegionMessage | undefined): Promise<void> {
    const { host, log, signal } = this.#parts
    const timed = AbortSignal.any([signal, AbortSignal.timeout(limits.hello.deadlineMs)])
    const stream = await host.dialProtocol(peer.libp2pId, regionProtocol, { signal: timed })
    const next = (): RegionMessage | undefined => (isMember(peer) ? news() : undefined)
    const onBroken = (error: Error): void => {
      if (signal.aborted || !this.#isCurrent(peer)) return
      log.info('region stream to a peer broke; connection closed', { error, peer: peer.id })
      this.drop(peer)
    }
    const client = new RegionClient(stream, { peer: peer.id, queues: this.#queues, next, onBroken, signal })
    peer.regionClient = client
    const { region, name } = this.#options
    client.send(fittingHello({ region, name, addresses: host.getMultiaddrs().map(String) }))
    client.wake()
    this.#membersTimer ??= this.#sendMembersLater()
  }

  /** Takes the peer for a member. @returns false where it has gone, or belongs to another region: it is cut off */
  welcome(peer: Peer, hello: Hello): boolean {
    const { dialler, log } = this.#parts
    if (!this.#isCurrent(peer)) return false
    if (hello.region !== this.#options.region) {
      log.info('peer belongs to another region; connection closed', { peer: peer.id })
      // It may belong to this one when it is started anew, so it is not banned; but it is not dialled again and again.
      dialler.avoid(peer.id, limits.otherRegionMs)
      this.drop(peer)
      return false
    }
    if (!isMember(peer)) {
      this.#lastJoinedAtMs = this.#now()
      log.info('peer joined', { peer: peer.id, name: hello.name })
    }
    this.#stopHelloTimer(peer)
    const isNews = peer.hello === undefined || String(peer.hello.addresses) !== String(hello.addresses)
    if (isNews) this.#joinedAt.set(peer, this.#joined++)
    peer.hello = hello
    this.#hadMembers = true
    dialler.learn({ peer: peer.id, addresses: hello.addresses })
    this.#membersTimer ??= this.#sendMembersLater()
    peer.regionClient?.wake()
    return true
  }

  /** Dials members that another one named, if nobody has named them before. @param teller the id of who named them */
  learn(members: readonly MemberAddresses[], teller: string): void {
    for (const member of members) this.#parts.dialler.hear(member, teller)
  }

  /** Forgets a peer whose connection has ended. */
  leave(id: PeerId): void {
    const peer = this.#peers.get(id.toString())
    if (peer !== undefined) this.#remove(peer)
  }

  /** Cuts off a peer that broke the protocol, and keeps it away for a while. */
  ban(peer: Peer, error: P2pfsError): void {
    this.#parts.log.warn('peer broke the protocol; it is banned for ten minutes', { error, peer: peer.id })
    this.#parts.bans.add(peer.id)
    const current = this.#peers.get(peer.id)
    if (current !== undefined) this.#remove(current)
    this.#hangUp(peer)
  }

  /** Closes the connection to a peer. One that has gone may be here again, with another connection: that one stays. */
  drop(peer: Peer): void {
    if (!this.#isCurrent(peer)) return
    this.#remove(peer)
    this.#hangUp(peer)
  }

  #hangUp({ libp2pId }: Peer): void {
    this.#parts.host.hangUp(libp2pId).catch(() => undefined)
  }

  #isCurrent(peer: Peer): boolean {
    return this.#peers.get(peer.id) === peer
  }

  #remove(peer: Peer): void {
    if (isMember(peer)) this.#parts.log.info('peer left', { peer: peer.id, name: peer.hello.name })
    this.#peers.delete(peer.id)
    this.#stopHelloTimer(peer)
    peer.regionClient?.close()
  }

  #stopHelloTimer(peer: Peer): void {
    clearTimeout(this.#helloTimers.get(peer))
    this.#helloTimers.delete(peer)
  }

  #sendMembersLater(): NodeJS.Timeout {
    return setTimeout(() => this.#sendMembers(), newMembersIntervalMs)
  }

  /** Tells each peer of the members that it has not been told of. One that does not take them is told later. */
  #sendMembers(): void {
    this.#membersTimer = undefined
    const joinedAt = (member: Member): number => this.#joinedAt.get(member)!
    const members = this.members().toSorted((a, b) => joinedAt(a) - joinedAt(b))
    for (const peer of members) {
      if (peer.regionClient === undefined || peer.toldMembers >= this.#joined) continue
      const news = members.filter((member) => member !== peer && joinedAt(member) >= peer.toldMembers)
      const messages = membersMessages(news.map(({ id, hello }) => ({ peer: id, addresses: hello.addresses })))
      let sent = 0
      for (const message of messages) {
        if (!peer.regionClient.send(message)) break
        sent += message.members.length
      }
      peer.toldMembers = sent === news.length ? this.#joined : joinedAt(news[sent]!)
      if (sent < news.length) this.#membersTimer ??= this.#sendMembersLater()
    }
  }
}
