import assert from 'node:assert/strict'
import { test } from 'node:test'
import { standings } from '../../../node/peers/peer-standing.ts'
import { chunk, good, scriptedRegion, silent, slowLink, type Script } from './scripted-region.ts'

const hasIt = (): 'has it' => 'has it'
const isAway = (): 'is away' => 'is away'
const named = (count: number, script: Script): Record<string, Script> =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`peer${i}`, script]))
const { signal } = new AbortController()

for (const count of [1, 2, 7, 50]) {
  test(`${count} silent claimants: a read ends within 3 s, and after a few reads each costs the registry's time`, async () => {
    const { read, clock, wants } = scriptedRegion(named(count, silent), hasIt)
    for (let index = 0; index < 24; index++) {
      const { source, ms } = await read(index)
      assert.equal(source, 'registry')
      assert.ok(ms < 3_000, `read ${index} took ${ms} ms`)
    }
    await clock.pass(10_000)
    for (let index = 24; index < 40; index++) {
      const { ms } = await read(index)
      assert.ok(ms <= 110, `read ${index} took ${ms} ms`)
    }
    const asked = Object.values(wants).reduce((sum, n) => sum + n, 0)
    assert.ok(asked < 200, `${asked} wants were wasted`)
  })
}

test('fifty silent claimants do not hide the one holder that has delivered', async () => {
  const { read, atRegistry } = scriptedRegion({ ...named(50, silent), honest: good() }, hasIt)
  // Any peer may be asked first; the live one is found sooner or later.
  for (let index = 0; index < 60; index++) assert.ok((await read(index)).ms < 3_000)
  const before = atRegistry.length
  for (let index = 100; index < 140; index++) {
    const { source, ms } = await read(index)
    assert.deepEqual([source, ms <= 20], ['peer', true], `read ${index}: ${ms} ms from ${source}`)
  }
  assert.equal(atRegistry.length, before, 'the registry is not asked any more')
})

test('a silent holder costs a read the first 300 ms, and another holder delivers', async () => {
  const { read, wants, atRegistry } = scriptedRegion({ a: silent, b: good() }, hasIt)
  const { source, ms } = await read(0)
  assert.equal(source, 'peer')
  assert.ok(ms >= 300 && ms <= 330, `${ms} ms`)
  assert.equal((await read(1)).ms, 10)
  assert.deepEqual([wants['a'], atRegistry], [1, []])
})

test('a holder that is stopped in the middle costs a second at most, and is trusted again when it goes on', async () => {
  let isStopped = false
  const stopping: Script = async (want, far) => {
    await far.sleep(10)
    while (isStopped) await far.sleep(50)
    await far.give(want)
  }
  const { read, peers, clock } = scriptedRegion({ a: stopping, b: good() }, isAway)
  for (let index = 0; index < 20; index++) assert.ok((await read(index)).ms <= 320)
  isStopped = true
  for (let index = 20; index < 40; index++) {
    const { ms } = await read(index)
    assert.ok(ms <= 1_020, `${ms} ms`)
  }
  await clock.pass(1_000)
  assert.equal(peers['a']!.standing.isSilent, true)
  isStopped = false
  await clock.pass(31_000)
  const before = peers['a']!.traffic.snapshot().chunksReceived
  await Promise.all(Array.from({ length: 16 }, async (_, i) => await fetchIn(i + 100)))
  async function fetchIn(index: number): Promise<void> {
    await read(index)
  }
  assert.ok(peers['a']!.traffic.snapshot().chunksReceived > before)
  assert.equal(peers['a']!.standing.current, standings.proven)
})

test('a holder that drips bytes counts as silent', async () => {
  const drip: Script = async (_want, { raw, sleep }, place) => {
    if (place > 0) return
    raw(Uint8Array.of(0x85, 0x20, 0, 0, 0, 0, 0))
    for (;;) {
      await sleep(1)
      raw(Uint8Array.of(1))
    }
  }
  const { read, peers } = scriptedRegion({ a: drip }, hasIt)
  const { source, ms } = await read(0)
  assert.deepEqual([source, ms < 3_000], ['registry', true])
  assert.equal(peers['a']!.standing.isSilent, true)
})

