import { setTimeout as sleepFor } from 'node:timers/promises'
import type { Libp2p, PeerId } from '@libp2p/interface'
import { P2pfsError } from '../../protocol/errors.ts'
import {
  fittingHello,
  maxTextLength,
  regionProtocol,
  type Hello,
  type RegionMessage,
} from '../../protocol/messages/region.ts'
import type { Log } from '../base/log.ts'
import { orAbort, SingleFlight } from '../base/single-flight.ts'
import type { RosterMessage } from '../../protocol/messages/roster.ts'
import { bitsPerLevel } from '../../protocol/messages/span.ts'
import type { BanList } from './ban-list.ts'
import { ByteBudget } from './byte-budget.ts'
import type { Dialler } from './dialler.ts'
import { limits } from './limits.ts'
import { isMember, Peer, type Member } from './peer.ts'
import { RegionClient } from './region/client.ts'
import { Rendezvous, rendezvous } from './rendezvous.ts'
import { Gossip, type GossipPeer, type RecordSigning } from './roster/gossip.ts'
import { Roster, type KnownMembers } from './roster/roster.ts'
import { TrafficCounter, type Traffic } from './traffic.ts'

/** A region is known when no member has joined for so long (ms): the first member gives the whole list within it. */
const quietMs = 1_000
/** How long to wait for a first member, or for the last one (ms): beyond it there may be none. */
const meetTimeoutMs = 2_000
const meetPollMs = 50
/** How long neighbours may take for the last words of this host, and how often that is looked at (ms). */
const goodbyeMs = 200
const goodbyePollMs = 10
/** Members that have come are gathered for so long before they are dialled (ms). */
const wantedIntervalMs = 100
/** So often neighbours that are not connected are looked at; one that has been missed twice is suspected (ms). */
const missedIntervalMs = 5_000

export interface PeerStatus extends Traffic {
  peer: string
  name: string
  addresses: string[]
  connectedMs: number
}

/** Cohorts are told apart by so many bits at most: those of 10,000 members have 39 on average. */
const maxCohortBits = 8

export interface MembershipParts {
  host: Pick<Libp2p, 'peerId' | 'dialProtocol' | 'hangUp' | 'getMultiaddrs'>
  bans: Pick<BanList, 'add'>
  dialler: Pick<Dialler, 'learn' | 'hear' | 'avoid' | 'reach' | 'want'>
  signing: RecordSigning
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
  /** Members of a region that is connected each to each, at most; for tests. */
  fullMesh?: number
  /** Members that this host knows from the begin; for simulations. */
  known?: KnownMembers | undefined
}

/** Members near this host in the roster. */
interface Nearby {
  cohort: readonly string[]
  /** The parts of the region that this host is in, by level; those that were asked for. */
  parts: Map<number, readonly string[]>
  /** Those to which news of members are passed on. */
  ring: ReadonlySet<string>
  /** The cohort and the ring, without this host. */
  wanted: ReadonlySet<string>
}

/** How many bits of their hashes the members of a cohort share: a cohort has 3/8 to 3/4 of the bound, on average. */
function cohortBits(members: number, fullMesh: number): number {
  if (members <= fullMesh) return 0
  return Math.min(Math.max(Math.ceil(Math.log2(members / (0.75 * fullMesh))), 1), maxCohortBits)
}

/** Keeps the connected peers, and knows which of them are members of this host's region. */
export class Membership {
  /** Counts the chunks that are exchanged with all peers. */
  readonly traffic = new TrafficCounter()
  /** The members that are alive, connected or not. */
  readonly roster: Roster
  readonly #reaching = new SingleFlight<Member>()
  /** How many parts of this host use the connection to a member. */
  readonly #kept = new Map<string, number>()
  readonly #parts: MembershipParts
  readonly #now: () => number
  readonly #sleep: NonNullable<MembershipParts['sleep']>
  readonly #options: MembershipOptions
  readonly #peers = new Map<string, Peer>()
  /** Cut peers off that do not say hello. */
  readonly #helloTimers = new Map<Peer, NodeJS.Timeout>()
  readonly #queues = new ByteBudget(limits.sendQueue)
  readonly #gossip: Gossip
  readonly #fullMesh: number
  #wantedTimer: NodeJS.Timeout | undefined
  #missedTimer: NodeJS.Timeout | undefined
  /** Neighbours that were not connected the last time. */
  #missed = new Set<string>()
  /** Members near this host in the roster; undefined where it has changed. */
  #nearby: Nearby | undefined
  /** The members of the roster, for any key; undefined where it has changed. */
  #rendezvous: Rendezvous | undefined
  #hadMembers = false
  #lastGrownAtMs = 0
  #isKnown = false

