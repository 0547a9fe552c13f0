import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import {
  haveParts,
  maxOpenQueries,
  maxTablesPerQuery,
  type DeltaPart,
  type Have,
  type RegionMessage,
} from '../../../protocol/messages/region.ts'
import { Availability } from '../../../node/peers/availability.ts'
import { limits } from '../../../node/peers/limits.ts'
import type { Peer } from '../../../node/peers/peer.ts'
import { inSmallRegion } from '../../support/small-region.ts'
import { FakeRegion, settled } from './fake-region.ts'

const table = digestOf(Buffer.from('segment'))
const other = digestOf(Buffer.from('another segment'))
const { signal } = new AbortController()

const bitmap = (count: number, ...indexes: number[]): Bitmap => {
  const held = new Bitmap(count)
  for (const index of indexes) held.set(index)
  return held
}
const have = (id: Digest, held: Bitmap): Have => ({ type: 'have', tables: haveParts(id, held) })

/** An availability among fake peers. */
class World {
  readonly region: FakeRegion
  readonly availability: Availability

  constructor(t: TestContext, options: ConstructorParameters<typeof FakeRegion>[0] = {}) {
    this.region = new FakeRegion(options)
    this.availability = new Availability({ membership: this.region.membership, ...inSmallRegion })
    t.after(() => this.availability.stop())
  }

  /** A member joins, and this host introduces itself. */
  async meet(id: string): Promise<Peer> {
    const peer = this.region.join(id)
    await this.region.membership.introduce(peer, () => this.availability.next(peer))
    await settled()
    return peer
  }

  /** The messages that a peer has heard since the last call, without hellos and news of members. */
  heard(id: string): RegionMessage[] {
    const messages = this.region.sent.get(id)!.splice(0)
    return messages.filter(({ type }) => type !== 'hello' && type !== 'news' && type !== 'digest')
  }
}

test('a host asks its members who hold a segment when it begins to track it, all those of a turn in one message', async (t) => {
  const world = new World(t)
  await world.meet('a')
  assert.deepEqual(world.heard('a'), [])
  world.availability.announce(table, bitmap(3))
  world.availability.announce(other, bitmap(3))
  await settled()
  assert.deepEqual(world.heard('a'), [{ type: 'query', tables: [table, other] }])
})

test('a host asks a member that joins for all segments that it tracks, and again only when the member answers', async (t) => {
  const world = new World(t)
  const ids = Array.from({ length: (maxOpenQueries + 1) * maxTablesPerQuery }, (_, i) => digestOf(Buffer.from(`${i}`)))
  for (const id of ids) world.availability.announce(id, bitmap(1))
  const peer = await world.meet('a')
  const asked = world.heard('a').flatMap((message) => (message.type === 'query' ? [message.tables] : []))
  assert.equal(asked.length, maxOpenQueries)
  world.availability.update(peer, { type: 'answered' })
  await settled()
  asked.push(...world.heard('a').flatMap((message) => (message.type === 'query' ? [message.tables] : [])))
  assert.deepEqual(asked.flat(), ids)
})

test('a segment that is tracked while a member is asked for many others is asked for next', async (t) => {
  const world = new World(t)
  for (let i = 0; i < (maxOpenQueries + 2) * maxTablesPerQuery; i++)
    world.availability.announce(digestOf(Buffer.from(`${i}`)), bitmap(1))
  const peer = await world.meet('a')
  world.heard('a')
  world.availability.announce(table, bitmap(1))
  world.availability.update(peer, { type: 'answered' })
  await settled()
  const [query] = world.heard('a')
  assert.ok(query?.type === 'query')
  assert.deepEqual([query.tables[0], query.tables.length], [table, maxTablesPerQuery])
})

test('a question is answered with what this host holds, and with nothing about segments that it does not track', async (t) => {
  const world = new World(t)
  const held = bitmap(20, 1)
  world.availability.announce(table, held)
  const peer = await world.meet('a')
  world.heard('a')
  held.set(19)
  world.availability.update(peer, { type: 'query', tables: [other, table] })
  await settled()
  assert.deepEqual(world.heard('a'), [have(table, bitmap(20, 1, 19)), { type: 'answered' }])
  world.availability.update(peer, { type: 'query', tables: [other] })
  await settled()
  assert.deepEqual(world.heard('a'), [{ type: 'answered' }])
})

