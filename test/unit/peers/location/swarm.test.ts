import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { Bitmap } from '../../../../protocol/bitmap.ts'
import { digestOf, type Digest } from '../../../../protocol/digest.ts'
import { holds } from '../../../../protocol/messages/location.ts'
import type { Clock } from '../../../../node/base/clock.ts'
import { choose, neighbours } from '../../../../node/peers/location/swarms.ts'
import { FakeSwarm, type FakeHost, type Sent } from './fake-swarm.ts'

const table = digestOf(Buffer.from('segment'))
const other = digestOf(Buffer.from('another segment'))
const { signal } = new AbortController()
const count = 64

const full = (): Bitmap => {
  const held = new Bitmap(count)
  for (let index = 0; index < count; index++) held.set(index)
  return held
}

/** The swarm of a segment is joined, and its members have answered, when the segment has been fetched for so long (ms). */
const joinedMs = 3_300

/** Hosts of a region, whose time a test lets pass. */
class World {
  readonly swarm: FakeSwarm
  readonly #t: TestContext

  constructor(t: TestContext, hosts: number) {
    this.#t = t
    t.mock.timers.enable({ apis: ['setTimeout', 'Date'] })
    const clock: Clock = {
      now: () => Date.now(),
      after: (ms, call) => {
        const timer = setTimeout(call, ms)
        return () => clearTimeout(timer)
      },
    }
    this.swarm = new FakeSwarm(hosts, { clock })
    t.after(() => this.swarm.stop())
  }

  get hosts(): FakeHost[] {
    return this.swarm.hosts
  }

  async pass(ms: number, { stepMs = 10 } = {}): Promise<void> {
    for (let passed = 0; passed < ms; passed += stepMs) {
      this.#t.mock.timers.tick(stepMs)
      // Each message, and the answer to it, takes a turn.
      for (let turn = 0; turn < 6; turn++) await new Promise(setImmediate)
    }
  }

  /** Runs the task while time passes. @returns what it took (ms) */
  async timed(task: Promise<unknown>): Promise<number> {
    const startMs = Date.now()
    let isOver = false
    void task.finally(() => (isOver = true))
    while (!isOver) await this.pass(10)
    return Date.now() - startMs
  }

  /** The hosts fetch the segments for so long that they join their swarms. */
  async join(hosts: readonly FakeHost[], ids: readonly Digest[] = [table]): Promise<void> {
    for (const { availability } of hosts) for (const id of ids) void availability.whenAsked(id, { signal })
    await this.pass(joinedMs)
  }

  /** The hosts fetch the segment at once: each takes one chunk that a neighbour holds, again and again. @returns rounds */
  async spread(hosts: readonly FakeHost[], id: Digest): Promise<number> {
    for (let round = 1; round < 20 * count; round++) {
      let missing = 0
      for (const [at, host] of hosts.entries()) {
        const held = host.held.get(id)!
        for (let i = 0; i < count; i++) {
          const index = (i + at * 7) % count
          if (held.get(index)) continue
          missing++
          void host.availability.whenAsked(id, { signal, index })
          if (host.availability.holders(id, index).length === 0) continue
          host.take(id, index)
          break
        }
      }
      if (missing === 0) return round
      await this.pass(100, { stepMs: 20 })
    }
    throw new Error('the segment does not spread')
  }
}

const total = (hosts: readonly FakeHost[], of: keyof Sent): number => hosts.reduce((sum, { sent }) => sum + sent[of], 0)

test('in a region of sixteen nobody asks a tracker or joins a swarm: all that are connected are asked at once', async (t) => {
  const world = new World(t, 16)
  const { hosts, swarm } = world
  for (const host of hosts) for (const { id } of hosts) if (id !== host.id) swarm.connect(host, id)
  swarm.start()
  hosts[0]!.track(table, full())
  for (const host of hosts.slice(1)) host.track(table, new Bitmap(count))
  const ms = await world.timed(
    Promise.all(hosts.map(async ({ availability }) => await availability.whenAsked(table, { signal, index: 3 }))),
  )
  assert.ok(ms <= 20, `${ms} ms`)
  for (const { availability } of hosts.slice(1)) assert.deepEqual(availability.holders(table, 3), ['host-0'])
  await world.pass(60_000, { stepMs: 1_000 })
  assert.equal(total(hosts, 'location'), 0)
  assert.deepEqual(hosts[1]!.location.sizes, { registrations: 0, own: 0 })
})

