import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ReadAhead } from '../../../node/fetch/read-ahead.ts'

/** A reader over `count` chunks of which nothing is here at first. */
function reader(count: number): { read: (index: number) => void; fetched: Set<number>; misses: () => number } {
  const here = new Set<number>()
  const marks = new Set<number>()
  let misses = 0
  const ahead = new ReadAhead({ chunkCount: count, prefetch: (i) => void here.add(i), mark: (i) => void marks.add(i) })
  return {
    fetched: here,
    misses: () => misses,
    read: (index) => {
      if (!here.has(index)) {
        misses++
        here.add(index)
        ahead.touch(index)
      } else if (marks.delete(index)) ahead.touch(index)
    },
  }
}

test('a sequential reader soon misses no more', () => {
  const r = reader(1000)
  for (let i = 0; i < 1000; i++) r.read(i)
  assert.ok(r.misses() <= 3, `${r.misses()} misses`)
})

test('two sequential readers are both followed', () => {
  const r = reader(2000)
  for (let i = 0; i < 1000; i++) {
    r.read(i)
    r.read(1000 + i)
  }
  assert.ok(r.misses() <= 6, `${r.misses()} misses`)
})

test('reads here and there fetch nothing besides', () => {
  const r = reader(1000)
  for (const i of [5, 900, 40, 311, 77, 650, 12, 498]) r.read(i)
  assert.equal(r.fetched.size, 8)
})

test('stays within the image', () => {
  const r = reader(10)
  for (let i = 0; i < 10; i++) r.read(i)
  assert.equal(Math.max(...r.fetched), 9)
})
