import assert from 'node:assert/strict'
import { test } from 'node:test'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { Connection, PeerId } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import type { Multiaddr } from '@multiformats/multiaddr'
import { P2pfsError } from '../../../protocol/errors.ts'
import { silentLog, type Log } from '../../../node/base/log.ts'
import { NeighbourMembers } from '../../../node/neighbours/neighbour-members.ts'
import { BanList } from '../../../node/peers/ban-list.ts'
import { TrafficCounter } from '../../../node/peers/traffic.ts'
import { FakeClock, settled } from '../../support/fake-clock.ts'

const newPeerId = async (): Promise<PeerId> => peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
const addressOf = (n: number): string => `/ip4/10.1.${n >> 8}.${n & 255}/tcp/4100`

/** A libp2p host whose dials lead where the test says. */
class FakeHost {
  readonly peerId: PeerId
  readonly dialled: string[] = []
  readonly hungUp: string[] = []
  readonly #peers = new Map<string, PeerId>()
  #onLeave: ((event: { detail: PeerId }) => void) | undefined

  constructor(peerId: PeerId) {
    this.peerId = peerId
  }

  /** From now on somebody is at the address. */
  put(address: string, id: PeerId): void {
    this.#peers.set(address, id)
  }

  async dial(addresses: Multiaddr[]): Promise<Connection> {
    const address = addresses[0]!.toString().replace(/\/p2p\/.*/, '')
    this.dialled.push(address)
    const remotePeer = this.#peers.get(address)
    if (remotePeer === undefined) throw new P2pfsError('unavailable', 'nobody is there')
    return await Promise.resolve({ remotePeer, status: 'open' } as Connection)
  }

  addEventListener(_: string, onLeave: (event: { detail: PeerId }) => void): void {
    this.#onLeave = onLeave
  }

  leave(id: PeerId): void {
    this.#onLeave!({ detail: id })
  }

  async hangUp(id: PeerId): Promise<void> {
    this.hungUp.push(id.toString())
    this.leave(id)
    await Promise.resolve()
  }
}

async function setUp({
  own,
  bootstrap = [addressOf(0)],
  log = silentLog,
}: { own?: PeerId; bootstrap?: string[]; log?: Log } = {}) {
  const host = new FakeHost(own ?? (await newPeerId()))
  const clock = new FakeClock()
  const { signal } = new AbortController()
  const parts = { host: host as never, bans: new BanList(), traffic: new TrafficCounter(), clock, log, signal }
  const members = new NeighbourMembers(parts, { region: 'b', bootstrap })
  const at = async (n: number): Promise<PeerId> => {
    const id = await newPeerId()
    host.put(addressOf(n), id)
    return id
  }
  const connected = (): string[] => members.connected.map(({ id }) => id)
  const dial = async (): Promise<void> => {
    members.dial()
    await settled()
  }
  return { host, clock, members, at, connected, dial }
}

test('members that are named later are learned however many were named before, and few are remembered', async () => {
  const { members, at, dial, connected, clock } = await setUp()
  const first = await at(0)
  await dial()
  // Nobody is where these are said to be.
  for (let n = 1; n <= 200; n++) members.learn({ peer: (await newPeerId()).toString(), addresses: [addressOf(n)] })
  assert.equal(members.known, 1 + 16)
  for (let i = 0; i < 20; i++) await dial()
  const late = await at(201)
  members.learn({ peer: late.toString(), addresses: [addressOf(201)] })
  assert.equal(members.known, 1 + 16)
  await clock.pass(60_000)
  for (let i = 0; i < 20; i++) await dial()
  assert.deepEqual(connected(), [first.toString(), late.toString()])
})

test('of members that were named those that are connected are not forgotten, and those that failed go first', async () => {
  const { members, at, dial, connected } = await setUp()
  await at(0)
  const good = await at(1)
  members.learn({ peer: good.toString(), addresses: [addressOf(1)] })
  await dial()
  assert.ok(connected().includes(good.toString()))
  for (let n = 2; n <= 100; n++) members.learn({ peer: (await newPeerId()).toString(), addresses: [addressOf(n)] })
  assert.doesNotThrow(() => members.get(good.toString()))
  const before = members.known
  members.learn({ peer: good.toString(), addresses: [addressOf(1)] })
  assert.equal(members.known, before)
})

test('each host dials the addresses of the operator in an order of its own, two at a time', async () => {
  const bootstrap = Array.from({ length: 8 }, (_, n) => addressOf(n))
  const firsts = new Set<string>()
  for (let i = 0; i < 40; i++) {
    const own = await newPeerId()
    const { host, members } = await setUp({ own, bootstrap })
    members.dial()
    assert.equal(host.dialled.length, 2)
    firsts.add(host.dialled[0]!)
    const again = await setUp({ own, bootstrap: bootstrap.toReversed() })
    again.members.dial()
    assert.deepEqual(again.host.dialled.slice(0, 2), host.dialled.slice(0, 2))
  }
  // 40 hosts that choose one of eight: that fewer than five are chosen happens once in 10 ** 7.
  assert.ok(firsts.size >= 5, `${firsts.size} of 8 are dialled first`)
})