test('200 hosts that are connected to nobody find each other by trackers, and a segment of one reaches all', async (t) => {
  const world = new World(t, 200)
  const { hosts, swarm } = world
  const [holder, ...others] = hosts as [FakeHost, ...FakeHost[]]
  swarm.start()
  holder.track(table, full())
  await world.pass(20_000, { stepMs: 100 })
  for (const host of others) host.track(table, new Bitmap(count))
  await world.join(others)
  const dials = Math.max(...hosts.map(({ sent }) => sent.dials))
  assert.ok(dials <= neighbours + 3, `${dials} connections opened`)
  assert.ok(holder.peers.size < hosts.length / 2, `${holder.peers.size} are connected to the holder`)
  const rounds = await world.spread(others, table)
  assert.ok(rounds < 4 * count, `${rounds} rounds of chunks`)
  const perHost = total(hosts, 'region') / hosts.length
  // Each neighbour is asked, answers, and hears of changes ten times a second at most.
  assert.ok(perHost < 3 * 2 * neighbours * rounds, `${perHost} messages of each host in ${rounds} rounds`)
  const asked = total(hosts, 'location') / hosts.length
  assert.ok(asked <= 20, `${asked} messages of each host to trackers`)
  const trackers = holder.location.trackersOf(table)
  for (const { id, kept, peers } of hosts) {
    assert.ok(trackers.includes(id) || peers.size < hosts.length / 2, `${peers.size} connections`)
    assert.equal([...kept.values()].filter((uses) => uses > 0).length, 0, 'who has all of it keeps no connection')
  }
})

test('hosts that begin at the same moment meet, though nobody had told a tracker before', async (t) => {
  const world = new World(t, 40)
  const { hosts, swarm } = world
  swarm.start()
  for (const host of hosts) host.track(table, new Bitmap(count))
  for (const [at, { availability, held }] of hosts.entries()) {
    if (at < 5) for (let index = at; index < count; index += 5) held.get(table)!.set(index)
    void availability.whenAsked(table, { signal })
  }
  const rounds = await world.spread(hosts, table)
  assert.ok(rounds < 4 * count, `${rounds} rounds of chunks`)
})

test('segments that are fetched together are asked for together, and share neighbours', async (t) => {
  const world = new World(t, 100)
  const { hosts, swarm } = world
  swarm.start()
  const tables = Array.from({ length: 12 }, (_, i) => digestOf(Buffer.from(`layer ${i}`)))
  for (const host of hosts.slice(1)) for (const id of tables) host.track(id, full())
  await world.pass(60_000, { stepMs: 250 })
  const [cold] = hosts as [FakeHost]
  for (const id of tables) cold.track(id, new Bitmap(count))
  await world.join([cold], tables)
  for (const id of tables) assert.ok(cold.availability.holders(id, 0).length > 0)
  assert.ok(cold.peers.size <= 12 + 2 * neighbours, `${cold.peers.size} connections`)
})

for (const [title, isFirst] of [
  ['first', true],
  ['second', false],
] as const) {
  test(`where the ${title} tracker is dead, the others name the holder`, async (t) => {
    const world = new World(t, 40)
    const { hosts, swarm } = world
    swarm.start()
    const trackers = hosts[0]!.location.trackersOf(table)
    const [holder, cold] = hosts.filter(({ id }) => !trackers.includes(id)) as [FakeHost, FakeHost]
    holder.track(table, full())
    await world.pass(20_000, { stepMs: 100 })
    swarm.kill(trackers[isFirst ? 0 : 1]!)
    cold.track(table, new Bitmap(count))
    await world.join([cold])
    assert.deepEqual(cold.availability.holders(table, 5), [holder.id])
  })
}

test('all trackers of a key die: those who come after them are told by all who hold it, within some seconds', async (t) => {
  const world = new World(t, 40)
  const { hosts, swarm } = world
  swarm.start()
  const trackers = hosts[0]!.location.trackersOf(table)
  const [holder, cold] = hosts.filter(({ id }) => !trackers.includes(id)) as [FakeHost, FakeHost]
  holder.track(table, full())
  await world.pass(20_000, { stepMs: 100 })
  for (const id of trackers) {
    swarm.kill(id)
    swarm.bury(id)
  }
  assert.deepEqual(
    holder.location.trackersOf(table).filter((id) => trackers.includes(id)),
    [],
  )
  await world.pass(15_000, { stepMs: 100 })
  const found = cold.location.find(table, { wanted: 5, signal })
  await world.timed(found)
  assert.deepEqual((await found).members, [holder.id])
})

