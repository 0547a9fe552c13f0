import type { TestContext } from 'node:test'
import {
  type isMemberRecordSigned,
  signMemberRecord,
  type SignedMemberRecord,
} from '../../../../protocol/member-record.ts'
import type { RosterMessage } from '../../../../protocol/messages/roster.ts'
import { silentLog } from '../../../../node/base/log.ts'
import { Gossip, type GossipPeer } from '../../../../node/peers/roster/gossip.ts'
import { Roster } from '../../../../node/peers/roster/roster.ts'

/** A signature that anybody could make: the tests of signatures use real ones. */
const sign = async (): Promise<Uint8Array> => await Promise.resolve(new Uint8Array(64))

export async function recordOf(
  peer: string,
  { sequence = 1, hasLeft = false, addresses = [`/ip4/10.0.0.1/tcp/1`] } = {},
): Promise<SignedMemberRecord> {
  return await signMemberRecord({ region: 'test', peer, name: peer, addresses, sequence, hasLeft }, sign)
}

/** One host: a roster and its gossip, over connections that the {@link FakeMembers} make. */
export class FakeMember {
  readonly roster: Roster
  readonly gossip: Gossip
  readonly links = new Set<string>()
  /** Messages that it has received. */
  readonly received: { from: string; message: RosterMessage }[] = []
  readonly banned: string[] = []
  isDead = false

  constructor(world: FakeMembers, id: string, { isSigned }: { isSigned: typeof isMemberRecordSigned }) {
    const now = (): number => world.nowMs
    this.roster = new Roster({ id, name: id, addresses: [] }, { now })
    const link = (peer: string): GossipPeer | undefined =>
      this.links.has(peer) ? { id: peer, send: (message) => world.deliver(id, peer, message) } : undefined
    this.gossip = new Gossip({
      roster: this.roster,
      signing: { sign, isSigned },
      connected: link,
      neighbours: () => [...this.links].flatMap((peer) => link(peer) ?? []),
      describe: () => ({ region: 'test', name: id, addresses: [`/ip4/10.0.0.1/tcp/1/p2p/${id}`] }),
      log: silentLog,
      signal: world.stopping.signal,
      now,
      random: () => 0.5,
    })
  }
}

/** Hosts that gossip in virtual time, over the links that a test makes. */
export class FakeMembers {
  nowMs = 0
  readonly hosts = new Map<string, FakeMember>()
  readonly stopping = new AbortController()
  readonly #t: TestContext
  readonly #isSigned: typeof isMemberRecordSigned
  #underWay: (() => void)[] = []

  constructor(t: TestContext, { isSigned = (): boolean => true }: { isSigned?: typeof isMemberRecordSigned } = {}) {
    t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 })
    this.#t = t
    this.#isSigned = isSigned
    t.after(() => this.stopping.abort())
  }

  add(id: string): FakeMember {
    const host = new FakeMember(this, id, { isSigned: this.#isSigned })
    this.hosts.set(id, host)
    return host
  }

  at(id: string): FakeMember {
    return this.hosts.get(id)!
  }

  link(a: string, b: string): void {
    for (const [one, other] of [
      [a, b],
      [b, a],
    ] as const) {
      const { roster, links, gossip } = this.at(one)
      const doubt = roster.doubtOf(other)
      links.add(other)
      roster.met({ id: other, name: other, addresses: [] })
      void gossip.met(other, doubt)
    }
  }

  cut(a: string, b: string): void {
    for (const [one, other] of [
      [a, b],
      [b, a],
    ] as const) {
      this.at(one).links.delete(other)
      if (!this.at(one).isDead) this.at(one).gossip.lost(other)
    }
  }

  /** The host stops: its connections break. */
  kill(id: string): void {
    this.at(id).isDead = true
    for (const other of this.at(id).links) this.cut(id, other)
    this.hosts.delete(id)
  }

  deliver(from: string, to: string, message: RosterMessage): boolean {
    this.#underWay.push(() => {
      const host = this.hosts.get(to)
      if (host?.links.has(from) !== true) return
      host.received.push({ from, message })
      try {
        host.gossip.update(from, message)
      } catch {
        host.banned.push(from)
      }
    })
    return true
  }

  /** Time passes in steps of 50 ms, a message takes one. */
  async pass(ms: number): Promise<void> {
    for (const end = this.nowMs + ms; this.nowMs < end;) {
      this.nowMs += 50
      const arriving = this.#underWay
      this.#underWay = []
      for (const arrive of arriving) arrive()
      this.#t.mock.timers.tick(50)
      for (let i = 0; i < 8; i++) await Promise.resolve()
    }
  }

  /** How many members each living host knows. */
  sizes(): Set<number> {
    return new Set([...this.hosts.values()].map(({ roster }) => roster.size))
  }

  /** A ring of hosts, each also linked to one across. */
  async ring(count: number): Promise<string[]> {
    const ids = Array.from({ length: count }, (_, i) => `h${i}`)
    for (const id of ids) this.add(id)
    for (let i = 0; i < count; i++) this.link(ids[i]!, ids[(i + 1) % count]!)
    for (let i = 0; i < count / 2; i += 3) this.link(ids[i]!, ids[(i + Math.floor(count / 2)) % count]!)
    await this.pass(15_000)
    return ids
  }
}
