import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import {
  encodeBootProfile,
  kinshipOf,
  maxProfileChunks,
  sketchOf,
  type BootProfile,
} from '../../../protocol/boot-profile.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { BootProfiles, profileChunks } from '../../../node/boot/profiles.ts'
import { silentLog } from '../../../node/base/log.ts'
import { openCatalog } from '../../support/stores.ts'

const { signal } = new AbortController()
const digest = (n: number): Digest => digestOf(Buffer.from(`${n}`))
const tableOf = (numbers: number[]): ChunkTable =>
  new ChunkTable(
    numbers.map(() => 4096),
    Buffer.concat(numbers.map((n) => digestToBytes(digest(n)))),
  )
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)
const sketch = (numbers: number[]): number[] => sketchOf([tableOf(numbers)])
const rootfs = (name: string): Digest => digestOf(Buffer.from(name))
const profile = (name: string, numbers: number[], chunks: number): BootProfile => ({
  rootfs: rootfs(name),
  sketch: sketch(numbers),
  seconds: 1,
  chunks: range(0, chunks).map(digest),
})

async function profiles(t: TestContext, answers: (BootProfile | undefined)[] = []): Promise<BootProfiles> {
  return new BootProfiles({
    catalog: await openCatalog(t),
    region: { askProfiles: () => answers.map(async (answer) => await Promise.resolve(answer)) },
    log: silentLog,
  })
}

test('a sketch is the same for the same chunks, and tells how much others have in common', () => {
  const all = range(0, 5000)
  assert.deepEqual(sketch(all), sketchOf([tableOf(range(2500, 5000)), tableOf(range(0, 2600))]))
  const near = (numbers: number[]): number =>
    kinshipOf({ rootfs: rootfs('a'), sketch: sketch(all) }, { rootfs: rootfs('b'), sketch: sketch(numbers) })
  assert.equal(near(range(9000, 14_000)), 0)
  const [half, most] = [near(range(2500, 7500)), near(range(500, 5500))]
  assert.ok(half > 5 && half < 40 && most > 40 && most < 64, `${half} ${most}`)
  assert.equal(kinshipOf(profile('a', [], 1), profile('a', all, 1)), Infinity)
})

test('of two boots of a rootfs the profile with more chunks stays', async (t) => {
  const known = await profiles(t)
  await known.keep(profile('a', range(0, 100), 30))
  await known.keep(profile('a', range(0, 100), 3))
  assert.equal((await known.nearest({ rootfs: rootfs('a'), sketch: [] }))?.chunks.length, 30)
  await known.keep(profile('a', range(0, 100), 31))
  assert.equal((await known.nearest({ rootfs: rootfs('a'), sketch: [] }))?.chunks.length, 31)
})

test('a rootfs without a profile gets that of its nearest relative, or none', async (t) => {
  const known = await profiles(t)
  await known.keep(profile('far', range(4000, 9000), 5))
  await known.keep(profile('near', range(100, 5100), 6))
  assert.equal((await known.nearest({ rootfs: rootfs('x'), sketch: sketch(range(0, 5000)) }))?.rootfs, rootfs('near'))
  assert.equal(await known.nearest({ rootfs: rootfs('x'), sketch: sketch(range(20_000, 21_000)) }), undefined)
})

test('the region is asked if this host has no profile: that of the very rootfs is best, a longer one is better', async (t) => {
  const subject = { rootfs: rootfs('x'), sketch: sketch(range(0, 1000)) }
  const relative = profile('v1', range(0, 1000), 200)
  const stranger = profile('stranger', range(50_000, 51_000), 500)
  const found = async (
    own: BootProfile | undefined,
    ...answers: (BootProfile | undefined)[]
  ): Promise<[number, string] | undefined> => {
    const known = await profiles(t, answers)
    if (own !== undefined) await known.keep(own)
    const result = await known.find(subject, [], { signal })
    assert.equal(
      (await known.nearest(subject))?.chunks.length,
      own?.chunks.length,
      'what others have recorded is not told on',
    )
    return result === undefined ? undefined : [result.profile.chunks.length, result.source]
  }
  assert.equal(await found(undefined, undefined, stranger), undefined)
  assert.deepEqual(await found(undefined, relative, undefined), [200, 'peer'])
  assert.deepEqual(
    await found(
      undefined,
      relative,
      { ...relative, rootfs: rootfs('x'), chunks: [] },
      profile('x', [], 40),
      profile('x', [], 90),
    ),
    [90, 'peer'],
  )
  assert.deepEqual(await found(profile('x', [], 7), profile('x', [], 90)), [7, 'local'])
  assert.deepEqual(await found(relative), [200, 'local'])
})

test('a published profile is used if nobody has recorded one; a malformed one is passed over', async (t) => {
  const subject = { rootfs: rootfs('x'), sketch: sketch(range(0, 1000)) }
  const known = await profiles(t, [undefined, profile('v1', range(0, 1000), 200)])
  known.addPublished(Buffer.from('no profile'))
  assert.equal((await known.find(subject, [], { signal }))?.source, 'peer')
  known.addPublished(encodeBootProfile(profile('x', [], 20)))
  const found = await known.find(subject, [], { signal })
  assert.deepEqual([found?.source, found?.profile.chunks.length], ['registry', 20])
})

test('a profile is read as those of its chunks that the image has, each once', () => {
  const tables = [tableOf([1, 2, 3]), tableOf([]), tableOf([4, 2, 5])]
  assert.deepEqual(profileChunks([5, 99, 2, 1, 5, 2].map(digest), tables), [5, 1, 0])
  assert.deepEqual(profileChunks([], tables), [])
  const hostile = Array.from({ length: maxProfileChunks }, () => digest(3))
  assert.deepEqual(profileChunks(hostile, tables), [2])
  const lookalike = `${digest(4).slice(0, 60)}${'0'.repeat(11)}` as Digest
  assert.deepEqual(profileChunks([lookalike], tables), [])
})
