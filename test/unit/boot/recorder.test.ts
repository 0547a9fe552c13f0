import assert from 'node:assert/strict'
import { test } from 'node:test'
import { recordBoot } from '../../../node/boot/recorder.ts'
import { ReadCounters } from '../../../node/mount/fuse/read-counters.ts'

const { signal } = new AbortController()

/** An image of which chunks can be touched. */
function image(count: number, kept = count): { readOrder: SharedArrayBuffer; touch: (...chunks: number[]) => void } {
  const readOrder = new SharedArrayBuffer((1 + kept) * 4)
  const state = new Uint8Array(new SharedArrayBuffer(count))
  const counters = new ReadCounters(ReadCounters.allocate(0), 0)
  return {
    readOrder,
    touch: (...chunks) =>
      chunks.forEach((chunk) => void counters.count({ state, readOrder: new Int32Array(readOrder) }, chunk, 1)),
  }
}

const never = (): boolean => false
const many = Array.from({ length: 20 }, (_, i) => 40 - i)

test('a boot is over when it uses no new chunk; each chunk is recorded once, in order', async () => {
  const { readOrder, touch } = image(50)
  const recording = recordBoot(
    { image: { readOrder }, isWaiting: never },
    { signal, intervalMs: 5, quietMs: 50, maxMs: 60_000, maxActiveMs: 60_000 },
  )
  touch(...many, 40, 39, 0)
  const { chunks, count } = await recording
  assert.deepEqual([chunks, count], [[...many, 0], 21])
})

test('a few reads are not a boot yet, and a boot is not over while a read waits', async () => {
  let waiting = false
  const { readOrder, touch } = image(50)
  let over = false
  const recording = recordBoot(
    { image: { readOrder }, isWaiting: () => waiting },
    { signal, intervalMs: 5, quietMs: 20 },
  ).then((boot) => {
    over = true
    return boot
  })
  const later = async (): Promise<void> => await new Promise((resolve) => setTimeout(resolve, 200))
  touch(1, 2, 3)
  await later()
  assert.equal(over, false)
  waiting = true
  touch(...many)
  await later()
  assert.equal(over, false)
  waiting = false
  assert.equal((await recording).count, 23)
})

test('a recording ends after a time in any case, and with the mount', async () => {
  const { readOrder, touch } = image(50)
  touch(1)
  assert.deepEqual(await recordBoot({ image: { readOrder }, isWaiting: never }, { signal, intervalMs: 5, maxMs: 50 }), {
    chunks: [1],
    count: 1,
    seconds: 0,
  })
  assert.deepEqual(
    (await recordBoot({ image: { readOrder }, isWaiting: never }, { signal, intervalMs: 5, maxActiveMs: 50 })).chunks,
    [1],
  )
  const mount = new AbortController()
  const recording = recordBoot({ image: { readOrder }, isWaiting: never }, { signal: mount.signal })
  touch(7)
  mount.abort()
  assert.deepEqual((await recording).chunks, [1, 7])
})

test('a boot that uses more chunks than are kept is told by their count', async () => {
  const { readOrder, touch } = image(50, 5)
  touch(...many)
  const { chunks, count } = await recordBoot(
    { image: { readOrder }, isWaiting: never },
    { signal, intervalMs: 5, quietMs: 10 },
  )
  assert.deepEqual([chunks, count], [many.slice(0, 5), 20])
})
