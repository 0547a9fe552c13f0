import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, type Digest } from '../../../../protocol/digest.ts'
import { P2pfsError } from '../../../../protocol/errors.ts'
import { holds, maxKeysPerRequest, type LocationRequest } from '../../../../protocol/messages/location.ts'
import { Registrar } from '../../../../node/peers/location/registrar.ts'
import { TrackerMap, trackersOf, type Trackers } from '../../../../node/peers/location/tracker-map.ts'
import { FakeClock } from '../../../support/fake-clock.ts'

const keysOf = (count: number): Digest[] => Array.from({ length: count }, (_, i) => digestOf(Buffer.from(`key ${i}`)))
const minuteMs = 60_000

class World {
  readonly clock = new FakeClock()
  ids: readonly string[] = Array.from({ length: 40 }, (_, i) => `host-${i}`)
  readonly map: TrackerMap
  readonly sent: { tracker: string; atMs: number; keys: LocationRequest['keys'] }[] = []
  readonly refusing = new Set<string>()
  readonly registrar: Registrar

  constructor({ random = 0.5, known }: { random?: number; known?: Trackers } = {}) {
    if (known !== undefined) this.ids = known.ids
    this.map = new TrackerMap({ ids: () => this.ids }, known)
    this.registrar = new Registrar({
      trackers: this.map,
      client: {
        ask: async (tracker, { keys }) => {
          if (this.refusing.has(tracker)) throw new P2pfsError('unavailable', 'no route')
          this.sent.push({ tracker, atMs: this.clock.now(), keys })
          return await Promise.resolve([])
        },
      },
      clock: this.clock,
      random: () => random,
      signal: new AbortController().signal,
    })
  }

  /** The last statement to each tracker about each key. */
  told(): Map<string, Map<Digest, number>> {
    const told = new Map<string, Map<Digest, number>>()
    for (const { tracker, keys } of this.sent) {
      const known = told.get(tracker) ?? new Map<Digest, number>()
      told.set(tracker, known)
      for (const said of keys) known.set(said.key, said.holds)
    }
    return told
  }

  trackersOf(key: Digest): string[] {
    return this.map.trackersOf(key)
  }

  knowers(key: Digest): string[] {
    return [...this.told()].filter(([, keys]) => keys.get(key) === holds.much).map(([tracker]) => tracker)
  }
}

test('what a host has of old is told to all its trackers, four messages in a second, a batch to each', async () => {
  const world = new World()
  const keys = keysOf(3000)
  for (const key of keys) world.registrar.say(key, holds.much, 'later')
  await world.clock.pass(minuteMs)
  assert.equal(world.sent.length, 0, 'nothing is told before it is started')
  world.registrar.start()
  await world.clock.pass(minuteMs)
  for (const key of keys) assert.deepEqual(world.knowers(key).toSorted(), world.trackersOf(key).toSorted())
  assert.equal(world.sent.length, 40, 'one message to each tracker')
  for (const [at, { atMs, keys: some }] of world.sent.entries()) {
    assert.ok(some.length <= maxKeysPerRequest)
    if (at > 0) assert.ok(atMs - world.sent[at - 1]!.atMs >= 250)
  }
})

test('what others may ask for now is told at once, what a question has told already after some seconds', async () => {
  const world = new World()
  const [now, soon] = keysOf(2) as [Digest, Digest]
  world.registrar.start()
  world.registrar.say(now, holds.much, 'now')
  world.registrar.say(soon, holds.much, 'soon')
  await world.clock.pass(100)
  assert.deepEqual([world.knowers(now).length, world.knowers(soon).length], [3, 0])
  await world.clock.pass(2_000)
  assert.equal(world.knowers(soon).length, 3)
  world.registrar.say(soon, holds.much, 'now')
  await world.clock.pass(2_000)
  assert.equal(world.sent.flatMap(({ keys }) => keys).length, 6, 'what is known is not said again')
  world.registrar.say(now, holds.nothing, 'now')
  await world.clock.pass(100)
  assert.deepEqual([world.knowers(now), world.registrar.size], [[], 1])
})

test('what all members may have to tell comes to a tracker evenly, over a time that grows with the region', async () => {
  for (const members of [1_000, 4_000]) {
    const [key] = keysOf(1) as [Digest]
    const known = trackersOf(Array.from({ length: members }, (_, i) => `host-${i}`))
    const heardMs: number[] = []
    for (let host = 0; host < 20; host++) {
      const world = new World({ random: host / 20, known })
      world.registrar.start()
      world.registrar.say(key, holds.some, 'spread')
      await world.clock.pass(members * 10 + 1_000)
      assert.equal(world.sent.length, 3)
      heardMs.push(...world.sent.map(({ atMs }) => atMs))
    }
    const parts = [0, 1, 2, 3].map((part) =>
      heardMs.filter((ms) => Math.floor((4 * ms) / (members * 10 + 1_000)) === part),
    )
    for (const part of parts)
      assert.ok(part.length > 5, `${members} members: ${parts.map(({ length }) => length).join()}`)
  }
})

test('what is to be told sooner than before is', async () => {
  const world = new World()
  world.ids = Array.from({ length: 1_000 }, (_, i) => `host-${i}`)
  const [key] = keysOf(1) as [Digest]
  world.registrar.start()
  world.registrar.say(key, holds.some, 'spread')
  world.registrar.say(key, holds.much, 'later')
  await world.clock.pass(1_500)
  assert.equal(world.knowers(key).length, 3)
})

test('a new tracker is told within ten seconds what others were, and no other is told anything', async () => {
  const world = new World()
  const keys = keysOf(3000)
  for (const key of keys) world.registrar.say(key, holds.much, 'later')
  world.registrar.start()
  await world.clock.pass(minuteMs)
  world.sent.length = 0
  world.ids = [...world.ids, 'new']
  world.registrar.changed(world.map.changes())
  await world.clock.pass(11_000)
  const expected = keys.filter((key) => world.trackersOf(key).includes('new'))
  assert.ok(expected.length > 100)
  assert.deepEqual([...world.told().keys()], ['new'])
  for (const key of expected) assert.ok(world.knowers(key).includes('new'))
})

test('a tracker that does not take it is told later, and one that has gone is not', async () => {
  const world = new World()
  const [key] = keysOf(1) as [Digest]
  const [first, second] = world.trackersOf(key) as [string, string]
  world.refusing.add(first).add(second)
  world.registrar.start()
  world.registrar.say(key, holds.much, 'now')
  await world.clock.pass(1_000)
  assert.equal(world.knowers(key).length, 1)
  world.ids = world.ids.filter((id) => id !== second)
  world.registrar.changed(world.map.changes())
  world.refusing.clear()
  await world.clock.pass(30_000)
  assert.deepEqual(world.knowers(key).toSorted(), world.trackersOf(key).toSorted())
  assert.ok(!world.knowers(key).includes(second))
})

test('everything is told again within half an hour, in its turn', async () => {
  const world = new World()
  const keys = keysOf(100)
  for (const key of keys) world.registrar.say(key, holds.much, 'later')
  world.registrar.start()
  await world.clock.pass(minuteMs)
  const before = world.sent.length
  world.sent.length = 0
  await world.clock.pass(30 * minuteMs)
  assert.equal(world.sent.length, before)
  for (const key of keys) assert.equal(world.knowers(key).length, 3)
  world.registrar.stop()
  assert.equal(world.clock.waiting, 0)
})
