import type { Connection, Libp2p, PeerId, Stream } from '@libp2p/interface'
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr'
import type { Endpoint } from './endpoint.ts'
import { PooledWorker, Uplink, Worker, streamRate, transferMs } from './link.ts'
import { SimulatedConnection, type ConnectionEnd } from './simulated-connection.ts'
import type { SimulatedNetwork } from './simulated-network.ts'
import type { SimulatedStream } from './simulated-stream.ts'

type Handler = (stream: Stream, connection: Connection) => unknown

/** How long a dial of a host that does not answer takes (ms): as the product tells libp2p. */
const dialTimeoutMs = 3_000

/** The address on which the host with this number listens. */
export function addressOf(index: number): Multiaddr {
  return multiaddr(`/ip4/10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}/tcp/4100`)
}

/** A libp2p host of the modelled network: what the product uses of libp2p, and the machine that it runs on. */
export class SimulatedHost extends EventTarget implements ConnectionEnd {
  readonly network: SimulatedNetwork<SimulatedHost>
  readonly peerId: PeerId
  readonly address: Multiaddr
  readonly index: number
  readonly uplink: Uplink
  readonly #downlink: Worker
  readonly cpu: Pick<Worker, 'do' | 'busyMs'>
  readonly #connections = new Map<string, SimulatedConnection[]>()
  readonly #handlers = new Map<string, Handler>()
  readonly #isBarred: (peerId: string) => boolean
  /** Messages that arrive while the host is stopped (SIGSTOP); undefined while it runs. */
  #held: (() => void)[] | undefined
  isUp = true
  /** Which part of a divided network it is in. */
  part = 0
  #downBitsPerSecond: number
  messages = 0