test('a tracker that knows nobody yet is no answer while another knows somebody', async (t) => {
  const world = new World(t, 40)
  const { hosts, swarm } = world
  swarm.start()
  const [first] = hosts[0]!.location.trackersOf(table)
  const [holder, cold] = hosts.filter(({ id }) => !hosts[0]!.location.trackersOf(table).includes(id)) as [
    FakeHost,
    FakeHost,
  ]
  holder.track(table, full())
  await world.pass(20_000, { stepMs: 100 })
  // It is started anew so soon that nobody notices.
  const forgets = swarm.host(first!)
  swarm.replace(forgets)
  const found = cold.location.find(table, { wanted: 5, signal })
  await world.timed(found)
  assert.deepEqual(await found, { members: [holder.id], isAnswered: true })
})

test('members that register what they do not hold cost a question each, and a segment is found all the same', async (t) => {
  const world = new World(t, 100)
  const { hosts, swarm } = world
  swarm.start()
  const liars = hosts.slice(50)
  for (const { location } of liars) location.hold(table, holds.much, 'now')
  const [holder, cold] = hosts as [FakeHost, FakeHost]
  holder.track(table, full())
  await world.pass(20_000, { stepMs: 100 })
  cold.track(table, new Bitmap(count))
  await world.join([cold])
  // Each time that nobody holds what is needed, others are asked, ever more seldom.
  for (let s = 0; s < 300 && cold.availability.holders(table, 0).length === 0; s++) {
    await world.pass(1_000, { stepMs: 100 })
    void cold.availability.whenAsked(table, { signal, index: 0 })
  }
  assert.deepEqual(cold.availability.holders(table, 0), [holder.id])
  assert.ok(cold.sent.dials <= hosts.length, `${cold.sent.dials} connections`)
  assert.ok(cold.sent.location < 200, `${cold.sent.location} messages to trackers`)
})

test('a segment that is not tracked any more is let go, and its trackers forget this host', async (t) => {
  const world = new World(t, 40)
  const { hosts, swarm } = world
  swarm.start()
  for (const host of hosts) for (const id of [table, other]) host.track(id, new Bitmap(count))
  const [host, asker] = hosts as [FakeHost, FakeHost]
  await world.join([host], [table, other])
  await world.pass(60_000, { stepMs: 250 })
  assert.equal(host.swarms.size, 2)
  host.availability.forget(table)
  host.availability.forget(other)
  assert.deepEqual([host.swarms.size, [...host.kept.values()].filter((uses) => uses > 0)], [0, []])
  await world.pass(5_000, { stepMs: 100 })
  for (const id of [table, other]) {
    const found = asker.location.find(id, { wanted: 32, signal })
    await world.timed(found)
    assert.ok(!(await found).members.includes(host.id))
  }
})

test('a swarm that nothing is fetched from is let go after ten to twenty minutes', async (t) => {
  const world = new World(t, 40)
  const { hosts, swarm } = world
  swarm.start()
  for (const host of hosts) host.track(table, new Bitmap(count))
  const [host] = hosts as [FakeHost]
  await world.join([host])
  await world.pass(9 * 60_000, { stepMs: 60_000 })
  assert.equal(host.swarms.size, 1)
  await world.pass(12 * 60_000, { stepMs: 60_000 })
  assert.equal(host.swarms.size, 0)
})

test('few members are chosen: each segment gets so many, those first that hold much, and those that are connected', () => {
  const ids = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, i) => `host-${from + i}`)
  const found = new Map([
    [table, ['holder', ...ids(0, 20)]],
    [other, [...ids(10, 30)]],
  ])
  const chosen = choose(found, new Set(['host-29']), 5)
  assert.ok(chosen.has('holder'))
  for (const id of [table, other]) assert.ok([...chosen.values()].filter((tables) => tables.includes(id)).length >= 5)
  assert.ok(chosen.size <= 9, `${chosen.size}`)
  assert.ok(chosen.has('host-29'))
})
