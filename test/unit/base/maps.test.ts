import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BoundedMap } from '../../../node/base/bounded-map.ts'
import { ExpiringMap } from '../../../node/base/expiring-map.ts'

test('a bounded map drops the entry that was set the longest time ago', () => {
  const map = new BoundedMap<string, number>({ maxEntries: 2 })
  map.set('a', 1)
  map.set('b', 2)
  map.set('a', 3)
  map.set('c', 4)
  assert.deepEqual([map.get('a'), map.has('b'), map.get('c'), map.size], [3, false, 4, 2])
  assert.deepEqual([...map.values()], [3, 4])
})

test('entries of an expiring map end at their own time', () => {
  let nowMs = 1_000
  const map = new ExpiringMap<string, string>({ maxEntries: 8, now: () => nowMs })
  map.set('short', 'x', 10)
  map.set('long', 'y', 20)
  nowMs += 10
  assert.deepEqual([map.get('short'), map.get('long')], [undefined, 'y'])
  nowMs += 10
  assert.equal(map.has('long'), false)
})

test('an expiring map is bounded, whatever the times of its entries', () => {
  const map = new ExpiringMap<number>({ maxEntries: 100 })
  for (let i = 0; i < 1_000; i++) map.set(i, true, 1_000_000)
  assert.deepEqual([map.has(899), map.has(900)], [false, true])
})
