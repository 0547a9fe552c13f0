import type { PeerId } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'
import { chunkProtocol } from '../../protocol/messages/chunk.ts'
import type { Endpoint, Side } from './endpoint.ts'
import { CorePool } from './link.ts'
import type { NetworkModel } from './model.ts'
import type { Random } from './process-random.ts'
import type { VirtualClock } from './virtual-clock.ts'

/** A connection that carries nothing any more is noticed by its pings within this (ms): as the product tells libp2p. */
const lostConnectionMs = { min: 5_000, max: 10_000 } as const

/** Messages, and their bytes without headers. */
export interface Sent {
  messages: number
  bytes: number
}

/** A host with its connections. */
type NetworkHost = Endpoint & { sides: () => Iterable<Side> }

/** Hosts, and the ways between them. */
export class SimulatedNetwork<Host extends NetworkHost = NetworkHost> {
  readonly clock: VirtualClock
  readonly model: NetworkModel
  readonly #random: Random
  readonly cores: CorePool | undefined
  readonly #byAddress = new Map<string, Host>()
  readonly #byPeer = new Map<string, Host>()
  messages = 0
  /** Messages of streams that were sent, and their bytes, by protocol. */
  readonly byProtocol = new Map<string, Sent>()

  constructor(clock: VirtualClock, random: Random, model: NetworkModel) {
    this.clock = clock
    this.#random = random
    this.model = model
    this.cores = model.sharedCores === undefined ? undefined : new CorePool(clock, model.sharedCores)
  }

  add(host: Host): void {
    this.#byAddress.set(host.address.toString(), host)
    this.#byPeer.set(host.peerId.toString(), host)
  }

  /** The host with this id, or at this address. */
  find(target: Multiaddr | PeerId): Host | undefined {
    if ('toCID' in target) return this.#byPeer.get(target.toString())
    const text = target.toString()
    const at = text.indexOf('/p2p/')
    const host = this.#byAddress.get(at < 0 ? text : text.slice(0, at))
    return at < 0 || host?.peerId.toString() === text.slice(at + 5) ? host : undefined
  }

  /** How long a dial of addresses where nobody answers takes: a machine that is there refuses at once. */
  unansweredMs(addresses: readonly (Multiaddr | PeerId)[], timeoutMs: number): number {
    return addresses.some((address) => this.find(address)?.isUp === false) ? timeoutMs : 2 * this.model.latencyMs
  }

  /** Calls when something sent now arrives; never where there is no way. */
  deliver(from: Endpoint, to: Endpoint, arrive: () => void): void {
    if (from.part !== to.part) return
    this.clock.after(this.model.latencyMs, () => {
      if (from.part === to.part) arrive()
    })
  }

  /** A stream of this protocol sends a message. */
  count(protocol: string, bytes: number): void {
    const sent = this.byProtocol.get(protocol) ?? { messages: 0, bytes: 0 }
    this.byProtocol.set(protocol, { messages: sent.messages + 1, bytes: sent.bytes + bytes })
  }

  /** Bytes of messages so far that carry no chunks. */
  get controlBytes(): number {
    return [...this.byProtocol].reduce(
      (sum, [protocol, { bytes }]) => sum + (protocol === chunkProtocol ? 0 : bytes),
      0,
    )
  }

  /** Divides the network: hosts of different parts reach each other no more, until they are in one part again. */
  divide(partOf: (host: Host) => number): void {
    for (const host of this.#byPeer.values()) host.part = partOf(host)
    for (const host of this.#byPeer.values())
      for (const side of host.sides()) if (side.remote.part !== host.part) this.breakLater(side)
  }

  /** This side notices some seconds later that nothing comes over the connection. */
  breakLater(side: Side): void {
    const { min, max } = lostConnectionMs
    this.clock.after(min + this.#random.next() * (max - min), () => side.lost())
  }
}
