import type { Connection, PeerId } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'
import type { Carrier, Endpoint, Side } from './endpoint.ts'
import type { SimulatedNetwork } from './simulated-network.ts'
import { SimulatedStream } from './simulated-stream.ts'

/** Bytes that a message takes on the wire besides its own: headers of yamux, noise, TCP and IP. */
const headerBytes = 80

/** A host, as its connections know it. */
export interface ConnectionEnd extends Endpoint {
  readonly network: Pick<SimulatedNetwork, 'deliver' | 'messages' | 'count' | 'model'>
  /** The other side has opened a stream. */
  accept: (connection: SimulatedConnection, stream: SimulatedStream) => void
  /** The connection has ended. */
  forget: (connection: SimulatedConnection) => void
}

/** One side of a connection between two hosts. Only what the product uses of libp2p's interface is there. */
export class SimulatedConnection implements Carrier<SimulatedStream>, Side {
  readonly own: ConnectionEnd
  readonly remote: ConnectionEnd
  readonly remotePeer: PeerId
  readonly remoteAddr: Multiaddr
  readonly direction: 'inbound' | 'outbound'
  readonly streams: SimulatedStream[] = []
  status: 'open' | 'closed' = 'open'
  other!: SimulatedConnection
  #streamIds = 0

  constructor(own: ConnectionEnd, remote: ConnectionEnd, direction: 'inbound' | 'outbound') {
    this.own = own
    this.remote = remote
    this.remotePeer = remote.peerId
    this.remoteAddr = remote.address
    this.direction = direction
  }

  /** Both sides of a new connection. */
  static pair(dialler: ConnectionEnd, listener: ConnectionEnd): [SimulatedConnection, SimulatedConnection] {
    const near = new SimulatedConnection(dialler, listener, 'outbound')
    const far = new SimulatedConnection(listener, dialler, 'inbound')
    near.other = far
    far.other = near
    return [near, far]
  }

  get asConnection(): Connection {
    return this as unknown as Connection
  }

  /** Opens a stream: the protocol is named with the first message, as libp2p does, so it costs no round trip. */
  newStream(protocol: string): SimulatedStream {
    const [near, far] = SimulatedStream.pair(this, this.other, String(this.#streamIds++), protocol)
    this.send(protocol.length, () => this.remote.accept(this.other, far!))
    return near!
  }

  count(protocol: string, bytes: number): void {
    this.own.network.count(protocol, bytes)
  }

  /**
   * Sends a message: the CPU of this side, its uplink, the way, the other's downlink and CPU.
   * @param arrive called on the other side, unless the connection has ended
   * @param sent called when this side's link has taken it, which is at once where it is idle
   */
  send(bytes: number, arrive: () => void, sent?: () => void): void {
    if (this.status !== 'open') return
    const { own, remote } = this
    const { network } = own
    const size = bytes + headerBytes
    network.messages++
    own.messages++
    own.work(size, () => {
      if (this.status !== 'open') return
      own.uplink.send(this, size, (leftAtMs) => {
        sent?.()
        if (own.part !== remote.part) return
        remote.download(own, size, leftAtMs + network.model.latencyMs, () => {
          if (this.status === 'open') remote.whenRunning(arrive)
        })
      })
    })
  }

  /** Ends the connection on both sides; the other notices when the way allows it. */
  abort(error: Error): void {
    this.#end(error)
    const { other, own, remote } = this
    own.network.deliver(own, remote, () => remote.whenRunning(() => other.#end(error)))
  }

  async close(): Promise<void> {
    this.abort(new Error('connection closed'))
    await Promise.resolve()
  }

  /** This side notices that the other one is gone. */
  lost(): void {
    this.#end(new Error('connection lost'))
  }

  #end(error: Error): void {
    if (this.status === 'closed') return
    this.status = 'closed'
    this.own.uplink.drop(this)
    for (const stream of this.streams.splice(0)) stream.onTransportClosed(error)
    this.own.forget(this)
  }
}
