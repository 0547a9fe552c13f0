import type { Libp2p, PeerId } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { maxNamedMembers } from '../../protocol/messages/guest.ts'
import type { MemberAddresses } from '../../protocol/messages/region.ts'
import { pause, type Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import type { BanList } from '../peers/ban-list.ts'
import { DialAllowance } from '../peers/dial-allowance.ts'
import { limits } from '../peers/limits.ts'
import { Peer } from '../peers/peer.ts'
import { rendezvous } from '../peers/rendezvous.ts'
import type { TrafficCounter } from '../peers/traffic.ts'

/** Members of the neighbour region that this host is connected to at most. */
const maxConnected = maxNamedMembers
/**
 * Members that are dialled at once: one may be away, and a region of many hosts must not fill a member's places for
 * guests.
 */
const dialsAtOnce = 2
/** Members that are remembered because others named them: those of two answers. */
const maxLearned = 2 * maxNamedMembers
/** Pause before a member that was not reached is dialled again (ms): doubles from the first to the last. */
const backoffMs = { first: 1_000, last: 30_000 } as const
/** A connection that ends so soon (ms) was refused: the member has as many guests as it takes. */
const refusedMs = 1_000
/** A connection that is not used for so long is closed (ms): a mount begins with pauses shorter than that. */
const idleMs = 2 * 60_000
/** How long somebody waits for a connection that is being made (ms): six round trips between continents. */
const connectMs = 1_000
/** One that is not used for so long makes room for a member that has what is wanted (ms). */
const spareMs = 10_000

export interface NeighbourMembersParts {
  host: Pick<Libp2p, 'dial' | 'hangUp' | 'peerId' | 'addEventListener'>
  bans: Pick<BanList, 'add'>
  traffic: TrafficCounter
  clock: Clock
  log: Log
  /** Ends dials. */
  signal: AbortSignal
}

/** A member that is known by its address. */
interface Target {
  addresses: readonly string[]
  /** Whether another member named it: those of the operator are never forgotten. */
  isLearned: boolean
  /** Its peer id, once it has been connected. */
  peer: string | undefined
  failures: number
  dialAtMs: number
  isDialling: boolean
}

/** A member that is connected. */
interface Connected {
  peer: Peer
  target: Target
  /** Bytes that it owes this host. */
  owedBytes: number
  usedAtMs: number
}

/**
 * Members of a neighbour region: which are known, and which are connected. Those of the operator are dialled in an
 * order of this host's own, so that the hosts of a region do not all lean on the first, two at a time, and more where
 * none that is connected has what is wanted. Connections that are not used are closed.
 */
export class NeighbourMembers {
  readonly #parts: NeighbourMembersParts
  readonly #region: string
  readonly #allowance: DialAllowance
  /** In the order in which they are dialled, those that were named after those of the operator. */
  readonly #targets = new Map<string, Target>()
  readonly #connected = new Map<string, Connected>()
  readonly #dials = new Set<Promise<void>>()
  #problem: string | undefined
  #cancelIdle: (() => void) | undefined

  constructor(parts: NeighbourMembersParts, { region, bootstrap }: { region: string; bootstrap: readonly string[] }) {
    this.#parts = parts
    this.#region = region
    // Members may be at addresses of the classes that the operator names.
    this.#allowance = new DialAllowance({ now: () => parts.clock.now() }, { listen: bootstrap })
    for (const address of rendezvous(parts.host.peerId.toString(), new Set(bootstrap)))
      this.#targets.set(address, newTarget([address], { isLearned: false }))
    parts.host.addEventListener('peer:disconnect', ({ detail }) => this.#left(detail.toString()))
  }

  /** Ends what waits; the connections end with the host. */
  stop(): void {
    this.#cancelIdle?.()
  }

  /** Members that are connected. */
  get connected(): Peer[] {
    return [...this.#connected.values()].map(({ peer }) => peer)
  }

  /** Members that are known, connected or not. */
  get known(): number {
    return this.#targets.size
  }

  /** Why no member is connected, where the last dial failed. */
  get problem(): string | undefined {
    return this.#connected.size > 0 ? undefined : this.#problem
  }

  has(id: string): boolean {
    return this.#connected.has(id)
  }

  /** @throws unavailable where it is not connected */
  get(id: string): Peer {
    const connected = this.#connected.get(id)
    if (connected === undefined) throw new P2pfsError('unavailable', 'peer is not connected', { peer: id })
    return connected.peer
  }

  /** The least busy member that is connected and not silent. @param isTried members that are passed over */
  leastBusy(isTried: (id: string) => boolean): string | undefined {
    let best: string | undefined
    let bestBytes = Infinity
    for (const [id, { peer, owedBytes }] of this.#connected) {
      if (owedBytes >= bestBytes || peer.standing.isSilent || isTried(id)) continue
      best = id
      bestBytes = owedBytes
    }
    return best
  }

  /** Counts bytes that a member is asked for. @returns call it when they have come, or do not come */
  use(id: string, bytes: number): () => void {
    const connected = this.#connected.get(id)
    if (connected === undefined) return () => undefined
    connected.owedBytes += bytes
    connected.usedAtMs = this.#parts.clock.now()
    return () => {
      connected.owedBytes -= bytes
      connected.usedAtMs = this.#parts.clock.now()
    }
  }

  /**
   * Remembers a member that another one named. Beyond the bound one that is not connected is forgotten: one that
   * failed, or the oldest.
   */
  learn({ peer, addresses }: MemberAddresses): void {
    if (peer === this.#parts.host.peerId.toString() || this.#isKnown(peer) || !isPeerId(peer)) return
    const usable = addresses.filter((address) => this.#allowance.isDiallable(address)).slice(0, maxNamedMembers)
    if (usable.length === 0) return
    const learned = [...this.#targets].filter(([, { isLearned }]) => isLearned)
    if (learned.length >= maxLearned) {
      const free = learned.filter(([, target]) => !target.isDialling && !this.#isConnected(target))
      const [oldest] = free.find(([, { failures }]) => failures > 0) ?? free[0] ?? []
      if (oldest === undefined) return
      this.#targets.delete(oldest)
    }
    const withId = usable.map((address) => `${address.replace(/\/p2p\/.*$/, '')}/p2p/${peer}`)
    this.#targets.set(peer, newTarget(withId, { isLearned: true }))
  }

  /**
   * Begins to connect to some more, those first that were named. Where all places are taken, one that nobody uses makes
   * room.
   */
  dial(): void {
    const now = this.#parts.clock.now()
    const targets = [...this.#targets.values()]
    let dialling = targets.filter(({ isDialling }) => isDialling).length
    const isDue = (target: Target): boolean =>
      !target.isDialling && target.dialAtMs <= now && !this.#isConnected(target)
    const inOrder = [...targets.filter(({ isLearned }) => isLearned), ...targets.filter(({ isLearned }) => !isLearned)]
    for (const target of inOrder.filter(isDue)) {
      if (dialling >= dialsAtOnce) return
      if (this.#connected.size + dialling >= maxConnected && !this.#makeRoom()) return
      dialling++
      const dial = this.#connect(target).finally(() => this.#dials.delete(dial))
      this.#dials.add(dial)
    }
  }

  /**
   * Resolves when a member is connected, when none is being dialled any more, or after a second. @throws the signal's
   * reason
   */
  async whenConnected({ signal }: { signal: AbortSignal }): Promise<void> {
    const late = new AbortController()
    const waiting = pause(this.#parts.clock, connectMs, { signal: AbortSignal.any([signal, late.signal]) })
    let isLate = false
    const over = waiting.then(() => void (isLate = true))
    while (this.#connected.size === 0 && this.#dials.size > 0 && !isLate) await Promise.race([over, ...this.#dials])
    late.abort()
    signal.throwIfAborted()
  }

  /** Leaves a member that sent wrong bytes. */
  ban(peer: Peer, error: P2pfsError): void {
    const { bans, clock, log } = this.#parts
    log.warn('member of a neighbour region sent wrong bytes; it is banned for ten minutes', {
      error,
      peer: peer.id,
      region: this.#region,
    })
    const target = this.#connected.get(peer.id)?.target
    if (target !== undefined) target.dialAtMs = clock.now() + limits.bans.ms
    bans.add(peer.id)
    this.#close(peer)
  }

  async #connect(target: Target): Promise<void> {
    const { host, clock, signal } = this.#parts
    target.isDialling = true
    try {
      const addresses = target.addresses.map((address) => multiaddr(address))
      const { remotePeer, status } = await host.dial(addresses, { signal })
      if (status !== 'open') throw fullError()
      target.isDialling = false
      target.dialAtMs = clock.now() + backoffMs.first
      this.#meet(remotePeer, target)
    } catch (error) {
      target.isDialling = false
      if (!signal.aborted) this.#failed(target, error)
    }
  }

  #meet(id: PeerId, target: Target): void {
    const { clock, traffic, log } = this.#parts
    const key = id.toString()
    target.peer = key
    if (this.#connected.has(key)) return
    const peer = new Peer(id, { total: traffic, now: () => clock.now() })
    this.#connected.set(key, { peer, target, owedBytes: 0, usedAtMs: clock.now() })
    this.#cancelIdle ??= clock.after(idleMs, () => this.#closeIdle())
    log.info('connected to a neighbour region', { region: this.#region, peer: key })
  }

  #failed(target: Target, error: unknown): void {
    const { clock, log } = this.#parts
    target.dialAtMs = clock.now() + Math.min(backoffMs.first * 2 ** target.failures++, backoffMs.last)
    const isRefused = isDenied(error)
    this.#problem = isRefused
      ? 'it does not take this host as a guest: another key of guests, another name, or none are taken'
      : `it cannot be reached: ${(error as Error).message}`
    if (target.failures === 1) {
      const fields = { error, region: this.#region, addresses: target.addresses }
      if (isRefused)
        log.warn('neighbour region refuses this host; compare --neighbour-key-file with its --guest-key-file', fields)
      else log.warn('neighbour region cannot be reached; look at its address', fields)
    }
    // Another one may be there.
    if (this.#connected.size === 0) this.dial()
  }

  #left(key: string): void {
    const connected = this.#connected.get(key)
    if (connected === undefined) return
    this.#connected.delete(key)
    const { peer, target } = connected
    // Others that have room are named by it, or by the operator.
    if (this.#parts.clock.now() - peer.connectedAtMs < refusedMs && peer.standing.lastSignMs === -Infinity)
      this.#failed(target, fullError())
    else target.failures = 0
  }

  #close({ id, libp2pId }: Peer): void {
    const connected = this.#connected.get(id)
    if (connected !== undefined) connected.target.failures = 0
    this.#connected.delete(id)
    this.#parts.host.hangUp(libp2pId).catch(() => undefined)
  }

  #closeIdle(): void {
    this.#cancelIdle = undefined
    const { clock, log } = this.#parts
    const now = clock.now()
    for (const { peer, owedBytes, usedAtMs } of this.#connected.values()) {
      if (owedBytes > 0 || now - usedAtMs < idleMs) continue
      log.debug('connection to a neighbour region is not used; it is closed', { peer: peer.id, region: this.#region })
      this.#close(peer)
    }
    const used = [...this.#connected.values()].map(({ usedAtMs }) => usedAtMs)
    if (used.length === 0) return
    const nextMs = Math.max(spareMs, Math.min(...used) + idleMs - now)
    this.#cancelIdle = clock.after(nextMs, () => this.#closeIdle())
  }

  /** Closes the connection that has not been used for longest. @returns whether there is room now */
  #makeRoom(): boolean {
    const now = this.#parts.clock.now()
    const [spare] = [...this.#connected.values()]
      .filter(({ owedBytes, usedAtMs }) => owedBytes === 0 && now - usedAtMs >= spareMs)
      .toSorted((a, b) => a.usedAtMs - b.usedAtMs)
    if (spare === undefined) return false
    this.#close(spare.peer)
    spare.target.dialAtMs = now + spareMs
    return true
  }

  #isConnected({ peer }: Target): boolean {
    return peer !== undefined && this.#connected.has(peer)
  }

  #isKnown(peer: string): boolean {
    return this.#targets.has(peer) || [...this.#targets.values()].some((target) => target.peer === peer)
  }
}

function newTarget(addresses: readonly string[], { isLearned }: { isLearned: boolean }): Target {
  return { addresses, isLearned, peer: undefined, failures: 0, dialAtMs: 0, isDialling: false }
}

function fullError(): P2pfsError {
  return new P2pfsError('busy', 'it closed the connection at once: it has as many guests as it takes, or is ending')
}

function isPeerId(text: string): boolean {
  try {
    peerIdFromString(text)
    return true
  } catch {
    return false
  }
}

/** Whether the gate of the other side has refused this host, whatever libp2p has wrapped around that. */
function isDenied(error: unknown): boolean {
  if (isP2pfsError(error, 'denied')) return true
  if (error instanceof AggregateError && error.errors.some((each) => isDenied(each))) return true
  return error instanceof Error && error.cause !== undefined && isDenied(error.cause)
}