test('a holder that lacks what it announced is asked last, and for that chunk no more', async () => {
  const { read, wants, peers } = scriptedRegion({ a: async (want, { lack }) => await lack(want), b: good() }, hasIt)
  assert.equal((await read(0)).source, 'peer')
  assert.equal(peers['a']!.holdings.has(chunk(0).request.table, 0), false)
  assert.equal(peers['a']!.holdings.has(chunk(0).request.table, 1), true)
  assert.equal(peers['a']!.standing.current, standings.failing)
  for (let index = 1; index < 10; index++) await read(index)
  assert.equal(wants['a'], 1)
})

test('a peer that lacks many of the chunks that it announced is asked last for ten minutes', async () => {
  const { read, clock, peers } = scriptedRegion({ a: async (want, { lack }) => await lack(want) }, hasIt)
  for (let index = 0; index < 15; index++) await read(index)
  await clock.pass(9_000)
  assert.equal(peers['a']!.standing.current, standings.failing)
  await read(15)
  await clock.pass(9 * 60_000)
  assert.equal(peers['a']!.standing.current, standings.failing)
  await clock.pass(2 * 60_000)
  assert.notEqual(peers['a']!.standing.current, standings.failing)
})

test('a holder that sends wrong bytes is banned, also when another source has delivered before', async () => {
  const liar: Script = async (want, { sleep, give }) => {
    await sleep(700)
    await give(want, Buffer.alloc(4096, 7))
  }
  const { read, region, clock } = scriptedRegion({ a: liar, b: good() }, hasIt)
  assert.equal((await read(0)).source, 'peer')
  assert.deepEqual(region.banned, [])
  await clock.pass(1_000)
  assert.deepEqual(region.banned, ['a'])
})

test('an honest slow link is not asked twice: of 500 chunks that queue on it at most 5 in 100 come from elsewhere too', async () => {
  // 256 KiB at 25 Mbit/s; eight readers.
  const { fetcher, clock, wants, atRegistry } = scriptedRegion({ slow: slowLink(84), other: slowLink(84) }, hasIt)
  let next = 0
  let done = 0
  const reader = async (): Promise<void> => {
    while (next < 500) {
      const { request } = chunk(next++)
      await fetcher.fetch(request, { signal, priority: 'demand' })
      done++
    }
  }
  for (let i = 0; i < 8; i++) void reader()
  for (let s = 0; s < 120 && done < 500; s++) await clock.pass(1_000)
  assert.equal(done, 500)
  const asked = wants['slow']! + wants['other']! + atRegistry.length
  assert.ok(asked <= 500 * 1.05, `${asked} were asked for`)
})

test('a deep queue on an honest slow link asks the registry for at most 5 in 100 chunks, and 16 besides', async () => {
  const { fetcher, clock, atRegistry } = scriptedRegion({ slow: slowLink(84) }, hasIt)
  let done = 0
  for (let index = 0; index < 100; index++)
    void fetcher.fetch(chunk(index).request, { signal, priority: 'demand' }).then(() => done++)
  for (let s = 0; s < 60 && done < 100; s++) await clock.pass(1_000)
  assert.equal(done, 100)
  assert.ok(atRegistry.length <= 16 + 5, `${atRegistry.length} were asked of the registry`)
})

test('pauses of a healthy peer cost at most 5 in 100 reads a second want, and 16 besides', async () => {
  // Every fourth answer takes six times as long as the others.
  const uneven: Script = async (want, { sleep, give }, place) => {
    await sleep(place % 4 === 3 ? 400 : 20)
    await give(want)
  }
  const { read, wants } = scriptedRegion({ a: uneven, b: uneven }, hasIt)
  for (let index = 0; index < 400; index++) await read(index)
  const asked = wants['a']! + wants['b']!
  assert.ok(asked <= 400 * 1.05 + 16, `${asked} wants`)
})

test('the registry is asked after two seconds where the only holder was not known as silent', async () => {
  const { read, atRegistry } = scriptedRegion({ a: good(1_990) }, hasIt)
  assert.equal((await read(0)).source, 'peer')
  assert.deepEqual(atRegistry, [])
  const { source, ms } = await scriptedRegion({ a: silent }, hasIt).read(0)
  assert.equal(source, 'registry')
  assert.ok(ms >= 2_000 && ms <= 2_110, `${ms} ms`)
})

