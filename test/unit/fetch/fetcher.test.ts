import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import type { ChunkRequest } from '../../../node/model/chunk-request.ts'
import { Fetcher } from '../../../node/fetch/fetcher.ts'
import { PeerSource } from '../../../node/fetch/peer-source.ts'
import { PeerStanding } from '../../../node/peers/peer-standing.ts'
import type { ChunkClient } from '../../../node/peers/chunk/client.ts'
import { HeldByPeerError } from '../../../node/fetch/source.ts'
import { FakeClock } from '../../support/fake-clock.ts'
import { FakeBulk } from './fake-bulk.ts'
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
  /** Chunks that were read from the store. */
  reads: Digest[]
  asked: string[]
  registry: FakeSource
  bulk: FakeBulk
  put: (digest: Digest, bytes: Uint8Array) => Promise<void>
}

function world(
  peers: Record<string, (digest: Digest, signal: AbortSignal) => Promise<Uint8Array>>,
  registry?: (request: ChunkRequest, urgency: Urgency, isHeld: (() => boolean) | undefined) => Promise<Uint8Array>,
  { clock }: { clock?: FakeClock } = {},
): World {
  const stored = new Map<Digest, Uint8Array>()
  const reads: Digest[] = []
  const asked: string[] = []
  const standings: Record<string, PeerStanding> = {}
  const fetchChunk: ChunkClient['fetchChunk'] = async (peer, digest, _length, { signal }) => {
    asked.push(peer)
    return await peers[peer]!(digest, signal)
  }
  const result = {
    stored,
    reads,
    asked,
    bulk: new FakeBulk(),
    registry: new FakeSource(async (request, { urgency, isHeld }) => {
      if (registry === undefined) throw new P2pfsError('unavailable', 'registry is gone')
      return await registry(request, urgency, isHeld)
    }),
    put: async (digest, bytes) => void stored.set(digest, bytes),
  } as World
  result.fetcher = new Fetcher({
    inventory: {
      has: (digest) => stored.has(digest),
      get: async (digest) => {
        if (stored.has(digest)) reads.push(digest)
        return await Promise.resolve(stored.get(digest))
      },
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
        meet: async () => await Promise.resolve(),
        standing: (id) => (standings[id] ??= new PeerStanding({ now: () => 0 })),
        usualMs: () => 300,
        comingMs: 50,
        isBusyWithEarlier: () => false,
      },
      bulk: result.bulk,
      spans: { placeOf: () => ({ depth: 0, member: undefined }), ask: async () => undefined },
      log: silentLog,
      ...(clock && { clock }),
    }),
    registry: result.registry,
    log: silentLog,
    ...(clock && { clock }),
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

test('a chunk that a peer got while it waited for the registry comes from that peer; one that lies is asked once', async () => {
  for (const isLiar of [false, true]) {
    const { bytes, request } = chunk(isLiar ? 78 : 77)
    const peers: Parameters<typeof world>[0] = {}
    let tries = 0
    const w = world(peers, async (_request, _urgency, isHeld) => {
      if (tries++ === 0)
        peers['late'] = async () => (isLiar ? await Promise.reject(new P2pfsError('missing', 'no')) : bytes)
      await new Promise(setImmediate)
      if (isHeld?.() === true) throw new HeldByPeerError()
      return bytes
    })
    assert.equal((await w.fetcher.fetch(request, demand)).source, isLiar ? 'registry' : 'peer')
    assert.deepEqual([w.asked, tries], [['late'], isLiar ? 2 : 1])
  }
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

test('whoever looks at a chunk under way sees who is asked, who has refused, and how the registry stands', async () => {
  const { request } = chunk(8)
  const clock = new FakeClock()
  const registry = Promise.withResolvers<Uint8Array>()
  const silent = Promise.withResolvers<Uint8Array>()
  const w = world(
    {
      a: async () => await Promise.reject(new P2pfsError('busy', 'later')),
      b: async () => await silent.promise,
    },
    async () => await registry.promise,
    { clock },
  )
  assert.equal(w.fetcher.inquiry(request.digest), undefined)
  const fetching = w.fetcher.fetch(request, demand)
  fetching.catch(() => undefined)
  await clock.pass(100)
  const refusals = [{ peer: 'a', code: 'busy' }]
  assert.deepEqual(w.fetcher.inquiry(request.digest), { peers: ['b'], refusals, registry: undefined })
  await clock.pass(3_000)
  assert.deepEqual(w.fetcher.inquiry(request.digest), { peers: ['b'], refusals, registry: 'asked' })
  registry.reject(new P2pfsError('denied', 'no'))
  await clock.pass(10)
  assert.deepEqual(w.fetcher.inquiry(request.digest), { peers: ['b'], refusals, registry: 'denied' })
  silent.reject(new P2pfsError('missing', 'gone'))
  await assert.rejects(fetching)
  assert.equal(w.fetcher.inquiry(request.digest), undefined)
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

const tick = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))

/** A world in which peer a delivers in bulk what nobody waits for, and chunk n over libp2p. */
function bulkWorld(n: number): World & ReturnType<typeof chunk> & { overLibp2p: string[] } {
  const overLibp2p: string[] = []
  const { bytes, request } = chunk(n)
  const w = world({
    a: async () => {
      overLibp2p.push('a')
      return bytes
    },
  })
  w.bulk.open.add('a')
  return Object.assign(w, { bytes, request, overLibp2p })
}

test('what nobody waits for comes in bulk, and its bytes do not pass through here', async () => {
  const { fetcher, bulk, request, asked, stored } = bulkWorld(300)
  const fetching = fetcher.fetchToStore(request, background)
  await tick()
  bulk.wanted.get(request.digest)!.resolve()
  assert.equal(await fetching, 'peer')
  await fetcher.settled()
  assert.deepEqual(asked, [])
  assert.equal(stored.size, 0, 'the bulk plane has told the store')
  assert.deepEqual(fetcher.fromPeers, { bytes: 4096, chunks: 1 })
})

test('what a seed fetches in bulk comes after all others of the holder, what is read ahead and for a boot does not', async () => {
  for (const priority of ['ahead', 'boot', 'background'] as const) {
    const { fetcher, bulk, request } = bulkWorld(306)
    const fetching = fetcher.fetchToStore(request, { ...background, priority })
    await tick()
    assert.deepEqual(bulk.last, priority === 'background' ? [request.digest] : [])
    bulk.wanted.get(request.digest)!.resolve()
    await fetching
  }
})

test('whoever wants the bytes of a chunk that came in bulk gets them from the store', async () => {
  const { fetcher, bulk, request, bytes, stored, asked } = bulkWorld(301)
  const fetching = fetcher.fetch(request, background)
  await tick()
  stored.set(request.digest, bytes)
  bulk.wanted.get(request.digest)!.resolve()
  assert.deepEqual(await fetching, { bytes, source: 'peer' })
  assert.deepEqual(asked, [])
})

test('all who wait for a chunk that comes in bulk share one read of its file', async () => {
  const { fetcher, bulk, request, bytes, stored, reads } = bulkWorld(303)
  const fetching = Promise.all([1, 2, 3].map(async () => await fetcher.fetch(request, background)))
  await tick()
  stored.set(request.digest, bytes)
  bulk.wanted.get(request.digest)!.resolve()
  for (const fetched of await fetching) assert.equal(fetched.bytes, bytes)
  assert.deepEqual(reads, [request.digest])
})

test('a chunk that the disk loses before it is read is fetched anew, a few times', async () => {
  const { fetcher, bulk, request } = bulkWorld(302)
  const fetching = fetcher.fetch(request, background)
  let tries = 0
  const failed = assert.rejects(fetching, (error) => isP2pfsError(error, 'unavailable'))
  for (let ticks = 0; ticks < 100; ticks++) {
    await tick()
    const wanted = bulk.wanted.get(request.digest)
    if (wanted === undefined) continue
    tries++
    wanted.resolve()
  }
  await failed
  assert.equal(tries, 3)
})

test('a read that somebody waits for goes over libp2p', async () => {
  const { fetcher, bulk, request, overLibp2p } = bulkWorld(303)
  assert.equal((await fetcher.fetch(request, demand)).source, 'peer')
  assert.deepEqual(overLibp2p, ['a'])
  assert.deepEqual(bulk.underWay, [])
})

test('a read that comes to wait for a chunk under way in bulk raises it, and asks over libp2p where it is late', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { fetcher, bulk, request, bytes, overLibp2p } = bulkWorld(304)
  const ahead = fetcher.fetchToStore(request, { ...background, priority: 'ahead' })
  await tick()
  const read = fetcher.fetch(request, demand)
  await tick()
  assert.deepEqual(bulk.raised, [request.digest])
  t.mock.timers.tick(249)
  await tick()
  assert.deepEqual(overLibp2p, [])
  t.mock.timers.tick(1)
  assert.deepEqual(await read, { bytes, source: 'peer' })
  assert.equal(await ahead, 'peer')
  assert.deepEqual(overLibp2p, ['a'])
  await tick()
  assert.deepEqual(bulk.cancelled, [request.digest], 'its bulk want is given up')
})

for (const code of ['unavailable', 'timeout', 'busy'] as const) {
  test(`a peer whose bulk connection fails (${code}) is asked over libp2p, and not blamed`, async () => {
    const { fetcher, bulk, request, overLibp2p } = bulkWorld(305)
    const fetching = fetcher.fetchToStore(request, background)
    await tick()
    bulk.wanted.get(request.digest)!.reject(new P2pfsError(code, 'bulk connection has ended'))
    assert.equal(await fetching, 'peer')
    assert.deepEqual(overLibp2p, ['a'])
  })
}

for (const code of ['missing', 'invalid'] as const) {
  test(`a peer that answers ${code} in bulk is not asked over libp2p: the next source is`, async () => {
    const { fetcher, bulk, registry, request, overLibp2p } = bulkWorld(306)
    const fetching = fetcher.fetchToStore(request, background).catch(() => undefined)
    await tick()
    bulk.wanted.get(request.digest)!.reject(new P2pfsError(code, 'no'))
    await fetching
    assert.deepEqual(overLibp2p, [])
    assert.equal(registry.asked.length, 1)
  })
}

test('a fetch in bulk that everybody gives up is cancelled', async () => {
  const { fetcher, bulk, request, overLibp2p } = bulkWorld(307)
  const abort = new AbortController()
  const fetching = fetcher.fetchToStore(request, { ...background, signal: abort.signal })
  await tick()
  abort.abort(new Error('given up'))
  await assert.rejects(fetching, /given up/)
  await tick()
  assert.deepEqual(bulk.cancelled, [request.digest])
  assert.deepEqual(overLibp2p, [])
})

test('the bulk plane hears how much is under way to a peer', async () => {
  const { fetcher, bulk } = bulkWorld(308)
  for (let n = 0; n < 3; n++) fetcher.fetchToStore(chunk(310 + n).request, background).catch(() => undefined)
  await tick()
  assert.deepEqual(bulk.underWay, [4096, 8192, 12_288])
})
