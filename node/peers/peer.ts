import type { PeerId } from '@libp2p/interface'
import type { Hello } from '../../protocol/messages/region.ts'
import { PeerHoldings } from './peer-holdings.ts'
import type { RegionClient } from './region/client.ts'
import { TrafficCounter } from './traffic.ts'

/**
 * How long a peer that fell silent is asked last, unless it answers before (ms). A connection whose peer stays silent
 * has ended by then.
 */
const silentMs = 30_000

/** One connected peer. */
export class Peer {
  /** Its peer id, as text. */
  readonly id: string
  /** The same id in libp2p's form, which dialling takes. */
  readonly libp2pId: PeerId
  readonly connectedAtMs: number
  readonly holdings = new PeerHoldings()
  readonly traffic: TrafficCounter
  /** The peer's hello; undefined until it arrives. A peer is no member of the region before. */
  hello: Hello | undefined
  /** This host's region stream to the peer; undefined until it is open. */
  regionClient: RegionClient | undefined
  readonly #now: () => number
  #silentUntilMs = -Infinity

  /** @param parts `total`: counts the traffic of all peers; `now`: the clock (ms) */
  constructor(id: PeerId, { total, now }: { total: TrafficCounter; now: () => number }) {
    this.id = id.toString()
    this.libp2pId = id
    this.traffic = new TrafficCounter(total)
    this.connectedAtMs = now()
    this.#now = now
  }

  /** Whether the peer fell silent a short time ago while this host waited for an answer. */
  get isSilent(): boolean {
    return this.#now() < this.#silentUntilMs
  }

  fellSilent(): void {
    this.#silentUntilMs = this.#now() + silentMs
  }

  answered(): void {
    this.#silentUntilMs = -Infinity
  }
}

/** A peer that belongs to this host's region. */
export type Member = Peer & { hello: Hello }

export function isMember(peer: Peer): peer is Member {
  return peer.hello !== undefined
}
