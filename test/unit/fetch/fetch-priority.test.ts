import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Digest } from '../../../protocol/digest.ts'
import type { ChunkRequest } from '../../../node/model/chunk-request.ts'
import { FakeClock } from '../../support/fake-clock.ts'
import { background, chunk, demand, world } from './fetch-world.ts'

test('a demand read that joins a fetch makes it urgent at the registry, too', async () => {
  const { bytes, request } = chunk(10)
  const urgent: boolean[] = []
  const w = world({}, async (_request, urgency) => {
    urgent.push(urgency.isUrgent)
    await new Promise<void>((resolve) => urgency.onRaise(resolve))
    urgent.push(urgency.isUrgent)
    return bytes
  })
  const ahead = w.fetcher.fetch(request, background)
  while (w.registry.asked.length === 0) await new Promise((resolve) => setImmediate(resolve))
  assert.equal((await w.fetcher.fetch(request, demand)).source, 'registry')
  await ahead
  assert.deepEqual(urgent, [false, true])
})

test('a demand read does not wait behind background fetches, not even for a chunk that is queued there', async () => {
  const gates = new Map<Digest, PromiseWithResolvers<Uint8Array>>()
  const w = world({
    a: async (digest) => {
      const gate = Promise.withResolvers<Uint8Array>()
      gates.set(digest, gate)
      return await gate.promise
    },
  })
  const chunks = Array.from({ length: 200 }, (_, n) => chunk(n))
  const all = chunks.map(async ({ request }) => await w.fetcher.fetch(request, background))
  const tick = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))
  await tick()
  assert.equal(gates.size, 128, 'background fetches are bounded')
  const queued = chunks[199]!
  const read = w.fetcher.fetch(queued.request, demand)
  await tick()
  gates.get(queued.request.digest)!.resolve(queued.bytes)
  assert.equal((await read).source, 'peer')
  while (w.stored.size < 200) {
    for (const { bytes, request } of chunks) gates.get(request.digest)?.resolve(bytes)
    await tick()
  }
  assert.equal((await Promise.all(all)).length, 200)
  assert.equal(w.asked.length, 200)
})

test('what a boot will read does not wait behind background fetches, and more of it is under way', async () => {
  const pending = new Map<Digest, () => void>()
  const w = world({}, async ({ digest, index }) => {
    await new Promise<void>((resolve) => pending.set(digest, resolve))
    return chunk(index).bytes
  })
  const tick = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))
  const chunks = Array.from({ length: 400 }, (_, n) => chunk(n).request)
  const all = chunks.slice(0, 136).map(async (request) => await w.fetcher.fetch(request, background))
  await tick()
  assert.equal(pending.size, 128)
  all.push(
    ...chunks.slice(135).map(async (request) => await w.fetcher.fetch(request, { ...background, priority: 'boot' })),
  )
  await tick()
  assert.equal(pending.size, 128 + 256)
  assert.ok(pending.has(chunks[135]!.digest), 'one that waited in the background moved up')
  assert.ok(!pending.has(chunks[134]!.digest))
  while (w.stored.size < 400) {
    for (const resolve of pending.values()) resolve()
    await tick()
  }
  assert.equal((await Promise.all(all)).length, 401)
  assert.equal(w.registry.asked.length, 400)
})

test('while somebody waits for a chunk, and a moment after that, few background fetches are under way', async () => {
  const clock = new FakeClock()
  const pending = new Map<Digest, () => void>()
  const w = world(
    {},
    async ({ digest, index }) => {
      await new Promise<void>((resolve) => pending.set(digest, resolve))
      return chunk(index).bytes
    },
    { clock },
  )
  const tick = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))
  const finish = async ({ digest }: ChunkRequest): Promise<void> => {
    pending.get(digest)!()
    pending.delete(digest)
    await tick()
  }
  const chunks = Array.from({ length: 400 }, (_, n) => chunk(n).request)
  const read = w.fetcher.fetch(chunks[399]!, demand)
  const ahead = w.fetcher.fetch(chunks[398]!, { ...background, priority: 'ahead' })
  const all = chunks.slice(0, 398).map(async (request) => await w.fetcher.fetchToStore(request, background))
  await tick()
  assert.equal(pending.size, 2 + 1)
  await finish(chunks[0]!)
  assert.equal(pending.size, 2 + 1, 'a read that waits for long does not end a seed')
  await finish(chunks[399]!)
  await read
  await tick()
  assert.equal(pending.size, 1 + 4)
  await finish(chunks[1]!)
  assert.equal(pending.size, 1 + 4, 'the next read may come at once')
  await clock.pass(1_000)
  await finish(chunks[2]!)
  assert.equal(pending.size, 1 + 128)
  while (pending.size > 0) for (const [digest] of pending) await finish({ digest } as ChunkRequest)
  await Promise.all([ahead, ...all])
})

test('what waits for its turn is begun by priority, in whatever order it came', async () => {
  const pending = new Map<Digest, () => void>()
  const begun: number[] = []
  const w = world({}, async ({ digest, index }) => {
    begun.push(index)
    await new Promise<void>((resolve) => pending.set(digest, resolve))
    return chunk(index).bytes
  })
  const tick = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))
  const ofPriority = { ahead: [0, 200], boot: [200, 600], background: [600, 800] } as const
  const all = (['background', 'boot', 'ahead'] as const).flatMap((priority) =>
    Array.from({ length: 800 }, (_, n) => chunk(n).request)
      .slice(...ofPriority[priority])
      .map(async (request) => await w.fetcher.fetch(request, { ...background, priority })),
  )
  await tick()
  assert.equal(begun.length, 128 + 256 + 64, 'each has what it may have under way')
  const before = begun.length
  while (w.stored.size < 800) {
    for (const [digest, resolve] of pending) {
      pending.delete(digest)
      resolve()
    }
    await tick()
  }
  await Promise.all(all)
  const later = begun.slice(before).map((n) => (n < 200 ? 'ahead' : n < 600 ? 'boot' : 'background'))
  assert.ok(later.lastIndexOf('ahead') < later.indexOf('boot'), 'no boot before all of read-ahead is begun')
  assert.ok(later.lastIndexOf('boot') < later.indexOf('background'), 'no other before all of the boot is begun')
})

test('what nobody waits for comes no faster than the disk takes it; a reader does not wait for the disk', async () => {
  const disk = Promise.withResolvers<void>()
  const w = world({ a: async (digest) => byDigest.get(digest)! })
  const all = Array.from({ length: 400 }, (_, n) => chunk(n))
  const byDigest = new Map(all.map(({ bytes, request }) => [request.digest, bytes]))
  const put = w.stored.set.bind(w.stored)
  w.put = async (digest, bytes) => {
    await disk.promise
    put(digest, bytes)
  }
  const { signal } = background
  const ahead = all
    .slice(0, 399)
    .map(async ({ request }) => await w.fetcher.fetch(request, { signal, priority: 'ahead' }))
  for (let i = 0; i < 20; i++) await new Promise(setImmediate)
  const came = w.asked.length
  assert.ok(came > 90 && came < 96 + 64 + 8, `${came} came`)
  assert.equal((await w.fetcher.fetch(all[399]!.request, demand)).source, 'peer')
  disk.resolve()
  await Promise.all(ahead)
  await w.fetcher.settled()
  assert.equal(w.stored.size, 400)
})
