import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../../protocol/digest.ts'
import { holds } from '../../../../protocol/messages/location.ts'
import { limits } from '../../../../node/peers/limits.ts'
import { namings, TrackedKeys } from '../../../../node/peers/location/tracked-keys.ts'

const key = digestOf(Buffer.from('key'))
const keysOf = (count: number, name = 'key'): ReturnType<typeof digestOf>[] =>
  Array.from({ length: count }, (_, i) => digestOf(Buffer.from(`${name} ${i}`)))

class World {
  nowMs = 0
  readonly keys: TrackedKeys

  constructor(bounds: ConstructorParameters<typeof TrackedKeys>[0]['bounds'] = {}) {
    this.keys = new TrackedKeys({ now: () => this.nowMs, random: () => 0.5, bounds })
  }

  members(of = key, { asker = 'asker', wanted = 32, order = 0 } = {}): string[] {
    return this.keys.members(of, { asker, wanted, order })
  }
}

test('members of a key are those that said so last, without the asker', () => {
  const world = new World()
  const { keys } = world
  for (const id of ['a', 'b', 'c', 'asker']) keys.say(id, key, holds.some)
  keys.say('b', key, holds.nothing)
  keys.say('d', key, holds.unsaid)
  assert.deepEqual(world.members().toSorted(), ['a', 'c'])
  keys.forget('a')
  assert.deepEqual(world.members(), ['c'])
  keys.say('c', key, holds.nothing)
  assert.deepEqual([world.members(), keys.size], [[], 1], 'the asker is left')
})

test('half of those that are named hold much, if so many do; the others are newcomers', () => {
  const world = new World()
  for (let i = 0; i < 20; i++) {
    world.keys.say(`much-${i}`, key, holds.much)
    world.keys.say(`some-${i}`, key, holds.some)
  }
  const named = world.members(key, { wanted: 12 })
  assert.deepEqual([named.length, named.slice(0, 6).every((id) => id.startsWith('much'))], [12, true])
  assert.ok(named.some((id) => id.startsWith('some')))
})

test('an asker is sent to the same members for all keys, and other askers to others', () => {
  const world = new World()
  const keys = keysOf(10)
  for (const some of keys) for (let i = 0; i < 100; i++) world.keys.say(`host-${i}`, some, holds.some)
  const [first, ...rest] = keys.map((some) => String(world.members(some, { wanted: 12 })))
  assert.ok(rest.every((named) => named === first))
  assert.notEqual(String(world.members(keys[0], { asker: 'another', wanted: 12 })), first)
  assert.notEqual(String(world.members(keys[0], { order: 1, wanted: 12 })), first, 'who asks again gets others')
})

test('a holder is named to so many at a time, and then newcomers are; where there is nobody else it is named on', () => {
  const world = new World()
  world.keys.say('holder', key, holds.much)
  for (let i = 0; i < namings.count + 5; i++) assert.deepEqual(world.members(key, { asker: `asker-${i}` }), ['holder'])
  world.keys.say('newcomer', key, holds.some)
  assert.deepEqual(world.members(), ['newcomer'])
  world.nowMs += namings.windowMs
  assert.deepEqual(world.members(), ['holder', 'newcomer'])
})

test('a registration that is not repeated ends', () => {
  const world = new World()
  world.keys.say('a', key, holds.some)
  world.keys.say('b', key, holds.some)
  world.nowMs += limits.location.registrationMs - 1
  world.keys.say('b', key, holds.some)
  world.nowMs += 1
  assert.deepEqual([world.members(), world.keys.size], [['b'], 1])
})

test('bounds are held: of a key, of a member, and of all, where the member that has most makes room', () => {
  const world = new World({ membersPerKey: 10, keysPerMember: 20, registrations: 50 })
  const much = Array.from({ length: 5 }, (_, i) => `much-${i}`)
  for (const id of much) world.keys.say(id, key, holds.much)
  for (let i = 0; i < 100; i++) world.keys.say(`some-${i}`, key, holds.some)
  assert.equal(world.keys.size, 10)
  assert.deepEqual(
    world
      .members()
      .filter((id) => id.startsWith('much'))
      .toSorted(),
    much,
    'those that hold much stay',
  )
  for (const own of keysOf(100, 'liar')) world.keys.say('liar', own, holds.much)
  assert.equal(world.keys.size, 30)
  assert.deepEqual(world.members(keysOf(100, 'liar')[79]), [], 'the oldest went first')
  for (let i = 0; i < 3; i++) for (const own of keysOf(15, 'honest')) world.keys.say(`honest-${i}`, own, holds.much)
  assert.equal(world.keys.size, 50)
  assert.equal(world.members().length, 10, 'members with one key are not pushed out')
})

test('a member that lies about a key is one of its members, however often it says so', () => {
  const world = new World()
  for (let i = 0; i < 1000; i++) world.keys.say('liar', key, holds.much)
  world.keys.say('honest', key, holds.some)
  assert.deepEqual(world.members().toSorted(), ['honest', 'liar'])
})
