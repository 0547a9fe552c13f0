import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ReadAhead } from '../../../node/mount/read-ahead.ts'

/** A reader over `count` chunks of `chunkBytes` of which nothing is here at first. */
function reader(
  count: number,
  chunkBytes = 2 ** 18,
): { read: (index: number) => void; fetched: Set<number>; misses: () => number } {
  const here = new Set<number>()
  const triggers = new Set<number>()
  let misses = 0
  const ahead = new ReadAhead({
    offsets: Float64Array.from({ length: count + 1 }, (_, i) => i * chunkBytes),
    prefetch: (i) => void here.add(i),
    setTrigger: (i) => void triggers.add(i),
  })
  return {
    fetched: here,
    misses: () => misses,
    read: (index) => {
      if (!here.has(index)) {
        misses++
        here.add(index)
        ahead.touch(index)
      } else if (triggers.delete(index)) ahead.touch(index)
    },
  }
}

test('a sequential reader soon misses no more', () => {
  const r = reader(1000)
  for (let i = 0; i < 1000; i++) r.read(i)
  assert.ok(r.misses() <= 5, `${r.misses()} misses`)
})

test('the window is measured in bytes: it holds more of smaller chunks', () => {
  const r = reader(4000, 64 * 1024)
  for (let i = 0; i < 600; i++) r.read(i)
  assert.ok(r.misses() <= 4, `${r.misses()} misses`)
  assert.ok(r.fetched.size > 700)
})

test('a reader that keeps jumping does not make all chunks between be fetched', () => {
  const r = reader(4000, 64 * 1024)
  let read = 0
  for (let i = 0; i < 2000; i += 3) {
    r.read(i)
    read++
  }
  assert.ok(r.fetched.size < read * 1.7, `${r.fetched.size} fetched, ${read} read`)
})

test('two sequential readers are both followed', () => {
  const r = reader(2000)
  for (let i = 0; i < 1000; i++) {
    r.read(i)
    r.read(1000 + i)
  }
  assert.ok(r.misses() <= 10, `${r.misses()} misses`)
})

test('scattered reads fetch no other chunks', () => {
  const r = reader(1000)
  for (const i of [5, 900, 40, 311, 77, 650, 12, 498]) r.read(i)
  assert.equal(r.fetched.size, 8)
})

test('read-ahead ends at the end of the image', () => {
  const r = reader(10)
  for (let i = 0; i < 10; i++) r.read(i)
  assert.equal(Math.max(...r.fetched), 9)
})

test('a chunk is asked for once, though its pieces are missed one by one until it is here', () => {
  const asked: number[] = []
  const ahead = new ReadAhead({
    offsets: Float64Array.from({ length: 1001 }, (_, i) => i * 2 ** 18),
    prefetch: (i) => void asked.push(i),
    setTrigger: () => undefined,
  })
  for (let i = 0; i < 900; i++) {
    for (const reader of [i, i + 50]) for (let piece = 0; piece < 4; piece++) if (reader < 950) ahead.touch(reader)
  }
  assert.ok(asked.length > 900)
  // Two readers: each is followed by itself.
  assert.ok(asked.length < 2 * 1000, `${asked.length} chunks asked for`)
})
