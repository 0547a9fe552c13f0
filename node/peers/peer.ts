import type { PeerId } from '@libp2p/interface'
import type { Hello } from '../../protocol/messages/region.ts'
import { PeerHoldings } from './peer-holdings.ts'
import { PeerStanding } from './peer-standing.ts'
import type { RegionClient } from './region/client.ts'
import { TrafficCounter } from './traffic.ts'

/** One connected peer. */
export class Peer {
  /** Its peer id, as text. */
  readonly id: string
  /** The same id in libp2p's form, which dialling takes. */
  readonly libp2pId: PeerId
  readonly connectedAtMs: number
  readonly holdings = new PeerHoldings()
  readonly traffic: TrafficCounter
  /** How it has behaved: decides whether it is asked first or last. */
  readonly standing: PeerStanding
  /** The peer's hello; undefined until it arrives. A peer is no member of the region before. */
  hello: Hello | undefined
  /** This host's region stream to the peer; undefined until it is open. */
  regionClient: RegionClient | undefined

  /** @param parts `total`: counts the traffic of all peers; `now`: the clock (ms) */
  constructor(id: PeerId, { total, now }: { total: TrafficCounter; now: () => number }) {
    this.id = id.toString()
    this.libp2pId = id
    this.traffic = new TrafficCounter(total)
    this.connectedAtMs = now()
    this.standing = new PeerStanding({ now })
  }
}

/** A peer that belongs to this host's region. */
export type Member = Peer & { hello: Hello }

export function isMember(peer: Peer): peer is Member {
  return peer.hello !== undefined
}
