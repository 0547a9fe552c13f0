import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { maxSegments, type HaveDelta, type RegionMessage } from '../../../protocol/messages/region.ts'
import { Availability } from '../../../node/peers/availability.ts'
import { FakeRegion, settled } from './fake-region.ts'

const table = digestOf(Buffer.from('segment'))
const other = digestOf(Buffer.from('another segment'))

/** An availability whose messages are collected; `pass` lets time pass. */
function collecting(t: TestContext): {
  availability: Availability
  sent: RegionMessage[]
  pass: (ms: number) => void
} {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const sent: RegionMessage[] = []
  const availability = new Availability({
    membership: { members: () => [], broadcast: (message) => void sent.push(message) },
  })
  return { availability, sent, pass: (ms) => t.mock.timers.tick(ms) }
}

test('a new segment is announced at once', (t) => {
  const { availability, sent } = collecting(t)
  const held = new Bitmap(3)
  availability.announce(table, held)
  assert.deepEqual(sent, [{ type: 'have', table, held }])
})

test('changes are gathered into one message for each segment; the last change of a chunk counts', (t) => {
  const { availability, sent, pass } = collecting(t)
  availability.announceChunks(table, [1, 2])
  pass(10)
  availability.announceChunks(table, [3])
  availability.withdrawChunks(table, [1, 7])
  availability.announceChunks(table, [7])
  availability.withdrawChunks(other, [0])
  pass(9)
  assert.deepEqual(sent, [])
  pass(1)
  assert.deepEqual(sent, [
    { type: 'delta', table, added: [2, 3, 7], removed: [1] },
    { type: 'delta', table: other, added: [], removed: [0] },
  ])
  availability.announceChunks(table, [4])
  pass(20)
  assert.deepEqual(sent.slice(2), [{ type: 'delta', table, added: [4], removed: [] }])
})

test('no change is no message, and nothing is sent after the end', (t) => {
  const { availability, sent, pass } = collecting(t)
  availability.withdrawChunks(table, [])
  pass(20)
  availability.announceChunks(table, [1])
  availability.stop()
  pass(20)
  assert.deepEqual(sent, [])
})

test('a new peer hears of no change that was gathered before it was introduced', async () => {
  const region = new FakeRegion()
  const availability = new Availability({ membership: region.membership })
  const introduce = async (id: string): Promise<void> =>
    await region.membership.introduce(region.join(id), () => {
      availability.flush()
      return []
    })
  await introduce('a')
  availability.withdrawChunks(table, [1])
  await introduce('b')
  await settled()
  const changes = (id: string): RegionMessage[] => region.sent.get(id)!.filter(({ type }) => type === 'delta')
  assert.deepEqual([changes('a'), changes('b')], [[{ type: 'delta', table, added: [], removed: [1] }], []])
  availability.stop()
})

test('holders are the connected members that say they hold the chunk', () => {
  const region = new FakeRegion()
  const availability = new Availability({ membership: region.membership })
  const [a, b] = [region.join('a'), region.join('b')]
  for (const peer of [a, b])
    availability.update(peer, { type: 'have', table, held: new Bitmap(10, Uint8Array.of(1, 0)) })
  assert.deepEqual(availability.holders(table, 0), ['a', 'b'])
  assert.deepEqual([availability.holders(table, 1), availability.holders(other, 0)], [[], []])
  availability.update(a, { type: 'delta', table, added: [1, 9], removed: [0] })
  assert.deepEqual(
    [0, 1, 9].map((index) => availability.holders(table, index)),
    [['b'], ['a'], ['a']],
  )
  availability.update(a, { type: 'have', table, held: new Bitmap(10) })
  assert.deepEqual(availability.holders(table, 1), [], 'a have replaces what was said before')
  region.leave('b')
  assert.deepEqual(availability.holders(table, 0), [])
})

test('a change of an unknown segment, or beyond the end of one, is invalid and changes nothing', () => {
  const region = new FakeRegion()
  const availability = new Availability({ membership: region.membership })
  const peer = region.join('a')
  const isInvalid = (delta: Partial<HaveDelta>): void =>
    assert.throws(
      () => availability.update(peer, { type: 'delta', table, added: [], removed: [], ...delta }),
      (error) => isP2pfsError(error, 'invalid'),
    )
  isInvalid({ added: [0] })
  availability.update(peer, { type: 'have', table, held: new Bitmap(10) })
  isInvalid({ added: [0, 10] })
  isInvalid({ added: [0], removed: [10] })
  isInvalid({ table: other, removed: [0] })
  assert.deepEqual(availability.holders(table, 0), [])
})

test('a peer may not announce more segments than the protocol allows', () => {
  const region = new FakeRegion()
  const availability = new Availability({ membership: region.membership })
  const peer = region.join('a')
  const announce = (text: string): void =>
    availability.update(peer, { type: 'have', table: digestOf(Buffer.from(text)), held: new Bitmap(1) })
  for (let i = 0; i < maxSegments; i++) announce(`segment ${i}`)
  announce('segment 0')
  assert.throws(
    () => announce('one more'),
    (error) => isP2pfsError(error, 'invalid'),
  )
})
