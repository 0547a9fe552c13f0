import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import type { ChunkRequest } from '../../../node/model/chunk-request.ts'
import { Fetcher } from '../../../node/fetch/fetcher.ts'
import { PeerSource } from '../../../node/fetch/peer-source.ts'
import { PeerStanding } from '../../../node/peers/peer-standing.ts'
import type { ChunkClient } from '../../../node/peers/chunk/client.ts'
import { FakeSource } from './fake-source.ts'
import { silentLog } from '../../../node/base/log.ts'
import type { Urgency } from '../../../node/base/urgency.ts'

const chunk = (n: number): { bytes: Uint8Array; request: ChunkRequest } => {
  const bytes = Buffer.alloc(4096, n)
  bytes.writeUInt32LE(n)
  return {
    bytes,
    request: { digest: digestOf(bytes), lengthBytes: 4096, table: digestOf(Buffer.from('table')), index: n },
  }
}

interface World {
  fetcher: Fetcher
  stored: Map<Digest, Uint8Array>
  asked: string[]
  registry: FakeSource
  put: (digest: Digest, bytes: Uint8Array) => Promise<void>
}

function world(
  peers: Record<string, (digest: Digest, signal: AbortSignal) => Promise<Uint8Array>>,
  registry?: (request: ChunkRequest, urgency: Urgency) => Promise<Uint8Array>,
): World {
  const stored = new Map<Digest, Uint8Array>()
  const asked: string[] = []
  const standings: Record<string, PeerStanding> = {}
  const fetchChunk: ChunkClient['fetchChunk'] = async (peer, digest, _length, { signal }) => {
    asked.push(peer)
    return await peers[peer]!(digest, signal)
  }
  const result = {
    stored,
    asked,
    registry: new FakeSource(async (request, { urgency }) => {
      if (registry === undefined) throw new P2pfsError('unavailable', 'registry is gone')
      return await registry(request, urgency)
    }),
    put: async (digest, bytes) => void stored.set(digest, bytes),
  } as World
  result.fetcher = new Fetcher({
    inventory: {
      get: async (digest) => stored.get(digest),
      put: async (digest, bytes) => {
        await result.put(digest, bytes)
        return true
      },
    },
    peers: new PeerSource({
      availability: {
        holders: () => Object.keys(peers),
        whenAsked: async () => await Promise.resolve(),
        forgetClaim: () => undefined,
      },
      chunks: {
        fetchChunk,
        standing: (id) => (standings[id] ??= new PeerStanding({ now: () => 0 })),
        usualMs: () => 300,
        isBusyWithEarlier: () => false,
      },
      log: silentLog,
    }),
    registry: result.registry,
    log: silentLog,
  })
  return result
}

const demand = { signal: new AbortController().signal, priority: 'demand' } as const
const background = { signal: new AbortController().signal, priority: 'background' } as const

test('asks the peers before the registry, keeps what it gets, and then asks nobody', async () => {
  const { bytes, request } = chunk(1)
  const w = world({ a: async () => bytes })
  assert.deepEqual(await w.fetcher.fetch(request, demand), { bytes, source: 'peer' })
  await w.fetcher.settled()
  assert.deepEqual(await w.fetcher.fetch(request, demand), { bytes, source: 'local' })
  assert.deepEqual(w.asked, ['a'])
  assert.equal(w.registry.asked.length, 0)
  assert.deepEqual(w.fetcher.fromPeers, { bytes: 4096, chunks: 1 })
})

test('a peer that lies or fails costs another try elsewhere, not an error', async () => {
  const { bytes, request } = chunk(2)
  const w = world({
    liar: async () => {
      throw new P2pfsError('invalid', 'wrong bytes')
    },
    slow: async () => {
      throw new P2pfsError('timeout', 'no answer')
    },
    good: async () => bytes,
  })
  assert.equal((await w.fetcher.fetch(request, demand)).source, 'peer')
  assert.deepEqual(w.asked, ['liar', 'slow', 'good'])
  const next = chunk(3)
  await assert.doesNotReject(w.fetcher.fetch(next.request, demand))
  assert.equal(w.asked[3], 'good', 'those that failed a moment ago are asked last')
})

test('falls back to the registry when no peer delivers', async () => {
  const { bytes, request } = chunk(4)
  const w = world({}, async () => bytes)
  assert.equal((await w.fetcher.fetch(request, demand)).source, 'registry')
})

test('says unavailable when nobody delivers, and tries again for the next read', async () => {
  const { request } = chunk(5)
  const w = world({})
  await assert.rejects(w.fetcher.fetch(request, demand), (error) => isP2pfsError(error, 'unavailable'))
  await assert.rejects(w.fetcher.fetch(request, demand), (error) => isP2pfsError(error, 'unavailable'))
  assert.equal(w.registry.asked.length, 2)
})

test('one fetch per chunk, whoever asks', async () => {
  const { bytes, request } = chunk(6)
  const gate = Promise.withResolvers<Uint8Array>()
  const w = world({ a: async () => await gate.promise })
  const all = Promise.all(Array.from({ length: 20 }, async () => await w.fetcher.fetch(request, demand)))
  gate.resolve(bytes)
  assert.equal((await all).length, 20)
  assert.deepEqual(w.asked, ['a'])
})

