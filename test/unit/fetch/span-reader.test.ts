import assert from 'node:assert/strict'
import { test } from 'node:test'
import { standings } from '../../../node/peers/peer-standing.ts'
import { chunk, scriptedRegion, silent, type Script } from './scripted-region.ts'

const hasIt = (): 'has it' => 'has it'
const { signal } = new AbortController()

/** A member that reads from the registry in `ms`, and says so each half second. */
const reads =
  (ms: number): Script =>
  async (want, { sleep, tellComing, give }) => {
    let over = false
    void (async () => {
      while (!over) {
        await tellComing(want)
        await sleep(500)
      }
    })()
    await sleep(ms)
    over = true
    await give(want)
  }

test('a chunk that nobody holds is read by its reader, and the registry is not asked for it twice', async () => {
  const { read, atRegistry, wants } = scriptedRegion({ a: reads(1_500) }, hasIt, { reader: 'a' })
  for (let index = 0; index < 4; index++) {
    const { source, ms } = await read(index)
    assert.deepEqual([source, ms], ['peer', 1_500])
  }
  assert.deepEqual([atRegistry, wants['a']], [[], 4])
})

for (const [priority, dueMs] of [
  ['demand', 50],
  ['boot', 4_000],
] as const)
  test(`a reader that does not say that it reads is passed over: ${priority} waits ${dueMs} ms for it`, async () => {
    const { read } = scriptedRegion({ a: silent }, hasIt, { reader: 'a' })
    assert.deepEqual(await read(0, { priority }), { source: 'registry', ms: dueMs + 100 })
  })

test('of many readers that do not say soon that they read, few are passed over at once, and none is waited for longer than a second', async () => {
  const times: number[] = []
  const { read } = scriptedRegion({ a: silent }, hasIt, { reader: 'a' })
  await Promise.all(Array.from({ length: 12 }, async (_, index) => times.push((await read(index)).ms)))
  assert.deepEqual([times.filter((ms) => ms <= 200).length, times.every((ms) => ms <= 1_200)], [2, true], String(times))
})

test('a reader that gets on with other chunks is not passed over for one that it comes to within a second', async () => {
  const script: Script = async (want, far, place) => {
    await far.sleep(40 * place)
    await far.give(want)
  }
  const { read, atRegistry } = scriptedRegion({ a: script }, hasIt, { reader: 'a' })
  // It does not say that they are coming; a reader has 50 ms for that.
  const sources = await Promise.all(Array.from({ length: 5 }, async (_, index) => (await read(index)).source))
  assert.deepEqual([sources, atRegistry], [Array.from({ length: 5 }, () => 'peer'), []])
})

test('a reader that gets on with others of a boot is not passed over for one that it comes to after more than four seconds', async () => {
  const script: Script = async (want, far, place) => {
    await far.sleep(3_000 * place)
    await far.give(want)
  }
  const { read, atRegistry } = scriptedRegion({ a: script }, hasIt, { reader: 'a' })
  const reads = Array.from({ length: 5 }, async (_, index) => await read(index, { priority: 'boot', withinMs: 20_000 }))
  const sources = (await Promise.all(reads)).map(({ source }) => source)
  assert.deepEqual([sources, atRegistry], [Array.from({ length: 5 }, () => 'peer'), []])
})

test('a reader that gets on with others, and says nothing of one chunk of a boot, is passed over after thirty seconds', async () => {
  const { read, clock, peers } = scriptedRegion({ a: silent }, hasIt, { reader: 'a' })
  for (let atMs = 0; atMs < 60_000; atMs += 1_000) clock.after(atMs, () => peers['a']!.standing.gotOn())
  const { source, ms } = await read(0, { priority: 'boot', withinMs: 60_000 })
  assert.deepEqual([source, ms], ['registry', 30_100])
})