test('changes are gathered into one message of all segments, for those who asked; the last change of a chunk counts', async (t) => {
  const world = new World(t)
  for (const id of [table, other]) world.availability.announce(id, bitmap(10))
  const peer = await world.meet('a')
  await world.meet('b')
  world.availability.update(peer, { type: 'query', tables: [table, other] })
  await settled()
  world.heard('a')
  world.heard('b')
  world.availability.announceChunks(table, [1, 2])
  world.availability.announceChunks(table, [3])
  world.availability.withdrawChunks(table, [1, 7])
  world.availability.announceChunks(table, [7])
  world.availability.withdrawChunks(other, [0])
  world.availability.flush()
  await settled()
  const [message, ...more] = world.heard('a')
  assert.ok(message?.type === 'delta')
  assert.deepEqual(
    [message.tables, more, world.heard('b')],
    [
      [
        { table, added: [2, 3, 7], removed: [] },
        { table, added: [], removed: [1] },
        { table: other, added: [], removed: [0] },
      ],
      [],
      [],
    ],
  )
})

test('changes are sent after twenty milliseconds, and no change is no message', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const world = new World(t)
  world.availability.announce(table, bitmap(10))
  const peer = await world.meet('a')
  world.availability.update(peer, { type: 'query', tables: [table] })
  await settled()
  world.heard('a')
  world.availability.announceChunks(table, [1])
  t.mock.timers.tick(19)
  await settled()
  assert.deepEqual(world.heard('a'), [])
  t.mock.timers.tick(1)
  await settled()
  assert.deepEqual(world.heard('a'), [{ type: 'delta', tables: [{ table, added: [1], removed: [] }] }])
  world.availability.withdrawChunks(table, [])
  t.mock.timers.tick(20)
  await settled()
  assert.deepEqual(world.heard('a'), [])
})

test('a host that hears what a member holds tells it the same of itself, once', async (t) => {
  const world = new World(t)
  world.availability.announce(table, bitmap(10, 4))
  const peer = await world.meet('a')
  world.heard('a')
  world.availability.update(peer, have(table, bitmap(10, 1)))
  world.availability.update(peer, have(table, bitmap(10, 2)))
  await settled()
  assert.deepEqual(world.heard('a'), [have(table, bitmap(10, 4))])
})

test('holders are the connected members that say they hold the chunk', async (t) => {
  const world = new World(t)
  const { availability } = world
  availability.announce(table, bitmap(10))
  availability.announce(other, bitmap(10))
  const [a, b] = [await world.meet('a'), await world.meet('b')]
  for (const peer of [a, b]) availability.update(peer, have(table, bitmap(10, 0)))
  assert.deepEqual(availability.holders(table, 0), ['a', 'b'])
  assert.deepEqual([availability.holders(table, 1), availability.holders(other, 0)], [[], []])
  availability.update(a, { type: 'delta', tables: [{ table, added: [1, 9], removed: [0] }] })
  assert.deepEqual(
    [0, 1, 9].map((index) => availability.holders(table, index)),
    [['b'], ['a'], ['a']],
  )
  availability.update(a, have(table, bitmap(10)))
  assert.deepEqual(availability.holders(table, 1), [], 'a have replaces what was said before')
  world.region.leave('b')
  assert.deepEqual(availability.holders(table, 0), [])
})

test('bitmaps of segments that this host does not track are ignored, and forgotten with the segment', async (t) => {
  const world = new World(t)
  const { availability } = world
  const peer = await world.meet('a')
  availability.update(peer, have(table, bitmap(10, 1)))
  assert.equal(peer.holdings.size, 0)
  availability.announce(table, bitmap(10))
  assert.deepEqual(availability.holders(table, 1), [])
  availability.update(peer, have(table, bitmap(10, 1)))
  assert.deepEqual(availability.holders(table, 1), ['a'])
  availability.forget(table)
  assert.equal(peer.holdings.size, 0)
  availability.update(peer, { type: 'query', tables: [table] })
  await settled()
  assert.deepEqual(world.heard('a').at(-1), { type: 'answered' })
})

