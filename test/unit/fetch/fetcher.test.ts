import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isP2pfsError, P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import { HeldByPeerError } from '../../../node/fetch/source.ts'
import { FakeClock } from '../../support/fake-clock.ts'
import { chunk, demand, world } from './fetch-world.ts'

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
