import type { Stream } from '@libp2p/interface'
import type { Bitmap } from '../../../../protocol/bitmap.ts'
import type { Digest } from '../../../../protocol/digest.ts'
import { P2pfsError } from '../../../../protocol/errors.ts'
import type { RegionMessage } from '../../../../protocol/messages/region.ts'
import { isRosterMessage } from '../../../../protocol/messages/roster.ts'
import type { Clock } from '../../../../node/base/clock.ts'
import { Availability } from '../../../../node/peers/availability.ts'
import { Location } from '../../../../node/peers/location/location.ts'
import { Swarms } from '../../../../node/peers/location/swarms.ts'
import { isMember, Peer, type Member } from '../../../../node/peers/peer.ts'
import type { RegionClient } from '../../../../node/peers/region/client.ts'
import { Roster } from '../../../../node/peers/roster/roster.ts'
import { TrafficCounter } from '../../../../node/peers/traffic.ts'
import { createRandom } from '../../../support/random.ts'
import { libp2pId, streamPair } from '../fake-region.ts'

/** Messages that one host has sent. */
export interface Sent {
  region: number
  location: number
  dials: number
}

/** One host of a {@link FakeSwarm}, with the parts that know who holds what. */
export class FakeHost {
  readonly id: string
  readonly roster: Roster
  readonly peers = new Map<string, Peer>()
  readonly kept = new Map<string, number>()
  readonly sent: Sent = { region: 0, location: 0, dials: 0 }
  readonly location: Location
  readonly swarms: Swarms
  readonly availability: Availability
  readonly held = new Map<Digest, Bitmap>()
  /** It answers nobody, and cannot be connected to. */
  isDead = false
  readonly #swarm: FakeSwarm

  constructor(swarm: FakeSwarm, id: string, fullMesh: number) {
    this.#swarm = swarm
    this.id = id
    this.roster = new Roster({ id, name: id, addresses: [] }, { now: swarm.clock.now })
    const { clock, random, signal } = swarm
    const membership = {
      roster: this.roster,
      members: (): Member[] => [...this.peers.values()].filter(isMember),
      connected: () => this.peers.values(),
      reach: async (other: string) => await Promise.resolve(swarm.connect(this, other)),
      keep: (other: string): Disposable => {
        this.kept.set(other, (this.kept.get(other) ?? 0) + 1)
        return { [Symbol.dispose]: () => void this.kept.set(other, this.kept.get(other)! - 1) }
      },
      ban: () => undefined,
    }
    const host = {
      dialProtocol: async (other: { toString: () => string }) => {
        this.sent.location++
        const [near, far] = streamPair()
        void swarm.host(other.toString()).serve(far as unknown as Stream, this.id)
        return await Promise.resolve(near as unknown as Stream)
      },
    }
    this.location = new Location({ host, membership, clock, random, signal }, { fullMesh })
    this.swarms = new Swarms({ location: this.location, membership, clock, signal })
    this.availability = new Availability({ membership, location: this.location, swarms: this.swarms })
  }

  /** Begins to track the segment. */
  track(table: Digest, held: Bitmap): void {
    this.held.set(table, held)
    this.availability.announce(table, held)
  }

  take(table: Digest, index: number): void {
    this.held.get(table)!.set(index)
    this.availability.announceChunks(table, [index])
  }

  async serve(stream: Stream, from: string): Promise<void> {
    if (this.isDead) return
    await this.location.serve(stream, this.peers.get(from)!).catch((error: Error) => stream.abort(error))
  }

  /** The other host is connected from now on: it hears what this one has to say of its chunks. */
  meet(other: FakeHost): void {
    const peer = new Peer(libp2pId(other.id), { total: new TrafficCounter(), now: this.#swarm.clock.now })
    peer.hello = { type: 'hello', region: 'test', name: other.id, addresses: [] }
    this.peers.set(other.id, peer)
    const deliver = (message: RegionMessage): void => {
      this.sent.region++
      setImmediate(() => {
        const from = other.peers.get(this.id)
        if (from !== undefined && !other.isDead && message.type !== 'hello' && !isRosterMessage(message))
          other.availability.update(from, message)
      })
    }
    let isAwake = false
    const client: Pick<RegionClient, 'send' | 'wake' | 'close'> = {
      send: (message) => {
        deliver(message)
        return true
      },
      wake: () => {
        if (isAwake) return
        isAwake = true
        setImmediate(() => {
          isAwake = false
          for (let next = this.availability.next(peer); next !== undefined; next = this.availability.next(peer))
            deliver(next)
        })
      },
      close: () => undefined,
    }
    peer.regionClient = client as RegionClient
    client.wake()
  }
}

/** Hosts that all know of each other, and are connected as they ask to be. */
export class FakeSwarm {
  readonly hosts: FakeHost[]
  readonly clock: Clock
  readonly random: () => number
  readonly signal = new AbortController().signal
  readonly #byId: Map<string, FakeHost>

  /** @param options `clock`: `Availability` has timers of its own, so a test that moves it moves those too */
  constructor(count: number, { clock, fullMesh = 16 }: { clock: Clock; fullMesh?: number }) {
    this.clock = clock
    const random = createRandom(7)
    this.random = () => random.below(1_000_000) / 1_000_000
    this.hosts = Array.from({ length: count }, (_, i) => new FakeHost(this, `host-${i}`, fullMesh))
    this.#byId = new Map(this.hosts.map((host) => [host.id, host]))
    for (const { roster } of this.hosts) for (const { id } of this.hosts) roster.met({ id, name: id, addresses: [] })
  }

  host(id: string): FakeHost {
    return this.#byId.get(id)!
  }

  start(): void {
    for (const { location } of this.hosts) location.start()
  }

  stop(): void {
    for (const { location, swarms, availability } of this.hosts) {
      location.stop()
      swarms.stop()
      availability.stop()
    }
  }

  /** Connects two hosts. @throws unavailable where one is dead */
  connect(from: FakeHost, id: string): Member {
    const to = this.host(id)
    if (to.isDead || from.isDead) throw new P2pfsError('unavailable', 'the host is dead', { peer: id })
    if (!from.peers.has(id)) {
      from.sent.dials++
      from.meet(to)
      to.meet(from)
    }
    return from.peers.get(id) as Member
  }

  /** The host is gone without a word; the others notice only when they ask it. */
  kill(id: string): void {
    const dead = this.host(id)
    dead.isDead = true
    for (const host of this.hosts) host.peers.delete(id)
    dead.peers.clear()
  }

  /** The host is started anew, and knows nothing of what others told it. */
  replace({ id, location, swarms, availability }: FakeHost): void {
    location.stop()
    swarms.stop()
    availability.stop()
    const fresh = new FakeHost(this, id, 16)
    for (const host of this.hosts) {
      host.peers.delete(id)
      fresh.roster.met({ id: host.id, name: host.id, addresses: [] })
    }
    this.hosts[this.hosts.findIndex((host) => host.id === id)] = fresh
    this.#byId.set(id, fresh)
    fresh.location.start()
  }

  /** All others have noticed that a host is gone. */
  bury(id: string): void {
    for (const { roster } of this.hosts) roster.bury(id, 1)
  }
}