test('where those that are dialled first are away the next ones are dialled at once', async () => {
  const bootstrap = Array.from({ length: 6 }, (_, n) => addressOf(n))
  const { host, clock, at, dial, connected } = await setUp({ bootstrap })
  await dial()
  assert.deepEqual(host.dialled.toSorted(), bootstrap)
  const here = await at(3)
  await clock.pass(1_000)
  await dial()
  assert.deepEqual(connected(), [here.toString()])
})

test('connections that are not used are closed after two minutes, and those in use are not', async () => {
  const { members, host, clock, at, dial, connected } = await setUp({ bootstrap: [addressOf(0), addressOf(1)] })
  const [used, idle] = [await at(0), await at(1)]
  await dial()
  await clock.pass(60_000)
  await dial()
  assert.equal(host.dialled.length, 2, 'who is connected is not dialled')
  const done = members.use(used.toString(), 1000)
  await clock.pass(59_999)
  assert.equal(connected().length, 2)
  await clock.pass(1)
  assert.deepEqual(host.hungUp, [idle.toString()])
  await clock.pass(600_000)
  assert.deepEqual(connected(), [used.toString()])
  done()
  await clock.pass(130_000)
  assert.deepEqual(connected(), [])
  assert.equal(clock.waiting, 0)
  assert.equal(members.problem, undefined)
  await dial()
  assert.equal(connected().length, 2)
})

test('where all places are taken one that nobody uses makes room for one that was named', async () => {
  const bootstrap = Array.from({ length: 8 }, (_, n) => addressOf(n))
  const { members, clock, at, dial, connected } = await setUp({ bootstrap })
  for (let n = 0; n < 8; n++) await at(n)
  for (let i = 0; i < 8; i++) await dial()
  assert.equal(connected().length, 8)
  const holder = await at(9)
  members.learn({ peer: holder.toString(), addresses: [addressOf(9)] })
  await dial()
  assert.ok(!connected().includes(holder.toString()), 'all were connected a moment ago')
  await clock.pass(10_000)
  await dial()
  assert.equal(connected().length, 8)
  assert.ok(connected().includes(holder.toString()))
})

test('a region that refuses this host is told from one that is away, in the log and the status', async () => {
  const warnings: string[] = []
  const log: Log = { ...silentLog, warn: (message) => void warnings.push(message) }
  const { host, members, dial, clock } = await setUp({ log })
  await dial()
  assert.match(members.problem!, /it cannot be reached: nobody is there/)
  const refuse = async (): Promise<never> =>
    await Promise.reject(
      new AggregateError([new Error('the dial failed', { cause: new P2pfsError('denied', 'not with this key') })]),
    )
  host.dial = refuse
  await clock.pass(1_000)
  await dial()
  assert.match(members.problem!, /does not take this host as a guest/)
  assert.deepEqual(warnings, ['neighbour region cannot be reached; look at its address'])
  const second = await setUp({ log })
  second.host.dial = refuse
  await second.dial()
  assert.equal(
    warnings[1],
    'neighbour region refuses this host; compare --neighbour-key-file with its --guest-key-file',
  )
  const full = await setUp({ log })
  const id = await full.at(0)
  await full.dial()
  full.host.leave(id)
  assert.match(full.members.problem!, /as many guests as it takes/)
})

test('a member that is banned is not dialled until its ban is over', async () => {
  const { members, host, clock, at, dial } = await setUp()
  const bad = await at(0)
  await dial()
  members.ban(members.get(bad.toString()), new P2pfsError('invalid', 'wrong bytes'))
  assert.deepEqual(members.connected, [])
  await clock.pass(9 * 60_000)
  await dial()
  assert.equal(host.dialled.length, 1)
  await clock.pass(60_000)
  await dial()
  assert.equal(host.dialled.length, 2)
})

test('who waits for a connection waits while one is being made, for a second at most', async () => {
  const { signal } = new AbortController()
  const { host, members, clock, at, connected } = await setUp()
  const isOver = (waiting: Promise<void>): (() => boolean) => {
    let over = false
    waiting.then(() => (over = true)).catch(() => (over = true))
    return () => over
  }
  await members.whenConnected({ signal })
  const id = await at(0)
  const dial = Promise.withResolvers<Connection>()
  host.dial = async () => await dial.promise
  members.dial()
  const first = isOver(members.whenConnected({ signal }))
  const ended = new AbortController()
  const second = members.whenConnected({ signal: ended.signal })
  await clock.pass(999)
  assert.equal(first(), false)
  ended.abort(new P2pfsError('closed', 'as the test wants it'))
  await assert.rejects(second, { code: 'closed' })
  await clock.pass(1)
  assert.equal(first(), true)
  const third = isOver(members.whenConnected({ signal }))
  await clock.pass(10)
  assert.equal(third(), false)
  dial.resolve({ remotePeer: id, status: 'open' } as Connection)
  await settled()
  assert.equal(third(), true)
  assert.deepEqual(connected(), [id.toString()])
})
