import assert from 'node:assert/strict'
import { test } from 'node:test'
import { P2pfsError } from '../../../protocol/errors.ts'
import { worthBytes } from '../../../node/peers/bulk/bulk-limits.ts'
import { standings } from '../../../node/peers/peer-standing.ts'
import { chunk, good, scriptedRegion, slowLink, type Script } from './scripted-region.ts'

const hasIt = (): 'has it' => 'has it'

/** Has too much to serve: it sends everybody to others, and serves after `ms` who has nobody else. */
const busy =
  (holders: readonly string[], ms = 10): Script =>
  async (want, { sleep, give, sendElsewhere }) => {
    if (!want.waits) return await sendElsewhere(want, holders)
    await sleep(ms)
    await give(want)
  }

for (const priority of ['demand', 'boot'] as const) {
  test(`a holder that has too much to serve sends a ${priority} fetch to one that has not said that it holds the chunk`, async () => {
    const scripts = { a: busy(['b']), b: good() }
    const { read, wants, peers, atRegistry } = scriptedRegion(scripts, hasIt, { quiet: ['b'] })
    assert.deepEqual(await read(0, { priority }), { source: 'peer', ms: 10 })
    assert.deepEqual([wants['a'], wants['b'], atRegistry], [1, 1, []])
    assert.ok(peers['a']!.standing.current <= standings.unproven, 'who has much to serve is not to blame')
  })

  test(`where all have too much to serve, a ${priority} fetch waits for its turn at the last, and not at the registry`, async () => {
    const scripts = { a: busy(['b'], 200), b: busy(['a'], 200) }
    const { read, wants, atRegistry } = scriptedRegion(scripts, hasIt, { quiet: ['b'] })
    assert.deepEqual(await read(0, { priority }), { source: 'peer', ms: 200 })
    assert.deepEqual([wants['a'], wants['b'], atRegistry], [1, 2, []])
  })

  test(`a ${priority} fetch that is sent to who lacks the chunk, or is no member, comes back`, async () => {
    const scripts: Record<string, Script> = {
      a: busy(['b', 'nobody', 'me']),
      b: async (want, { lack }) => await lack(want),
    }
    const { read, atRegistry } = scriptedRegion(scripts, hasIt, { quiet: ['b'] })
    assert.deepEqual(await read(0, { priority }), { source: 'peer', ms: 10 })
    assert.deepEqual(atRegistry, [])
  })
}

test('holders that name each other for ever are asked a bounded number of times', async () => {
  const ids = Array.from({ length: 40 }, (_, i) => `p${i}`)
  const scripts = Object.fromEntries(
    ids.map((id, i): [string, Script] => [id, busy([1, 2, 3].map((step) => ids[(i * 3 + step) % ids.length]!))]),
  )
  const { read, wants } = scriptedRegion(scripts, hasIt, { quiet: ids.slice(1) })
  assert.equal((await read(0, { priority: 'boot' })).source, 'peer')
  const asked = Object.values(wants).reduce((sum, n) => sum + n, 0)
  assert.ok(asked <= 11, `${asked} wants`)
})

test('a peer that sends 1 KB a second costs a hedge, and is then asked last while another holds the chunks', async () => {
  // Four seconds for a chunk of 4 KiB.
  const { read, clock, wants, peers, atRegistry } = scriptedRegion({ slow: slowLink(4_096), other: good() }, hasIt)
  let hedges = 0
  for (let index = 0; index < 100; index++) {
    const { source, ms } = await read(index)
    assert.equal(source, 'peer')
    assert.ok(ms <= 320, `read ${index}: ${ms} ms`)
    if (ms > 20) hedges++
    await clock.pass(250)
    if (index === 10) assert.equal(peers['slow']!.standing.current, standings.silent)
  }
  assert.deepEqual([hedges, wants['slow'], atRegistry], [1, 1, []])
})

