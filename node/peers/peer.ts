import type { PeerId, Stream } from '@libp2p/interface'
import type { Hello } from '../../protocol/messages/region.ts'
import type { ChunkClient } from './chunk/client.ts'
import { PeerHoldings } from './peer-holdings.ts'

export type StreamClass = 'demand' | 'background'

/** In chunks that were exchanged. */
export interface Traffic {
  bytesSent: number
  chunksSent: number
  bytesReceived: number
  chunksReceived: number
}

export const noTraffic = (): Traffic => ({ bytesSent: 0, chunksSent: 0, bytesReceived: 0, chunksReceived: 0 })

/** A peer that fell silent is asked last until it answers, or for so long, milliseconds: if it stays silent, its connection has ended by then. */
const silentMs = 30_000

/** One connected peer. */
export class Peer {
  readonly id: PeerId
  readonly connectedAt = performance.now()
  readonly holdings = new PeerHoldings()
  readonly traffic = noTraffic()
  readonly clients = new Map<StreamClass, Promise<ChunkClient>>()
  /** It fell silent then, while it was asked for something; performance.now(). */
  silentAt = -Infinity
  /** What it told of itself; until then it is no member. */
  hello: Hello | undefined
  region: Stream | undefined
  queue: Promise<void> = Promise.resolve()
  queued = 0

  constructor(id: PeerId) {
    this.id = id
  }

  get isSilent(): boolean {
    return performance.now() - this.silentAt < silentMs
  }
}

/** A peer that is in this host's region. */
export type Member = Peer & { hello: Hello }
