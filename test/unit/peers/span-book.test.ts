import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { SpanBook } from '../../../node/peers/spans/span-book.ts'

const table = digestOf(Buffer.from('table'))

function steward() {
  const gone = new Set<string>()
  let nowMs = 0
  const book = new SpanBook({ isHere: (id) => !gone.has(id), now: () => nowMs })
  const place = (asker: string, { span = 0, without }: { span?: number; without?: string } = {}) =>
    book.place(asker, table, span, without)
  return { book, gone, place, pass: (ms: number) => void (nowMs += ms) }
}

/** What each member was told last. */
type Places = Map<string, { depth: number; member: string | undefined }>

/** Follows everybody up to who reads from the registry. @returns how deep the deepest is */
function depthOf(places: Places): number {
  let deepest = 0
  for (const start of places.keys()) {
    let hops = 0
    for (let id = places.get(start)!.member; id !== undefined; id = places.get(id)!.member) {
      hops++
      assert.ok(hops <= places.size, `${start} waits in a circle`)
    }
    deepest = Math.max(deepest, hops)
  }
  return deepest
}

test('the first who asks for a span reads it; each of 1,000 later ones is sent to one before it, ten deep at most', () => {
  const { place } = steward()
  const places: Places = new Map()
  for (let i = 0; i < 1000; i++) places.set(`h${i}`, place(`h${i}`))
  assert.deepEqual(
    [...places].filter(([, { member }]) => member === undefined).map(([id]) => id),
    ['h0'],
  )
  assert.ok(depthOf(places) <= 10, String(depthOf(places)))
})

test('a hundred members are sent to no more than three each', () => {
  const { place } = steward()
  const sent = new Map<string, number>()
  for (let i = 0; i < 100; i++) {
    const { member = '' } = place(`h${i}`)
    sent.set(member, (sent.get(member) ?? 0) + 1)
  }
  assert.ok(Math.max(...sent.values()) <= 3, JSON.stringify([...sent]))
})

test('whoever asks again is sent to the same place, and each span has a reader of its own', () => {
  const { place } = steward()
  assert.deepEqual([place('a').depth, place('b').member, place('a').depth, place('b').member], [0, 'a', 0, 'a'])
  assert.deepEqual([place('b', { span: 1 }).depth, place('a', { span: 1 }).member], [0, 'b'])
})

test('a reader that is gone, or did not deliver, is replaced by the first who asks again, and by one only', () => {
  for (const isReported of [false, true]) {
    const { place, gone } = steward()
    for (const id of ['a', 'b', 'c', 'd']) place(id)
    if (!isReported) gone.add('a')
    const options = isReported ? { without: 'a' } : {}
    assert.deepEqual(
      [place('b', options).member, place('c', options).member, place('d', options).member],
      [undefined, 'b', 'b'],
    )
  }
})

test('a member is not given up on the word of one that was not sent to it', () => {
  const { place } = steward()
  for (const id of ['a', 'b', 'c', 'd', 'e']) place(id)
  assert.equal(place('e').member, 'b')
  place('liar', { without: 'a' })
  place('e', { without: 'a' })
  assert.deepEqual([place('a').depth, place('c').member], [0, 'a'])
})

test('whatever fails and is asked again, in any order, nobody waits for himself', () => {
  let random = 1
  const draw = (below: number): number => (random = (random * 48271) % 2147483647) % below
  const { place, gone } = steward()
  const places: Places = new Map()
  for (let step = 0; step < 5000; step++) {
    const id = `h${draw(40)}`
    if (draw(20) === 0 && gone.size < 20) gone.add(`h${draw(40)}`)
    else if (draw(20) === 0) gone.clear()
    const before = places.get(id)?.member
    const without = before !== undefined && draw(3) === 0 ? before : undefined
    places.set(id, place(id, { ...(without !== undefined && { without }) }))
    depthOf(places)
  }
})

test('what nobody asks for is forgotten after a minute, and what is remembered has a bound', () => {
  const { book, place, pass } = steward()
  place('a')
  pass(60_000)
  assert.equal(place('b', { span: 1 }).depth, 0)
  assert.equal(book.size, 1)
  assert.equal(place('b').depth, 0)
  for (let span = 0; span < 300_000; span++) place('a', { span })
  assert.ok(book.size <= 262_144, String(book.size))
})