test('a fetch goes on while anybody waits for it, and stops when nobody does', async () => {
  const { request } = chunk(7)
  let aborted = false
  const w = world({
    a: async (_digest, signal) =>
      await new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          aborted = true
          reject(signal.reason as Error)
        })
      }),
  })
  const [first, second] = [new AbortController(), new AbortController()]
  const one = w.fetcher.fetch(request, { signal: first.signal, priority: 'demand' })
  const two = w.fetcher.fetch(request, { signal: second.signal, priority: 'demand' })
  first.abort()
  await assert.rejects(one, { name: 'AbortError' })
  assert.equal(aborted, false)
  second.abort()
  await assert.rejects(two, { name: 'AbortError' })
  assert.equal(aborted, true)
})

test('a reader that comes when the others have just given up begins anew', async () => {
  const { bytes, request } = chunk(8)
  let isAway = true
  const w = world({ a: async () => (isAway ? await new Promise<never>(() => undefined) : bytes) })
  const first = new AbortController()
  const one = w.fetcher.fetch(request, { signal: first.signal, priority: 'demand' })
  await new Promise((resolve) => setImmediate(resolve))
  first.abort()
  await assert.rejects(one, { name: 'AbortError' })
  isAway = false
  assert.equal((await w.fetcher.fetch(request, demand)).source, 'peer')
})

test('says what each source said: the peers that were asked, and the registry', async () => {
  const { request } = chunk(9)
  const refusing = async (): Promise<never> => {
    throw new P2pfsError('timeout', 'words of theirs')
  }
  const w = world({ a: refusing, b: refusing })
  await assert.rejects(w.fetcher.fetch(request, demand), /peer a: timeout, peer b: timeout; registry: registry is gone/)
  const silent = world({ a: refusing }, async () => await new Promise<never>(() => undefined))
  const late = new AbortController()
  const reading = silent.fetcher.fetch(request, { signal: late.signal, priority: 'demand' })
  while (silent.registry.asked.length === 0) await new Promise((resolve) => setImmediate(resolve))
  late.abort(new P2pfsError('timeout', 'late'))
  await assert.rejects(reading, /peer a: timeout; registry: nothing has come yet/)
})

test('a chunk is missing only where no peer that holds it has failed to answer', async () => {
  const { request } = chunk(11)
  const failing = (code: ErrorCode) => async (): Promise<never> => {
    throw new P2pfsError(code, code)
  }
  const registry = failing('missing')
  for (const code of ['timeout', 'busy', 'unavailable'] as const)
    await assert.rejects(world({ a: failing(code) }, registry).fetcher.fetch(request, demand), { code: 'unavailable' })
  await assert.rejects(world({ a: failing('missing') }, registry).fetcher.fetch(request, demand), { code: 'missing' })
})

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
  const chunks = Array.from({ length: 100 }, (_, n) => chunk(n))
  const all = chunks.map(async ({ request }) => await w.fetcher.fetch(request, background))
  const tick = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))
  await tick()
  assert.equal(gates.size, 32, 'background fetches are bounded')
  const queued = chunks[99]!
  const read = w.fetcher.fetch(queued.request, demand)
  await tick()
  gates.get(queued.request.digest)!.resolve(queued.bytes)
  assert.equal((await read).source, 'peer')
  while (w.stored.size < 100) {
    for (const { bytes, request } of chunks) gates.get(request.digest)?.resolve(bytes)
    await tick()
  }
  assert.equal((await Promise.all(all)).length, 100)
  assert.equal(w.asked.length, 100)
})

test('what a boot will read does not wait behind background fetches, and more of it is under way', async () => {
  const pending = new Map<Digest, () => void>()
  const w = world({}, async ({ digest, index }) => {
    await new Promise<void>((resolve) => pending.set(digest, resolve))
    return chunk(index).bytes
  })
  const tick = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))
  const chunks = Array.from({ length: 300 }, (_, n) => chunk(n).request)
  const all = chunks.slice(0, 40).map(async (request) => await w.fetcher.fetch(request, background))
  await tick()
  assert.equal(pending.size, 32)
  all.push(
    ...chunks.slice(39).map(async (request) => await w.fetcher.fetch(request, { ...background, priority: 'boot' })),
  )
  await tick()
  assert.equal(pending.size, 32 + 256)
  assert.ok(pending.has(chunks[39]!.digest), 'one that waited in the background moved up')
  assert.ok(!pending.has(chunks[38]!.digest))
  while (w.stored.size < 300) {
    for (const resolve of pending.values()) resolve()
    await tick()
  }
  assert.equal((await Promise.all(all)).length, 301)
  assert.equal(w.registry.asked.length, 300)
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
  assert.ok(came > 90 && came < 140, `${came} came`)
  assert.equal((await w.fetcher.fetch(all[399]!.request, demand)).source, 'peer')
  disk.resolve()
  await Promise.all(ahead)
  await w.fetcher.settled()
  assert.equal(w.stored.size, 400)
})