  constructor(
    network: SimulatedNetwork<SimulatedHost>,
    { index, peerId, isBarred }: { index: number; peerId: PeerId; isBarred: (peerId: string) => boolean },
  ) {
    super()
    this.network = network
    this.index = index
    this.peerId = peerId
    this.#isBarred = isBarred
    const { clock, model } = network
    this.address = addressOf(index)
    this.#downBitsPerSecond = streamRate(model.hostBitsPerSecond)
    this.uplink = new Uplink(clock, this.#downBitsPerSecond)
    this.#downlink = new Worker(clock)
    this.cpu = network.cores === undefined ? new Worker(clock) : new PooledWorker(network.cores)
  }

  get asLibp2p(): Libp2p {
    return this as unknown as Libp2p
  }

  start(): void {
    this.network.add(this)
  }

  async stop(): Promise<void> {
    this.isUp = false
    for (const side of this.sides()) side.abort(new Error('host stopped'))
    await Promise.resolve()
  }

  /** Power is lost: nobody is told. The others notice when pings stay unanswered. */
  crash(): void {
    this.isUp = false
    for (const connection of this.sides()) {
      this.network.breakLater(connection.other)
      connection.lost()
    }
  }

  setRate(bitsPerSecond: number): void {
    this.#downBitsPerSecond = streamRate(bitsPerSecond)
    this.uplink.bitsPerSecond = this.#downBitsPerSecond
  }

  /** SIGSTOP: what arrives waits. Its own timers go on, which nobody sees. */
  suspend(): void {
    this.#held ??= []
  }

  resume(): void {
    const held = this.#held ?? []
    this.#held = undefined
    for (const call of held) call()
  }

  whenRunning(call: () => void): void {
    if (this.#held === undefined) {
      if (this.isUp) call()
    } else this.#held.push(call)
  }

  /** Takes CPU time for one message of so many bytes. */
  work(bytes: number, done: () => void): void {
    const { cpuPerMessageMs, cpuPerByteMs } = this.network.model
    const run = (): void => this.cpu.do(cpuPerMessageMs + bytes * cpuPerByteMs, done)
    this.whenRunning(run)
  }

  download(from: Pick<Endpoint, 'part'> | undefined, bytes: number, fromMs: number, done: () => void): void {
    const come = (): void => {
      if (from === undefined || from.part === this.part) this.work(bytes, done)
    }
    this.#downlink.do(transferMs(bytes, this.#downBitsPerSecond), come, fromMs)
  }

  async handle(protocol: string, handler: Handler): Promise<void> {
    this.#handlers.set(protocol, handler)
    await Promise.resolve()
  }

  getMultiaddrs(): Multiaddr[] {
    return [this.address]
  }

  /** This host's sides of its connections. */
  sides(): SimulatedConnection[] {
    return [...this.#connections.values()].flat()
  }

  getPeers(): PeerId[] {
    return [...this.#connections.values()].map(([connection]) => connection!.remotePeer)
  }

  getConnections(peer?: PeerId): Connection[] {
    const found = peer === undefined ? this.sides() : (this.#connections.get(peer.toString()) ?? [])
    return found.map(({ asConnection }) => asConnection)
  }

  async hangUp(peer: PeerId): Promise<void> {
    for (const connection of this.#connections.get(peer.toString())?.slice() ?? [])
      connection.abort(new Error('hung up'))
    await Promise.resolve()
  }

  /** Dials one of the addresses. @throws where nobody answers there, or another than who is named */
  async dial(target: Multiaddr | Multiaddr[] | PeerId, { signal }: { signal?: AbortSignal } = {}): Promise<Connection> {
    const addresses = Array.isArray(target) ? target : [target]
    const known = addresses
      .map((address) => this.network.find(address))
      .find((host) => host !== undefined && host.isUp && !this.#isBarred(host.peerId.toString()))
    if (known === undefined || known === this) {
      await this.#pause(known === this ? 0 : this.network.unansweredMs(addresses, dialTimeoutMs), signal)
      throw new Error('nobody answers at these addresses')
    }
    const open = this.#connections.get(known.peerId.toString())?.[0]
    if (open !== undefined) return open.asConnection
    return await this.#connect(known, signal)
  }

  async dialProtocol(
    target: PeerId | Multiaddr | Multiaddr[],
    protocol: string | string[],
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<Stream> {
    signal?.throwIfAborted()
    await this.dial(target, { ...(signal && { signal }) })
    const peer = 'toCID' in target ? target.toString() : undefined
    const host = peer === undefined ? this.network.find((target as Multiaddr[])[0]!) : undefined
    const [connection] = this.#connections.get(peer ?? host!.peerId.toString()) ?? []
    if (connection === undefined) throw new Error('connection has ended')
    return connection.newStream(Array.isArray(protocol) ? protocol[0]! : protocol)
  }

  /** A stream that the other side has opened. */
  accept(connection: SimulatedConnection, stream: SimulatedStream): void {
    const handler = this.#handlers.get(stream.protocol)
    if (handler === undefined) stream.abort(new Error(`protocol ${stream.protocol} is not served`))
    else void Promise.resolve(handler(stream, connection.asConnection)).catch(() => undefined)
  }

  forget(connection: SimulatedConnection): void {
    const peer = connection.remotePeer.toString()
    const left = (this.#connections.get(peer) ?? []).filter((open) => open !== connection)
    if (left.length > 0) this.#connections.set(peer, left)
    else this.#connections.delete(peer)
    this.dispatchEvent(new CustomEvent('connection:close', { detail: connection.asConnection }))
    if (left.length === 0) this.dispatchEvent(new CustomEvent('peer:disconnect', { detail: connection.remotePeer }))
  }

  /** Three round trips: TCP, the proof of the region's key, noise with yamux; and the CPU of both sides. */
  async #connect(remote: SimulatedHost, signal: AbortSignal | undefined): Promise<Connection> {
    const { network } = this
    const established = Promise.withResolvers<SimulatedConnection>()
    const giveUp = network.clock.after(dialTimeoutMs, () => established.reject(new Error('dial timed out')))
    const onAbort = (): void => established.reject(signal?.reason as Error)
    signal?.addEventListener('abort', onAbort, { once: true })
    const { latencyMs, cpuPerHandshakeMs } = network.model
    network.clock.after(4 * latencyMs, () =>
      network.deliver(this, remote, () =>
        remote.whenRunning(() =>
          remote.cpu.do(cpuPerHandshakeMs, () =>
            network.deliver(remote, this, () =>
              this.cpu.do(cpuPerHandshakeMs, () => {
                if (!this.isUp || !remote.isUp || giveUp.isCancelled) return
                const [near, far] = SimulatedConnection.pair(this, remote)
                this.#opened(near)
                remote.#opened(far)
                established.resolve(near)
              }),
            ),
          ),
        ),
      ),
    )
    try {
      return (await established.promise).asConnection
    } finally {
      giveUp.cancel()
      signal?.removeEventListener('abort', onAbort)
    }
  }

  #opened(connection: SimulatedConnection): void {
    const peer = connection.remotePeer.toString()
    const open = this.#connections.get(peer)
    if (open === undefined) this.#connections.set(peer, [connection])
    else open.push(connection)
    this.dispatchEvent(new CustomEvent('connection:open', { detail: connection.asConnection }))
    if (open === undefined) this.dispatchEvent(new CustomEvent('peer:connect', { detail: connection.remotePeer }))
  }

  async #pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
    const over = Promise.withResolvers<void>()
    const event = this.network.clock.after(ms, over.resolve)
    const onAbort = (): void => over.reject(signal?.reason as Error)
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      await over.promise
    } finally {
      event.cancel()
      signal?.removeEventListener('abort', onAbort)
    }
  }
}