test('a holder that delivers all but one chunk costs the reader of that one two seconds', async () => {
  const starving: Script = async (want, { sleep, give }, place) => {
    if (place === 0) return
    await sleep(10)
    await give(want)
  }
  const { fetcher, read, clock } = scriptedRegion({ a: starving }, hasIt)
  let source = ''
  const startMs = clock.now()
  let tookMs = 0
  void fetcher.fetch(chunk(0).request, { signal, priority: 'demand' }).then((fetched) => {
    source = fetched.source
    tookMs = clock.now() - startMs
  })
  for (let index = 1; index < 300; index++) await read(index)
  assert.equal(source, 'registry')
  assert.ok(tookMs < 3_000, `${tookMs} ms`)
})

test('a registry that fails keeps nobody from waiting for the peers, and is asked again while they are silent', async () => {
  let isBack = false
  const { read, atRegistry } = scriptedRegion({ a: good(4_000) }, isAway)
  assert.equal((await read(0)).source, 'peer')
  assert.ok(atRegistry.length >= 1)
  const other = scriptedRegion({ a: silent }, () => (isBack ? 'has it' : 'is away'))
  let source = ''
  void other.fetcher
    .fetch(chunk(0).request, { signal, priority: 'demand' })
    .then((fetched) => (source = fetched.source))
  await other.clock.pass(3_000)
  isBack = true
  await other.clock.pass(1_300)
  assert.equal(source, 'registry')
})

test('what nobody waits for is held for five seconds by a silent peer, and then comes from elsewhere', async () => {
  const { read, clock } = scriptedRegion(named(50, silent), hasIt)
  const first = await read(0, { priority: 'background' })
  assert.equal(first.source, 'registry')
  assert.ok(first.ms <= 5_500, `${first.ms} ms`)
  await clock.pass(10_000)
  for (let index = 1; index < 60; index++) {
    const { ms } = await read(index, { priority: 'ahead' })
    assert.ok(ms <= 5_500, `${ms} ms`)
  }
})

test('a background fetch that becomes a read has the rules of a read at once', async () => {
  const { fetcher, clock } = scriptedRegion({ a: silent, b: good() }, hasIt)
  const ended: string[] = []
  const fetch = (priority: 'background' | 'demand'): void =>
    void fetcher.fetch(chunk(0).request, { signal, priority }).then(({ source }) => ended.push(source))
  fetch('background')
  await clock.pass(900)
  assert.deepEqual(ended, [])
  fetch('demand')
  await clock.pass(50)
  assert.deepEqual(ended, ['peer', 'peer'])
})

test('a peer that has delivered is asked before one that has not; a new one is tried when the first is busy', async () => {
  const { read, wants, fetcher, clock } = scriptedRegion({ known: good(), new: good() }, isAway)
  await read(0)
  const known = wants['known'] === 1 ? 'known' : 'new'
  const other = known === 'known' ? 'new' : 'known'
  for (let index = 1; index < 10; index++) await read(index)
  assert.deepEqual([wants[known], wants[other]], [10, 0])
  for (let index = 10; index < 20; index++) void fetcher.fetch(chunk(index).request, { signal, priority: 'demand' })
  await clock.pass(0)
  assert.equal(wants[other], 1, 'one chunk at a time, until it has delivered')
  await clock.pass(100)
  for (let index = 20; index < 40; index++) void fetcher.fetch(chunk(index).request, { signal, priority: 'demand' })
  await clock.pass(100)
  assert.ok((wants[other] ?? 0) > 8)
})

test('wants that were given up count: a peer is never asked for more than it takes, but is asked again when it answers', async () => {
  const owed: (() => Promise<void>)[] = []
  const holdBack: Script = (want, { lack }) => void owed.push(async () => await lack(want))
  const { client, wants, clock } = scriptedRegion({ a: holdBack }, hasIt)
  const outcomes: Promise<string>[] = []
  const want = (index: number): void => {
    const abort = new AbortController()
    const { digest, lengthBytes } = chunk(index).request
    const options = { signal: abort.signal, streamClass: 'demand', stallMs: 1_000 } as const
    const asking = client.fetchChunk('a', digest, lengthBytes, options)
    outcomes.push(
      asking.then(
        () => 'came',
        (error: { code?: string }) => error.code ?? 'given up',
      ),
    )
    queueMicrotask(() => queueMicrotask(() => abort.abort()))
  }
  for (let index = 0; index < 1_100; index++) want(index)
  await clock.pass(0)
  const codes = await Promise.all(outcomes)
  assert.deepEqual([wants['a'], codes.filter((code) => code === 'busy').length], [1_024, 76])
  for (const answer of owed.splice(0)) await answer()
  await clock.pass(0)
  want(0)
  await clock.pass(0)
  assert.equal(wants['a'], 1_025)
})