test('changes of a segment that is not known, or of which no have has come, are ignored and no fault', async (t) => {
  const world = new World(t)
  const peer = await world.meet('a')
  const change = (id: Digest): void =>
    world.availability.update(peer, { type: 'delta', tables: [{ table: id, added: [1], removed: [2] }] })
  world.availability.announce(table, bitmap(10))
  change(table)
  change(other)
  assert.deepEqual(world.availability.holders(table, 1), [])
})

test('a have of another number of chunks, and a change beyond the end of a segment, are invalid and change nothing', async (t) => {
  const world = new World(t)
  const { availability } = world
  availability.announce(table, bitmap(10))
  const peer = await world.meet('a')
  const isInvalid = (error: unknown): boolean => isP2pfsError(error, 'invalid')
  assert.throws(() => availability.update(peer, have(table, bitmap(11, 0))), isInvalid)
  availability.update(peer, have(table, bitmap(10)))
  const change = (delta: Partial<DeltaPart>): void =>
    availability.update(peer, { type: 'delta', tables: [{ table, added: [], removed: [], ...delta }] })
  assert.throws(() => change({ added: [0, 10] }), isInvalid)
  assert.throws(() => change({ added: [0], removed: [10] }), isInvalid)
  assert.deepEqual(availability.holders(table, 0), [])
})

test('a peer may not ask more queries than the protocol allows before it is answered', async (t) => {
  const world = new World(t, { stuck: ['a'] })
  const peer = await world.meet('a')
  for (let i = 0; i < maxOpenQueries; i++) world.availability.update(peer, { type: 'query', tables: [table] })
  assert.throws(
    () => world.availability.update(peer, { type: 'query', tables: [table] }),
    (error) => isP2pfsError(error, 'invalid'),
  )
  assert.throws(
    () => world.availability.update(peer, { type: 'answered' }),
    (error) => isP2pfsError(error, 'invalid'),
    'an answer to nothing',
  )
})

test('a segment of more than eight million chunks is told in parts, and a change that comes in between is not lost', async (t) => {
  const count = 9_000_000
  const held = bitmap(count, 0, count - 2)
  const teller = new World(t)
  teller.availability.announce(table, held)
  const listener = new World(t)
  listener.availability.announce(table, bitmap(count))
  const told = await listener.meet('teller')
  const asker = await teller.meet('asker')
  const { regionClient } = asker
  // One message after the other, with a change after the first part.
  regionClient!.close()
  teller.availability.update(asker, { type: 'query', tables: [table] })
  let parts = 0
  for (
    let message = teller.availability.next(asker);
    message?.type !== 'answered';
    message = teller.availability.next(asker)
  ) {
    if (message?.type !== 'have') continue
    listener.availability.update(told, message)
    if (++parts !== 1) continue
    held.set(count - 1)
    held.clear(count - 2)
    teller.availability.announceChunks(table, [count - 1])
    teller.availability.withdrawChunks(table, [count - 2])
    teller.availability.flush()
  }
  const isHeld = (index: number): boolean => listener.availability.holders(table, index).length > 0
  assert.ok(parts > 2, `${parts} messages`)
  assert.deepEqual([0, 1, count - 2, count - 1].map(isHeld), [true, false, false, true])
})

test('a member that takes no messages costs two bits for each segment, and hears everything when it takes them again', async (t) => {
  const world = new World(t, { stuck: ['slow'] })
  const count = 100_000
  const held = bitmap(count)
  world.availability.announce(table, held)
  const peer = await world.meet('slow')
  world.availability.update(peer, { type: 'query', tables: [table] })
  // It is owed a have; what comes until then is part of it.
  const all = Array.from({ length: count }, (_, index) => index)
  for (let i = 0; i < 100; i++) {
    world.availability.announceChunks(table, all)
    world.availability.flush()
  }
  held.set(5)
  assert.deepEqual(world.region.hungUp, [])
  await settled()
  world.region.unstick('slow')
  await settled()
  assert.deepEqual(
    world.heard('slow').filter(({ type }) => type !== 'query'),
    [have(table, held), { type: 'answered' }],
  )
})

