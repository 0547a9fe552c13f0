import type { PeerId } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'
import type { Uplink } from './link.ts'

/** A host as the network knows it, and as its connections do. */
export interface Endpoint {
  readonly peerId: PeerId
  readonly address: Multiaddr
  readonly uplink: Pick<Uplink, 'send' | 'drop'>
  isUp: boolean
  /** Which part of a divided network it is in. */
  part: number
  /** Messages that it has sent. */
  messages: number
  /** Takes CPU time for one message of so many bytes. */
  work: (bytes: number, done: () => void) => void
  /** A message comes over the downlink from a time on (ms), and is taken by the CPU; nothing happens where the way is cut by then. */
  download: (from: Pick<Endpoint, 'part'> | undefined, bytes: number, fromMs: number, done: () => void) => void
  /** Calls at once, or when the host runs again; never where it is down. */
  whenRunning: (call: () => void) => void
}

/** The connection that carries the messages of streams. */
export interface Carrier<Stream> {
  /** Streams that are open. */
  readonly streams: Stream[]
  /** A message of this protocol is sent. */
  count: (protocol: string, bytes: number) => void
  /**
   * @param arrive called on the other side, unless the connection has ended
   * @param sent called when this side's link has taken it
   */
  send: (bytes: number, arrive: () => void, sent?: () => void) => void
}

/** One side of a connection, as the network knows it. */
export interface Side {
  readonly remote: Endpoint
  /** This side notices that the other one is gone. */
  lost: () => void
}