  /** @throws invalid for a region whose name is too long */
  constructor(parts: MembershipParts, options: MembershipOptions) {
    if (options.region.length > maxTextLength)
      throw new P2pfsError('invalid', `the name of the region is longer than ${maxTextLength} characters`)
    this.#parts = parts
    this.#now = parts.now ?? (() => performance.now())
    this.#sleep = parts.sleep ?? (async (ms, { signal }) => await sleepFor(ms, undefined, { signal }))
    this.#options = options
    const { host, signing, log, signal } = parts
    const now = this.#now
    const own = { id: host.peerId.toString(), name: options.name, addresses: [] }
    this.roster = new Roster(own, { now, known: options.known })
    this.#fullMesh = options.fullMesh ?? limits.roster.fullMesh
    this.#gossip = new Gossip({
      roster: this.roster,
      signing,
      connected: (id) => this.#gossipPeer(id),
      neighbours: () => [...this.#near().ring].flatMap((id) => this.#gossipPeer(id) ?? []),
      describe: () => {
        const { region, name, addresses } = this.#hello()
        return { region, name, addresses }
      },
      log,
      signal,
      now,
    })
    this.roster.onChange(() => {
      this.#nearby = undefined
      this.#rendezvous = undefined
      this.#lastGrownAtMs = this.#now()
      this.#dialWantedSoon()
    })
    parts.dialler.want((id) => !this.roster.has(id) || this.#isDialled(id))
    const stopTimers = (): void => {
      for (const timer of [this.#wantedTimer, this.#missedTimer, ...this.#helloTimers.values()]) clearTimeout(timer)
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
    peer.use()
    return peer
  }

  get #byKey(): Rendezvous {
    return (this.#rendezvous ??= new Rendezvous(this.roster.ids(), { hashOf: (id) => this.roster.hashOf(id) }))
  }

  #isSilent(id: string): boolean {
    return this.#peers.get(id)?.standing.isSilent === true
  }

  /** Whether it is a member that is alive and, where it is connected, not silent. */
  isAwake(peerId: string): boolean {
    const peer = this.#peers.get(peerId)
    if (peer !== undefined && isMember(peer)) return !peer.standing.isSilent
    return this.roster.has(peerId)
  }

  /**
   * The member, connected: it is dialled now where it is not, once for all who ask.
   * @throws unavailable where it is no member of the region, or cannot be reached
   */
  async reach(id: string, { signal }: { signal: AbortSignal }): Promise<Member> {
    signal.throwIfAborted()
    const peer = this.#peers.get(id)
    if (peer !== undefined && isMember(peer)) {
      peer.use()
      return peer
    }
    return await this.#reaching.run(id, signal, async (ended) => await this.#connect(id, ended))
  }

  /** Keeps the connection to the member open, once it is there, until the result is disposed of. It dials nobody. */
  keep(id: string): Disposable {
    this.#kept.set(id, (this.#kept.get(id) ?? 0) + 1)
    let isKept = true
    const end = (): void => {
      if (!isKept) return
      isKept = false
      const left = (this.#kept.get(id) ?? 0) - 1
      if (left > 0) this.#kept.set(id, left)
      else this.#kept.delete(id)
    }
    return { [Symbol.dispose]: end }
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
    // In a large region somebody joins all the time.
    const isKnown = (): boolean =>
      (this.#isKnown && !this.isSmall) || (this.members().length > 0 && this.#now() - this.#lastGrownAtMs >= quietMs)
    while (this.#options.hasBootstrap && !isKnown() && this.#now() < deadline) await this.#sleep(meetPollMs, { signal })
    this.#isKnown = true
  }

  /** Whether all members are connected each to each. */
  get isSmall(): boolean {
    return this.roster.size <= this.#fullMesh
  }

  /**
   * Ids of the members that are connected each to each with this host, which is one of them: all of a small region; of a
   * larger one those whose hashes begin with the same bits.
   */
  cohort(): readonly string[] {
    return this.#near().cohort
  }

  /** How many levels of parts the region has: the cohorts are those of the last one; 0 in a small region. */
  get cohortLevel(): number {
    return Math.ceil(this.#cohortBits / bitsPerLevel)
  }

  /** Ids of the members whose hashes begin with the same bits as this host's, {@link bitsPerLevel} for each level, this host among them. */
  part(level: number): readonly string[] {
    const { parts } = this.#near()
    const known = parts.get(level) ?? this.roster.alike(level * bitsPerLevel)
    parts.set(level, known)
    return known
  }

  get #cohortBits(): number {
    return cohortBits(this.roster.size, this.#fullMesh)
  }

  /**
   * Ids of this host and of the members, connected or not, that are not silent, in the order in which they answer for
   * the key.
   * @param among ids of members; all where it is not given
   */
  byResponsibility(key: string, among?: readonly string[]): string[] {
    const order =
      among === undefined ? this.#byKey.order(key) : rendezvous(key, among, { hashOf: (id) => this.roster.hashOf(id) })
    return order.filter((id) => !this.#isSilent(id))
  }

  /**
   * The first ids of {@link byResponsibility}, `count` at most: cheap in a large region, too.
   * @param options `except`: ids that do not count
   */
  firstByResponsibility(
    key: string,
    count: number,
    { except }: { except?: { has: (id: string) => boolean } } = {},
  ): string[] {
    return this.#byKey.first(key, count, (id) => !this.#isSilent(id) && except?.has(id) !== true)
  }

  /**
   * The peer of a connection, which is no member before it says hello. It has ten seconds for that.
   */
  peerOf(id: PeerId): Peer {
    const key = id.toString()
    let peer = this.#peers.get(key)
    if (peer !== undefined) peer.use()
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
    client.send(this.#hello())
    client.wake()
    if (isMember(peer)) await this.#gossip.met(peer.id, peer.doubt)
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
    const isFirst = !isMember(peer)
    if (isFirst) log.info('peer joined', { peer: peer.id, name: hello.name })
    this.#stopHelloTimer(peer)
    peer.hello = hello
    this.#hadMembers = true
    peer.doubt ??= this.roster.doubtOf(peer.id)
    this.roster.met({ id: peer.id, name: hello.name, addresses: hello.addresses })
    dialler.learn({ peer: peer.id, addresses: hello.addresses })
    if (isFirst && peer.regionClient !== undefined)
      this.#gossip
        .met(peer.id, peer.doubt)
        .catch((error: unknown) => log.warn('member cannot be told of this host', { error, peer: peer.id }))
    peer.regionClient?.wake()
    if (isFirst) this.#closeIdle()
    return true
  }

  /** Takes in what a member says of others. @throws invalid where it breaks the protocol */
  hear(peer: Peer, message: RosterMessage): void {
    this.#gossip.update(peer.id, message)
  }

  /** Compares the list of members with those of others now and then, from now on. */
  start(): void {
    this.#gossip.start()
    this.#dialWantedSoon()
    this.#missedTimer = setInterval(() => this.#lookForMissed(), missedIntervalMs).unref()
  }

  /** Tells the region that this host leaves. It waits a fifth of a second at most until the neighbours have taken that. */
  async sayGoodbye(): Promise<void> {
    const { signal } = this.#parts
    await this.#gossip.leave()
    const deadline = this.#now() + goodbyeMs
    while (this.queuedBytes > 0 && this.#now() < deadline) await this.#sleep(goodbyePollMs, { signal })
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

  async #connect(id: string, signal: AbortSignal): Promise<Member> {
    const known = this.roster.get(id)
    if (known === undefined) throw new P2pfsError('unavailable', 'peer is no member of the region', { peer: id })
    const peer =
      this.#peers.get(id) ??
      this.peerOf(await this.#parts.dialler.reach({ peer: id, addresses: [...known.addresses] }, { signal }))
    await orAbort(peer.whenMember(), signal)
    if (!this.#isCurrent(peer) || !isMember(peer))
      throw new P2pfsError('unavailable', 'the connection to the peer ended', { peer: id })
    return peer
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
    // A host that is connected to all sees for itself who is gone; else the region is asked.
    if (!isMember(peer) || this.#parts.signal.aborted) return
    if (this.isSmall) this.roster.bury(peer.id)
    else if (this.#wanted().has(peer.id)) this.#gossip.lost(peer.id)
  }

  #stopHelloTimer(peer: Peer): void {
    clearTimeout(this.#helloTimers.get(peer))
    this.#helloTimers.delete(peer)
  }

  #hello(): Hello {
    const { region, name } = this.#options
    return fittingHello({ region, name, addresses: this.#parts.host.getMultiaddrs().map(String) })
  }

  #near(): Nearby {
    if (this.#nearby !== undefined) return this.#nearby
    const cohort = this.roster.alike(this.#cohortBits)
    const others = cohort.filter((id) => id !== this.roster.own)
    const ring = this.isSmall ? new Set(others) : this.roster.neighbours()
    this.#nearby = { cohort, parts: new Map(), ring, wanted: new Set([...ring, ...others]) }
    return this.#nearby
  }

  /** Members that this host is connected to whether it needs them or not. */
  #wanted(): ReadonlySet<string> {
    return this.#near().wanted
  }

  /** Whether the connection to the member is kept up by this host. */
  #isDialled(id: string): boolean {
    return this.#wanted().has(id) || this.#kept.has(id)
  }

  #gossipPeer(id: string): GossipPeer | undefined {
    const peer = this.#peers.get(id)
    if (peer === undefined || !isMember(peer)) return undefined
    const { regionClient } = peer
    return regionClient && { id, send: (message) => regionClient.send(message) }
  }

  #dialWantedSoon(): void {
    this.#wantedTimer ??= setTimeout(() => this.#dialWanted(), wantedIntervalMs).unref()
  }

  #dialWanted(): void {
    clearTimeout(this.#wantedTimer)
    this.#wantedTimer = undefined
    for (const id of this.#wanted()) {
      if (this.#peers.has(id)) continue
      const { addresses } = this.roster.get(id)!
      this.#parts.dialler.hear({ peer: id, addresses: [...addresses] }, this.roster.tellerOf(id) ?? this.roster.own)
    }
    this.#closeIdle()
  }

  /**
   * Suspects neighbours that cannot be reached. So a member is found dead whose neighbours have died with it: others are
   * its neighbours now.
   */
  #lookForMissed(): void {
    const connected = new Set(this.members().map(({ id }) => id))
    const missing = [...this.#wanted()].filter((id) => !connected.has(id))
    if (!this.isSmall && connected.size > 0) for (const id of missing) if (this.#missed.has(id)) this.#gossip.lost(id)
    this.#missed = new Set(missing)
    this.#dialWanted()
  }

  /**
   * Closes connections that nothing needs, beyond a bound: those first that were used the longest time ago. One that was
   * used just now is closed only where there are very many.
   */
  #closeIdle(): void {
    if (this.isSmall) return
    const { idle, idleMs, inUse } = limits.roster.onDemand
    const unneeded = this.members().filter(({ id }) => !this.#isDialled(id))
    if (unneeded.length <= idle) return
    const usedBefore = this.#now() - idleMs
    for (const [i, peer] of unneeded.toSorted((a, b) => b.usedAtMs - a.usedAtMs).entries()) {
      if (i >= idle + inUse || (i >= idle && peer.usedAtMs <= usedBefore)) this.drop(peer)
    }
  }
}
