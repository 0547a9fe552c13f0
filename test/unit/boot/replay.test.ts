import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ProfileReplay } from '../../../node/boot/replay.ts'
import { silentLog } from '../../../node/base/log.ts'

const mebibyte = 2 ** 20
const { signal } = new AbortController()
const tick = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))
const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

interface World {
  replay: ProfileReplay
  /** Fetches under way, by chunk. */
  pending: Map<number, PromiseWithResolvers<void>>
  asked: number[]
  /** Peers hold all chunks from now on. */
  hold: () => void
}

function world(
  chunks: number[],
  { here = [], held = true, now = () => 0 }: { here?: number[]; held?: boolean; now?: () => number } = {},
): World {
  const pending = new Map<number, PromiseWithResolvers<void>>()
  const asked: number[] = []
  let isHeld = held
  const target = {
    has: (chunk: number) => here.includes(chunk),
    lengthAt: () => mebibyte / 4,
    isHeld: () => isHeld,
    fetch: async (chunk: number, options: { signal: AbortSignal }) => {
      asked.push(chunk)
      const fetching = Promise.withResolvers<void>()
      options.signal.addEventListener('abort', () => fetching.reject(options.signal.reason as Error))
      pending.set(chunk, fetching)
      await fetching.promise
    },
  }
  return {
    replay: new ProfileReplay({ target, log: silentLog, now }, chunks),
    pending,
    asked,
    hold: () => void (isHeld = true),
  }
}

test('chunks that are not here are fetched in the order of the profile, and counted', async () => {
  const { replay, pending, asked } = world([7, 3, 9, 1], { here: [3] })
  const done = replay.run({ signal })
  for (let i = 0; i < 3; i++) {
    await tick()
    for (const { resolve } of pending.values()) resolve()
  }
  await done
  assert.deepEqual(asked, [7, 9, 1])
  assert.deepEqual(
    [replay.total.chunks, replay.done.chunks, replay.fetched],
    [4, 4, { bytes: 0.75 * mebibyte, chunks: 3 }],
  )
})

test('a chunk that a peer gets while the replay waits for room counts as held', async () => {
  const { replay, pending, asked, hold } = world(upTo(400), { held: false })
  const done = replay.run({ signal })
  await tick()
  assert.equal(asked.length, 256)
  hold()
  pending.get(0)!.resolve()
  await tick()
  await tick()
  // As many as the window for peers has room for, and not the one that has become free.
  assert.equal(asked.length, 256 + 4)
  for (const { resolve } of pending.values()) resolve()
  for (let i = 0; i < 200; i++) {
    await tick()
    for (const { resolve } of pending.values()) resolve()
  }
  await done
})

test('nothing is fetched if all chunks are here', async () => {
  const { replay, asked } = world(upTo(50), { here: upTo(50) })
  await replay.run({ signal })
  assert.deepEqual([asked, replay.done.chunks, replay.fetched.chunks], [[], 50, 0])
})

/** Delivers what is under way, again and again. @returns the most that was under way at once */
async function deliver({ pending }: World, rounds: number): Promise<number> {
  let most = 0
  for (let i = 0; i < rounds; i++) {
    for (const [chunk, { resolve }] of pending) {
      pending.delete(chunk)
      resolve()
    }
    await tick()
    most = Math.max(most, pending.size)
  }
  return most
}

test('as many bytes are under way from peers as arrive soon', async () => {
  const ended = new AbortController()
  let clock = 0
  const fast = world(upTo(600))
  const slow = world(upTo(600), { now: () => (clock += 300) })
  const running = [fast, slow].map(async ({ replay }) => await replay.run({ signal: ended.signal }))
  await tick()
  assert.deepEqual([fast.asked.length, slow.asked.length], [4, 4], 'a mebibyte at first')
  assert.equal(await deliver(fast, 30), 32)
  await deliver(slow, 5)
  assert.equal(await deliver(slow, 10), 2)
  ended.abort()
  await Promise.all(running)
})

test('many chunks that no peer has are under way at once', async () => {
  const ended = new AbortController()
  const { replay, asked } = world(upTo(300), { held: false })
  const running = replay.run({ signal: ended.signal })
  await tick()
  assert.equal(asked.length, 256)
  ended.abort()
  await running
})

test('a replay ends with its mount, and gives up if nothing comes', async () => {
  const mount = new AbortController()
  const { replay, asked } = world(upTo(100))
  const running = replay.run({ signal: mount.signal })
  await tick()
  mount.abort()
  await running
  assert.equal(asked.length, 4)
  const { replay: hopeless, pending, asked: tried } = world(upTo(1000))
  const other = hopeless.run({ signal })
  for (let i = 0; i < 1000 && tried.length < 1000; i++) {
    for (const { reject } of pending.values()) reject(new Error('nobody has it'))
    pending.clear()
    await tick()
  }
  await other
  assert.ok(tried.length < 30, `${tried.length}`)
  assert.equal(hopeless.done.chunks, 0)
})
