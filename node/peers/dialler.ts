import type { Libp2p } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { P2pfsError } from '../../protocol/errors.ts'
import { maxMembers, type MemberAddresses } from '../../protocol/messages/region.ts'
import type { Log } from '../base/log.ts'

/** How often this host looks for members that are not connected (ms). */
const tickMs = 250
/** Pause before the same addresses are dialled again (ms): doubles from the first to the last. */
const backoffMs = { first: 1_000, last: 30_000 } as const
/** A member that this host has not reached for so long is forgotten (ms). */
const forgetMs = 10 * 60_000

interface Target {
  addresses: string[]
  /** Peer id; undefined for a bootstrap address that has not answered yet. */
  peer: string | undefined
  isBootstrap: boolean
  dialAtMs: number
  failures: number
  isDialling: boolean
  reachedAtMs: number
}

/** Keeps this host connected to the bootstrap peers and to every member of the region that it hears of. */
export class Dialler {
  readonly #host: Pick<Libp2p, 'peerId' | 'getPeers' | 'dial'>
  readonly #log: Log
  /** By bootstrap address, or by peer id. */
  readonly #targets = new Map<string, Target>()
  readonly #now: () => number
  readonly #random: () => number
  #timer: NodeJS.Timeout | undefined

  /** @throws invalid for a bootstrap address that is no multiaddr */
  constructor(
    {
      host,
      log,
      now = Date.now,
      random = Math.random,
    }: { host: Pick<Libp2p, 'peerId' | 'getPeers' | 'dial'>; log: Log; now?: () => number; random?: () => number },
    bootstrap: readonly string[],
  ) {
    this.#host = host
    this.#log = log
    this.#now = now
    this.#random = random
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
      this.#add(address, { addresses: [address], peer: undefined, isBootstrap: true })
    }
  }

  start(): void {
    this.#timer = setInterval(() => this.#dialMissing(), tickMs)
    this.#dialMissing()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** Connects to a member that another one named, and stays connected to it. */
  learn({ peer, addresses }: MemberAddresses): void {
    if (peer === this.#host.peerId.toString() || addresses.length === 0) return
    const target = this.#targets.get(peer)
    if (target !== undefined) target.addresses = addresses
    else if (this.#targets.size < maxMembers) this.#add(peer, { addresses, peer, isBootstrap: false })
  }

  #add(key: string, target: Pick<Target, 'addresses' | 'peer' | 'isBootstrap'>): void {
    this.#targets.set(key, { ...target, dialAtMs: 0, failures: 0, isDialling: false, reachedAtMs: this.#now() })
  }

  #dialMissing(): void {
    const now = this.#now()
    const connected = new Set(this.#host.getPeers().map((peer) => peer.toString()))
    for (const [key, target] of this.#targets) {
      if (target.peer !== undefined && connected.has(target.peer)) {
        target.reachedAtMs = now
        target.failures = 0
      } else if (!target.isBootstrap && now - target.reachedAtMs > forgetMs) this.#targets.delete(key)
      else if (!target.isDialling && target.dialAtMs <= now) void this.#dial(target)
    }
  }

  async #dial(target: Target): Promise<void> {
    target.isDialling = true
    try {
      const suffix = target.isBootstrap ? '' : `/p2p/${target.peer ?? ''}`
      const addresses = target.addresses.map((address) =>
        multiaddr(address.includes('/p2p/') ? address : `${address}${suffix}`),
      )
      const connection = await this.#host.dial(addresses)
      target.peer = connection.remotePeer.toString()
      target.failures = 0
    } catch (error) {
      target.failures++
      this.#log.debug('peer cannot be reached', { error, addresses: target.addresses })
    } finally {
      target.isDialling = false
      const pauseMs = Math.min(backoffMs.first * 2 ** Math.max(0, target.failures - 1), backoffMs.last)
      target.dialAtMs = this.#now() + pauseMs * (0.5 + this.#random() / 2)
    }
  }
}