test('a peer that sends 1 KB a second in bulk costs a reader one hedge, and is then asked last', async () => {
  const { fetcher, bulk, read, clock, wants, peers } = scriptedRegion({ slow: slowLink(4_096), other: good() }, hasIt)
  const { signal } = new AbortController()
  bulk.open.add('slow')
  void fetcher.fetchToStore(chunk(0).request, { signal, priority: 'ahead' })
  await clock.pass(10)
  assert.deepEqual(bulk.asked, ['slow'])
  const { source, ms } = await read(0)
  assert.equal(source, 'peer')
  assert.ok(ms <= 320, `${ms} ms`)
  await clock.pass(1_000)
  assert.equal(peers['slow']!.standing.current, standings.silent)
  for (let index = 1; index < 60; index++) {
    const read1 = await read(index, { priority: index % 2 === 0 ? 'ahead' : 'demand' })
    assert.ok(read1.ms <= 20, `read ${index}: ${read1.ms} ms`)
    await clock.pass(250)
  }
  assert.deepEqual([bulk.asked, wants['slow']], [['slow'], 1])
})

test('a peer that sends 1 KB a second and holds chunks alone costs a read the time of the registry at most', async () => {
  const { read, wants } = scriptedRegion({ slow: slowLink(4_096) }, hasIt)
  for (let index = 0; index < 20; index++) {
    const { ms } = await read(index)
    assert.ok(ms <= 3_000, `read ${index}: ${ms} ms`)
  }
  assert.ok(wants['slow']! <= 20, `${wants['slow']} wants`)
})

test('a holder that has too much to serve in bulk sends a seed to those that it names, and not to its main thread', async () => {
  const { fetcher, bulk, clock, wants, peers } = scriptedRegion({ a: good(), b: good() }, hasIt, { quiet: ['b'] })
  const { signal } = new AbortController()
  for (const id of ['a', 'b']) bulk.open.add(id)
  bulk.elsewhere.set('a', ['b'])
  const { request } = chunk(0)
  const fetching = fetcher.fetchToStore(request, { signal, priority: 'background' })
  await clock.pass(10)
  assert.deepEqual(bulk.asked, ['a', 'b'])
  assert.ok(bulk.underWay.at(-1)! >= worthBytes, 'more will come from who is named')
  bulk.wanted.get(request.digest)!.resolve()
  assert.equal(await fetching, 'peer')
  assert.deepEqual([wants['a'] ?? 0, wants['b'] ?? 0], [0, 0])
  assert.ok(peers['a']!.standing.current <= standings.unproven, 'who has much to serve is not to blame')
})

test('where all have too much to serve in bulk, the last one serves a seed in its turn', async () => {
  const { fetcher, bulk, clock, wants } = scriptedRegion({ a: good(), b: good() }, hasIt, { quiet: ['b'] })
  const { signal } = new AbortController()
  for (const id of ['a', 'b']) bulk.open.add(id)
  bulk.elsewhere.set('a', ['b']).set('b', ['a'])
  const { request } = chunk(0)
  const fetching = fetcher.fetchToStore(request, { signal, priority: 'background' })
  await clock.pass(10)
  assert.deepEqual(bulk.asked, ['a', 'b', 'b waits'])
  bulk.wanted.get(request.digest)!.resolve()
  assert.equal(await fetching, 'peer')
  assert.deepEqual([wants['a'] ?? 0, wants['b'] ?? 0], [0, 0])
})

test('a holder that is silent, or owes much already, is not asked in the place of the one that has named it', async () => {
  const { fetcher, bulk, clock, peers } = scriptedRegion({ a: good(), b: good() }, hasIt, { quiet: ['b'] })
  const { signal } = new AbortController()
  for (const id of ['a', 'b']) bulk.open.add(id)
  bulk.elsewhere.set('a', ['b'])
  const asked = async (index: number, lengthBytes = chunk(index).request.lengthBytes): Promise<string[]> => {
    bulk.asked.length = 0
    const { request } = chunk(index)
    void fetcher.fetchToStore({ ...request, lengthBytes }, { signal, priority: 'background' }).catch(() => undefined)
    await clock.pass(10)
    return [...bulk.asked]
  }
  assert.deepEqual(await asked(0, 16 * 1024 * 1024), ['a', 'b'])
  assert.deepEqual(await asked(1), ['a', 'a waits'], 'it owes much')
  for (const { reject } of bulk.wanted.values()) reject(new P2pfsError('missing', 'not there'))
  await clock.pass(10)
  assert.deepEqual(await asked(2), ['a', 'b'])
  peers['b']!.standing.fellSilent()
  assert.deepEqual(await asked(3), ['a', 'a waits'], 'it is silent')
})