test('whoever comes to wait for a chunk of a boot lets its reader answer that before it is passed over', async () => {
  const script: Script = async (want, { sleep, tellComing, give }) => {
    if (want.kind === 'raise') return
    await sleep(430)
    await tellComing(want)
    await sleep(500)
    await give(want)
  }
  const { fetcher, clock, atRegistry } = scriptedRegion({ a: script }, hasIt, { reader: 'a' })
  const ahead = fetcher.fetch(chunk(0).request, { signal, priority: 'boot' })
  await clock.pass(400)
  const waiting = fetcher.fetch(chunk(0).request, { signal, priority: 'demand' })
  await clock.pass(1_000)
  assert.deepEqual([(await ahead).source, (await waiting).source, atRegistry], ['peer', 'peer', []])
})

test('a steward that names members that have nothing is asked three times, and none of these is blamed', async () => {
  const lacks: Script = async (want, { lack }) => await lack(want)
  const scripts = { a: lacks, b: lacks, c: lacks, d: lacks }
  const { read, wants, peers, questions } = scriptedRegion(scripts, hasIt, { reader: 'a', others: ['b', 'c', 'd'] })
  assert.deepEqual(await read(0), { source: 'registry', ms: 100 })
  assert.deepEqual([wants, questions], [{ a: 1, b: 1, c: 1, d: 1 }, [0, 0, 0]])
  assert.ok(Object.values(peers).every(({ standing }) => standing.current <= standings.unproven))
})

test('a reader that cannot read it costs a message, and is not asked again for a while', async () => {
  const lacks: Script = async (want, { lack }) => await lack(want)
  const { read, wants } = scriptedRegion({ a: lacks }, hasIt, { reader: 'a' })
  for (let index = 0; index < 4; index++) assert.deepEqual(await read(index), { source: 'registry', ms: 100 })
  assert.equal(wants['a'], 1)
})

test('a reader that only ever says that it reads costs few reads two seconds, none more than ten, and is found out', async () => {
  const lies: Script = async (want, { sleep, tellComing }) => {
    for (;;) {
      await tellComing(want)
      await sleep(500)
    }
  }
  const { read, wants } = scriptedRegion({ a: lies }, hasIt, { reader: 'a' })
  const times: number[] = []
  for (let index = 0; index < 40; index++) times.push((await read(index)).ms)
  assert.ok(
    times.every((ms) => ms <= 10_100),
    String(times),
  )
  assert.ok(times.filter((ms) => ms > 2_600).length <= 2, String(times))
  assert.ok(wants['a']! <= 25, `${wants['a']} wants were wasted`)
})

test('a host that another member asks to read a chunk asks nobody else to, also where it was waiting for another', async () => {
  const { fetcher, read, atRegistry, clock } = scriptedRegion({ a: reads(60_000) }, hasIt, { reader: 'a' })
  const asReader = async (index: number): Promise<string> =>
    (await fetcher.fetch(chunk(index).request, { signal, priority: 'boot', asReader: true })).source
  const alone = asReader(0)
  const waiting = read(1, { priority: 'boot' })
  await clock.pass(100)
  assert.equal(await alone, 'registry')
  const asked = asReader(1)
  await clock.pass(100)
  assert.deepEqual([await asked, (await waiting).source, atRegistry], ['registry', 'registry', [0, 1]])
})

test('a reader is told when somebody comes to wait for what it reads', async () => {
  const kinds: string[] = []
  const script: Script = async (want, far, place) => {
    kinds.push(want.kind)
    if (want.kind !== 'raise') await reads(1_000)(want, far, place)
  }
  const { fetcher, clock } = scriptedRegion({ a: script }, hasIt, { reader: 'a' })
  const ahead = fetcher.fetch(chunk(0).request, { signal, priority: 'boot' })
  await clock.pass(200)
  const waiting = fetcher.fetch(chunk(0).request, { signal, priority: 'demand' })
  await clock.pass(1_000)
  await Promise.all([ahead, waiting])
  assert.deepEqual(kinds, ['relay', 'raise'])
})