test('changes that a full queue does not take are told later, as they are then', async (t) => {
  const world = new World(t, { stuck: ['slow'] })
  const count = 100_000
  const held = bitmap(count)
  world.availability.announce(table, held)
  const peer = await world.meet('slow')
  world.availability.update(peer, { type: 'query', tables: [table] })
  world.region.unstick('slow')
  await settled()
  world.heard('slow')
  world.region.stick('slow')
  const all = Array.from({ length: count }, (_, index) => index)
  // Each time half a megabyte: more than the queue takes.
  for (let i = 0; i < 40; i++) {
    world.availability.announceChunks(table, all)
    world.availability.flush()
  }
  for (const index of all) held.set(index)
  assert.ok(world.region.membership.queuedBytes <= limits.sendQueue.perPeer)
  world.region.unstick('slow')
  await settled()
  await settled()
  assert.deepEqual(world.heard('slow').at(-1), haveParts(table, held).length === 1 ? have(table, held) : undefined)
  assert.deepEqual(world.region.hungUp, [])
})

/** Whether the promise has settled by now. */
async function isOver(promise: Promise<void>): Promise<boolean> {
  let over = false
  void promise.then(() => (over = true))
  await settled()
  return over
}

test('a first fetch waits until a member says that it holds the chunk, or all have answered', async (t) => {
  const world = new World(t)
  const { availability } = world
  const [a, b] = [await world.meet('a'), await world.meet('b')]
  availability.announce(table, bitmap(10))
  const [one, two] = [1, 2].map(async (index) => await availability.whenAsked(table, { signal, index }))
  assert.equal(await isOver(one!), false)
  availability.update(a, have(table, bitmap(10, 1)))
  assert.deepEqual([await isOver(one!), await isOver(two!)], [true, false])
  availability.update(a, { type: 'answered' })
  assert.equal(await isOver(two!), false)
  availability.update(b, { type: 'answered' })
  assert.equal(await isOver(two!), true)
  assert.equal(await isOver(availability.whenAsked(table, { signal })), true, 'later ones do not wait')
})

test('a fetch waits for the second of two questions that segments of one turn take, and holds up nothing meanwhile', async (t) => {
  // Time stands still: a busy machine takes longer than a question is waited for.
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const world = new World(t)
  const member = await world.meet('a')
  const tables = Array.from({ length: maxTablesPerQuery + 1 }, (_, i) => digestOf(Buffer.from(`table ${i}`)))
  for (const id of tables) world.availability.announce(id, bitmap(10))
  const waiting = world.availability.whenAsked(tables.at(-1)!, { signal, index: 1 })
  await settled()
  world.availability.update(member, { type: 'answered' })
  assert.equal(await isOver(waiting), false)
  world.availability.next(member)
  world.availability.update(member, { type: 'answered' })
  assert.equal(await isOver(waiting), true)
})

test('a first fetch waits a tenth of a second at most, and the next not at all for a member that did not answer', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const world = new World(t)
  await world.meet('silent')
  world.availability.announce(table, bitmap(10))
  const waiting = world.availability.whenAsked(table, { signal, index: 1 })
  await settled()
  t.mock.timers.tick(limits.questionWaitMs - 1)
  assert.equal(await isOver(waiting), false)
  t.mock.timers.tick(1)
  assert.equal(await isOver(waiting), true)
  world.availability.announce(other, bitmap(10))
  assert.equal(await isOver(world.availability.whenAsked(other, { signal, index: 1 })), true)
})

test('a fetch waits for nobody where no member is connected, and its wait ends with the signal', async (t) => {
  const alone = new World(t)
  alone.availability.announce(table, bitmap(10))
  assert.equal(await isOver(alone.availability.whenAsked(table, { signal, index: 1 })), true)
  const world = new World(t)
  await world.meet('a')
  world.availability.announce(table, bitmap(10))
  const abort = new AbortController()
  const waiting = world.availability.whenAsked(table, { signal: abort.signal, index: 1 })
  const failed = assert.rejects(waiting, { name: 'AbortError' })
  abort.abort()
  await failed
})
