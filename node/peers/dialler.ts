import type { Libp2p } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { P2pfsError } from '../../protocol/errors.ts'
import { maxMembers, type Member } from '../../protocol/messages/region.ts'
import type { Log } from '../base/log.ts'

/** Between looks at who is not connected, milliseconds. */
const tickMs = 250
/** Between two dials of the same address: doubled from the first to the last, milliseconds. */
const backoffMs = { first: 1_000, last: 30_000 } as const
/** A member that nobody has been able to reach for this long is forgotten, milliseconds. */
const forgetMs = 10 * 60_000

interface Target {
  addresses: string[]
  /** Known for members; for a bootstrap address once it has answered. */
  peer: string | undefined
  bootstrap: boolean
  dialAt: number
  failures: number
  dialling: boolean
  reachedAt: number
}

/** Keeps this host connected to the bootstrap peers and to every member of the region that it hears of. */
export class Dialler {
  readonly #host: Libp2p
  readonly #log: Log
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
    }: { host: Libp2p; log: Log; now?: () => number; random?: () => number },
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
      this.#targets.set(address, {
        addresses: [address],
        peer: undefined,
        bootstrap: true,
        dialAt: 0,
        failures: 0,
        dialling: false,
        reachedAt: now(),
      })
    }
  }

  start(): void {
    this.#timer = setInterval(() => this.#look(), tickMs)
    this.#look()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** Another member says that this one is there. */
  learn({ peer, addresses }: Member): void {
    if (peer === this.#host.peerId.toString() || addresses.length === 0) return
    const known = this.#targets.get(peer)
    if (known !== undefined) known.addresses = addresses
    else if (this.#targets.size < maxMembers) {
      this.#targets.set(peer, {
        addresses,
        peer,
        bootstrap: false,
        dialAt: 0,
        failures: 0,
        dialling: false,
        reachedAt: this.#now(),
      })
    }
  }

  #look(): void {
    const now = this.#now()
    const connected = new Set(this.#host.getPeers().map((peer) => peer.toString()))
    for (const [key, target] of this.#targets) {
      if (target.peer !== undefined && connected.has(target.peer)) {
        target.reachedAt = now
        target.failures = 0
      } else if (!target.bootstrap && now - target.reachedAt > forgetMs) this.#targets.delete(key)
      else if (!target.dialling && target.dialAt <= now) void this.#dial(target)
    }
  }

  async #dial(target: Target): Promise<void> {
    target.dialling = true
    try {
      const suffix = target.bootstrap ? '' : `/p2p/${target.peer ?? ''}`
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
      target.dialling = false
      const pause = Math.min(backoffMs.first * 2 ** Math.max(0, target.failures - 1), backoffMs.last)
      target.dialAt = this.#now() + pause * (0.5 + this.#random() / 2)
    }
  }
}
