import type { Libp2p, PeerId } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { P2pfsError } from '../../protocol/errors.ts'
import type { MemberAddresses } from '../../protocol/messages/region.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { Log } from '../base/log.ts'
import { DialAllowance } from './dial-allowance.ts'
import { limits } from './limits.ts'

/** How often this host looks for members that are not connected (ms). */
const tickMs = 250
/** Pause before the same addresses are dialled again (ms): doubles from the first to the last. */
const backoffMs = { first: 1_000, last: 30_000 } as const
/** A connection that lasts so long shows that the peer is well: the pause is the first again when it ends (ms). */
const stableMs = 10_000

interface Target {
  /** Peer id; undefined for a bootstrap address that has not answered yet. */
  peer: string | undefined
  /** The address that the operator has given; undefined for a target that is no bootstrap peer. */
  bootstrap: string | undefined
  /** The addresses of the member's own last hello. */
  addresses: string[]
  /** Addresses that others tell of a member that has not spoken for itself, by the teller's id. */
  hints: Map<string, string[]>
  /** Whether the peer has shown that it exists: it has said hello, or answered a dial. */
  hasSpoken: boolean
  /** Whether a dial of its addresses has led to it. */
  isProven: boolean
  dialAtMs: number
  failures: number
  isDialling: boolean
  connectedAtMs: number | undefined
  reachedAtMs: number
}

export interface DiallerParts {
  host: Pick<Libp2p, 'peerId' | 'getPeers' | 'dial'>
  log: Log
  now?: () => number
  random?: () => number
}

export interface DiallerOptions {
  /** Multiaddrs of members to meet first. */
  bootstrap: readonly string[]
  /** Multiaddrs at which this host listens: they say which classes of addresses are dialled. */
  listen: readonly string[]
}

/**
 * Keeps this host connected to the bootstrap peers and to the members of the region. A member tells its addresses itself;
 * those that others tell of it are hints for the first dial. The operator's addresses are always dialled, those that peers
 * tell only as far as {@link DialAllowance} lets.
 */
export class Dialler {
  readonly #host: DiallerParts['host']
  readonly #log: Log
  /** By bootstrap address, or by peer id. */
  readonly #targets = new Map<string, Target>()
  /** Members that others have named and that have not spoken for themselves, by the id of who named them first. */
  readonly #hinted = new Map<string, Set<string>>()
  readonly #avoided = new ExpiringMap<string>({ maxEntries: limits.members.inAll })
  readonly #allowance: DialAllowance
  readonly #now: () => number
  readonly #random: () => number
  #timer: NodeJS.Timeout | undefined
  /** Whether a member is not dialled yet because of what dials it may cost. */
  #isHeldBack = false
  #next: NodeJS.Immediate | undefined
  #isWanted: (peer: string) => boolean = () => true

  /** @throws invalid for a bootstrap address that is no multiaddr */
  constructor(
    { host, log, now = Date.now, random = Math.random }: DiallerParts,
    { bootstrap, listen }: DiallerOptions,
  ) {
    this.#host = host
    this.#log = log
    this.#now = now
    this.#random = random
    this.#allowance = new DialAllowance({ now }, { listen })
    for (const address of bootstrap) {
      try {
        multiaddr(address)
      } catch (cause) {
        throw new P2pfsError(
          'invalid',
          `not a multiaddr: ${address}; a bootstrap address looks like /ip4/10.0.0.1/tcp/4100`,
          { cause },
        )
      }
      this.#add(address, { bootstrap: address })
    }
  }

  start(): void {
    this.#timer = setInterval(() => this.#dialMissing(), tickMs)
    this.#dialMissing()
  }

