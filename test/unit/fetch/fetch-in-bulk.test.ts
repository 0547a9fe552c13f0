import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import { background, chunk, demand, tick, world, type World } from './fetch-world.ts'

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
