import type { PeerId } from '@libp2p/interface'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Hello } from '../../protocol/messages/region.ts'
import type { HoldingsFeed, TableQuestions } from './announcements.ts'
import { limits } from './limits.ts'
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
  readonly #now: () => number
  #usedAtMs: number
  /** The address from which it connects: peers of one source share what they may ask for. Its id until a connection tells. */
  source: string
  readonly holdings = new PeerHoldings()
  /** Tells the peer of this host's chunks, and asks it for its own; undefined until there is something to tell. */
  feed: HoldingsFeed | undefined
  questions: TableQuestions | undefined
  readonly traffic: TrafficCounter
  /** How it has behaved: decides whether it is asked first or last. */
  readonly standing: PeerStanding
  /** This host's region stream to the peer; undefined until it is open. */
  regionClient: RegionClient | undefined
  /** Whether this host has begun to introduce itself to the peer. */
  isMet = false
  /** Whether the peer's region stream to this host is open. */
  hasRegionStream = false
  /** Sequence number of its record, if it was taken for dead, or suspected, when it said hello. */
  doubt: number | undefined
  #hello: Hello | undefined
  readonly #saidHello = Promise.withResolvers<undefined>()
  #waitingForHello = 0

  /** @param parts `total`: counts the traffic of all peers; `now`: the clock (ms) */
  constructor(id: PeerId, { total, now }: { total: TrafficCounter; now: () => number }) {
    this.id = id.toString()
    this.libp2pId = id
    this.source = this.id
    this.traffic = new TrafficCounter(total)
    this.connectedAtMs = now()
    this.#now = now
    this.#usedAtMs = this.connectedAtMs
    this.standing = new PeerStanding({ now })
  }

  /** The last time at which this host asked it, or sent it something that it had asked for (ms of the clock). */
  get usedAtMs(): number {
    return this.#usedAtMs
  }

  use(): void {
    this.#usedAtMs = this.#now()
  }

  /** The peer's hello; undefined until it arrives. A peer is no member of the region before. */
  get hello(): Hello | undefined {
    return this.#hello
  }

  set hello(hello: Hello) {
    this.#hello = hello
    this.#saidHello.resolve(undefined)
  }

  /**
   * Resolves when the peer has said hello.
   * @throws unavailable where it does not in two seconds, or too many requests wait for it
   */
  async whenMember(): Promise<void> {
    if (this.#hello !== undefined) return
    if (this.#waitingForHello >= limits.streams.beforeHello)
      throw new P2pfsError('unavailable', 'peer asks too much before its hello')
    this.#waitingForHello++
    const late = Promise.withResolvers<never>()
    const error = new P2pfsError('unavailable', 'peer has not said hello')
    const timer = setTimeout(() => late.reject(error), limits.hello.requestWaitMs)
    timer.unref()
    try {
      await Promise.race([this.#saidHello.promise, late.promise])
    } finally {
      this.#waitingForHello--
      clearTimeout(timer)
    }
  }
}

/** A peer that belongs to this host's region. */
export type Member = Peer & { get hello(): Hello }

export function isMember(peer: Peer): peer is Member {
  return peer.hello !== undefined
}