  stop(): void {
    clearInterval(this.#timer)
    clearImmediate(this.#next)
    this.#timer = undefined
  }

  /** A connected member says where it can be dialled: this host stays connected to it. */
  learn({ peer, addresses }: MemberAddresses): void {
    if (peer === this.#host.peerId.toString()) return
    const usable = this.#usable(addresses)
    const target = this.#targets.get(peer)
    if (target !== undefined) {
      this.#forgetHints(peer, target)
      if (String(target.addresses) !== String(usable)) target.isProven = false
      target.addresses = usable
      target.hasSpoken = true
      target.reachedAtMs = this.#now()
    } else if (usable.length > 0 && this.#makeRoom()) this.#add(peer, { peer, addresses: usable, hasSpoken: true })
  }

  /** A peer says where another member can be dialled. It counts for nothing where that one has spoken for itself. */
  hear({ peer, addresses }: MemberAddresses, teller: string): void {
    if (peer === this.#host.peerId.toString() || peer === teller) return
    const usable = this.#usable(addresses)
    if (usable.length === 0) return
    const target = this.#targets.get(peer)
    if (target === undefined) {
      if ((this.#hinted.get(teller)?.size ?? 0) >= limits.members.hintsPerTeller || !this.#makeRoom()) return
      this.#add(peer, { peer, hints: new Map([[teller, usable]]) })
      const hinted = this.#hinted.get(teller) ?? new Set()
      this.#hinted.set(teller, hinted.add(peer))
    } else if (!target.hasSpoken) {
      const isKnown = target.hints.has(teller)
      if (isKnown || target.hints.size < limits.members.tellersPerMember) target.hints.set(teller, usable)
    }
  }

  /**
   * Dials a member now, at the addresses that it tells itself, as far as {@link DialAllowance} goes.
   * @throws unavailable where it cannot be reached, or may not be dialled now
   */
  async reach({ peer, addresses }: MemberAddresses, { signal }: { signal: AbortSignal }): Promise<PeerId> {
    const unreachable = (why: string, cause?: unknown): P2pfsError =>
      new P2pfsError('unavailable', `the member cannot be reached: ${why}`, { peer, cause })
    if (this.#avoided.has(peer)) throw unreachable('it is avoided for a while')
    const allowed = this.#allowance.take(peer, this.#usable(addresses), { isProven: false })
    if (allowed === undefined) throw unreachable('its addresses may not be dialled now')
    let isConnected = false
    try {
      const full = allowed.addresses.map((address) => multiaddr(`${address}/p2p/${peer}`))
      const { remotePeer } = await this.#host.dial(full, { signal })
      isConnected = true
      return remotePeer
    } catch (cause) {
      signal.throwIfAborted()
      throw unreachable((cause as Error).message, cause)
    } finally {
      allowed.end(isConnected)
    }
  }

  /** From now on only peers for which this is true are dialled without being asked for; and bootstrap peers, when alone. */
  want(isWanted: (peer: string) => boolean): void {
    this.#isWanted = isWanted
  }

  /** Leaves a peer undialled for a while; a bootstrap peer is dialled seldom. */
  avoid(peer: string, forMs: number): void {
    this.#avoided.set(peer, true, forMs)
    const target = this.#targets.get(peer)
    if (target !== undefined) this.#drop(peer, target)
  }

  /** Members and bootstrap peers that are remembered. */
  get size(): number {
    return this.#targets.size
  }

  #usable(addresses: readonly string[]): string[] {
    return addresses.filter((address) => this.#allowance.isDiallable(address)).slice(0, limits.members.dialledAddresses)
  }

  #add(key: string, target: Partial<Pick<Target, 'peer' | 'addresses' | 'bootstrap' | 'hints' | 'hasSpoken'>>): void {
    this.#targets.set(key, {
      peer: undefined,
      bootstrap: undefined,
      addresses: [],
      hints: new Map(),
      hasSpoken: false,
      ...target,
      isProven: false,
      dialAtMs: 0,
      failures: 0,
      isDialling: false,
      connectedAtMs: undefined,
      reachedAtMs: this.#now(),
    })
  }

  /**
   * Where the bound is reached, forgets a member that never spoke for itself, of the peer that has named most of them; or
   * else the one that was reached the longest time ago.
   * @returns whether there is room for one more
   */
  #makeRoom(): boolean {
    if (this.#targets.size < limits.members.inAll) return true
    let most: Set<string> | undefined
    for (const hinted of this.#hinted.values()) if (most === undefined || hinted.size > most.size) most = hinted
    let [key] = most ?? []
    if (key === undefined) {
      const candidates = [...this.#targets].filter(
        ([, target]) => target.bootstrap === undefined && target.connectedAtMs === undefined,
      )
      let oldestMs = Infinity
      for (const [candidate, { reachedAtMs }] of candidates) {
        if (reachedAtMs < oldestMs) [key, oldestMs] = [candidate, reachedAtMs]
      }
    }
    const target = key === undefined ? undefined : this.#targets.get(key)
    if (key === undefined || target === undefined) return false
    this.#drop(key, target)
    return true
  }

  #drop(key: string, target: Target): void {
    this.#targets.delete(key)
    this.#forgetHints(key, target)
  }

  #forgetHints(key: string, target: Target): void {
    target.hints.clear()
    for (const [teller, hinted] of this.#hinted) {
      hinted.delete(key)
      if (hinted.size === 0) this.#hinted.delete(teller)
    }
  }

  #dialMissing(): void {
    clearImmediate(this.#next)
    this.#next = undefined
    this.#isHeldBack = false
    const now = this.#now()
    const connected = new Set(this.#host.getPeers().map((peer) => peer.toString()))
    for (const [key, target] of this.#targets) {
      if (target.peer !== undefined && connected.has(target.peer)) {
        target.reachedAtMs = now
        target.connectedAtMs ??= now
        if (now - target.connectedAtMs >= stableMs) target.failures = 0
        continue
      }
      target.connectedAtMs = undefined
      const forgetMs = target.hasSpoken ? limits.members.forgetMs : limits.members.forgetUnprovenMs
      if (target.bootstrap === undefined && now - target.reachedAtMs > forgetMs) this.#drop(key, target)
      else if (!target.isDialling && target.dialAtMs <= now && (connected.size === 0 || this.#isMissed(target)))
        this.#dial(target)
    }
  }

  #isMissed({ peer }: Target): boolean {
    return peer === undefined || this.#isWanted(peer)
  }

  #dial(target: Target): void {
    const { bootstrap, peer = '' } = target
    if (bootstrap !== undefined) return void this.#connect(target, [bootstrap])
    if (this.#avoided.has(peer)) return
    const [hint] = target.hints
    const teller = target.addresses.length > 0 ? peer : hint?.[0]
    const addresses = target.addresses.length > 0 ? target.addresses : hint?.[1]
    if (teller === undefined || addresses === undefined) return
    const allowed = this.#allowance.take(teller, addresses, { isProven: target.isProven })
    if (allowed === undefined) {
      this.#isHeldBack = true
      return
    }
    const full = allowed.addresses.map((address) => `${address}/p2p/${peer}`)
    void this.#connect(target, full).then((isConnected) => {
      allowed.end(isConnected)
      // Others may be dialled for what this one has given back.
      if (isConnected && this.#isHeldBack && this.#timer !== undefined)
        this.#next ??= setImmediate(() => this.#dialMissing())
      // The hint of one teller may be a lie or old: the next teller is believed.
      if (!isConnected && hint !== undefined && target.hints.size > 1) target.hints.delete(hint[0])
    })
  }

  async #connect(target: Target, addresses: string[]): Promise<boolean> {
    target.isDialling = true
    target.failures++
    try {
      const { remotePeer } = await this.#host.dial(addresses.map((address) => multiaddr(address)))
      target.peer = remotePeer.toString()
      target.hasSpoken = true
      target.isProven = true
      return true
    } catch (error) {
      this.#log.debug('peer cannot be reached', { error, addresses })
      return false
    } finally {
      target.isDialling = false
      const isAvoided = target.peer !== undefined && this.#avoided.has(target.peer)
      const pauseMs = isAvoided
        ? backoffMs.last
        : Math.min(backoffMs.first * 2 ** Math.max(0, target.failures - 1), backoffMs.last)
      target.dialAtMs = this.#now() + pauseMs * (0.5 + this.#random() / 2)
    }
  }
}
