import { setTimeout as sleepFor } from 'node:timers/promises'
import type { Libp2p, PeerId } from '@libp2p/interface'
import { P2pfsError } from '../../protocol/errors.ts'
import {
  maxAddresses,
  maxMembers,
  regionProtocol,
  type Have,
  type Hello,
  type MemberAddresses,
  type RegionMessage,
} from '../../protocol/messages/region.ts'
import type { Log } from '../base/log.ts'
import type { BanList } from './ban-list.ts'
import type { Dialler } from './dialler.ts'
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
  dialler: Pick<Dialler, 'learn'>
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
  #membersTimer: NodeJS.Timeout | undefined
  #hadMembers = false
  #lastJoinedAtMs = 0

  constructor(parts: MembershipParts, options: MembershipOptions) {
    this.#parts = parts
    this.#now = parts.now ?? (() => performance.now())
    this.#sleep = parts.sleep ?? (async (ms, { signal }) => await sleepFor(ms, undefined, { signal }))
    this.#options = options
    parts.signal.addEventListener('abort', () => clearTimeout(this.#membersTimer), { once: true })
  }

  /** The members that are connected. */
  members(): Member[] {
    return [...this.#peers.values()].filter(isMember)
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

  /** A connected peer. @throws unavailable where it is not connected */
  connectedPeer(peerId: string): Peer {
    const peer = this.#peers.get(peerId)
    if (peer === undefined) throw new P2pfsError('unavailable', 'peer is not connected', { peer: peerId })
    return peer
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

  /** The peer of a connection, which is no member before it says hello. */
  peerOf(id: PeerId): Peer {
    const key = id.toString()
    let peer = this.#peers.get(key)
    if (peer === undefined) {
      peer = new Peer(id, { total: this.traffic, now: this.#now })
      this.#peers.set(key, peer)
    }
    return peer
  }

  /**
   * Opens this host's region stream to the peer, and says who this host is and what it holds.
   * @param held reads what this host holds; called right before the peer begins to get all messages
   */
  async introduce(peer: Peer, held: () => Iterable<Omit<Have, 'type'>>): Promise<void> {
    const { host, log, signal } = this.#parts
    const stream = await host.dialProtocol(peer.libp2pId, regionProtocol, { signal })
    const segments = held()
    peer.regionClient = new RegionClient(stream, { log: log.child({ peer: peer.id }), signal })
    const { region, name } = this.#options
    const addresses = host.getMultiaddrs().map(String).slice(0, maxAddresses)
    this.#send(peer, { type: 'hello', region, name, addresses })
    for (const segment of segments) this.#send(peer, { type: 'have', ...segment })
  }

  /** Takes the peer for a member. @returns false where it belongs to another region: it is cut off */
  welcome(peer: Peer, hello: Hello): boolean {
    const { bans, dialler, log } = this.#parts
    if (hello.region !== this.#options.region) {
      log.info('peer belongs to another region; connection closed', { peer: peer.id })
      // Without a ban it would be dialled again and again.
      bans.add(peer.id)
      this.drop(peer)
      return false
    }
    if (!isMember(peer)) {
      this.#lastJoinedAtMs = this.#now()
      log.info('peer joined', { peer: peer.id, name: hello.name })
    }
    peer.hello = hello
    this.#hadMembers = true
    dialler.learn({ peer: peer.id, addresses: hello.addresses })
    this.#membersTimer ??= setTimeout(() => this.#sendMembers(), newMembersIntervalMs)
    return true
  }

  /** Dials members that another one named. */
  learn(members: readonly MemberAddresses[]): void {
    for (const member of members) this.#parts.dialler.learn(member)
  }

  /** Forgets a peer whose connection has ended. */
  leave(id: PeerId): void {
    const peer = this.#peers.get(id.toString())
    if (peer === undefined) return
    this.#peers.delete(peer.id)
    if (isMember(peer)) this.#parts.log.info('peer left', { peer: peer.id, name: peer.hello.name })
  }

  /** Cuts off a peer that broke the protocol, and keeps it away for a while. */
  ban(peer: Peer, error: P2pfsError): void {
    this.#parts.log.warn('peer broke the protocol; it is banned for ten minutes', { error, peer: peer.id })
    this.#parts.bans.add(peer.id)
    this.drop(peer)
  }

  /** Closes the connection to a peer. */
  drop(peer: Peer): void {
    this.#peers.delete(peer.id)
    this.#parts.host.hangUp(peer.libp2pId).catch(() => undefined)
  }

  /** Sends the message to all peers that this host has introduced itself to. */
  broadcast(message: RegionMessage): void {
    for (const peer of this.#peers.values()) this.#send(peer, message)
  }

  #send(peer: Peer, message: RegionMessage): void {
    if (peer.regionClient === undefined || peer.regionClient.send(message)) return
    this.#parts.log.warn('peer does not take messages; connection closed', { peer: peer.id })
    this.drop(peer)
  }

  #sendMembers(): void {
    this.#membersTimer = undefined
    const members = this.members().map(({ id, hello }) => ({ peer: id, addresses: hello.addresses }))
    this.broadcast({ type: 'members', members: members.slice(0, maxMembers) })
  }
}
