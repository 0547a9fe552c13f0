import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import type { SeedProgress } from '../../../protocol/seed-job.ts'
import { silentLog } from '../../../node/base/log.ts'
import { ChunkCopy } from '../../../node/seeds/chunk-copy.ts'
import { ChunkStore } from '../../../node/store/chunk-store.ts'
import { Inventory } from '../../../node/store/inventory.ts'
import { FakeClock } from '../../support/fake-clock.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

test('a chunk that its disk damages is no longer held or verified once it is found, and comes again', async (t) => {
  const directory = temporaryDirectory(t)
  const reserve = { isFull: false, release: async () => await Promise.resolve() }
  const chunks = await ChunkStore.open({ log: silentLog, reserve }, { directory })
  const nobody = {
    announce: () => undefined,
    announceChunks: () => undefined,
    withdrawChunks: () => undefined,
    forget: () => undefined,
  }
  const inventory = new Inventory({ chunks, region: nobody })
  const contents = new Map<Digest, Buffer>()
  for (let i = 0; i < 4; i++) contents.set(digestOf(Buffer.alloc(4096, i + 1)), Buffer.alloc(4096, i + 1))
  const table = new ChunkTable(
    [...contents.values()].map(({ length }) => length),
    Buffer.concat([...contents.keys()].map(digestToBytes)),
  )
  inventory.track(table)
  let fetched = 0
  const parts = {
    inventory,
    fetcher: {
      fetchToStore: async ({ digest }: { digest: Digest }) => {
        if (inventory.has(digest)) return 'local' as const
        fetched++
        await inventory.put(digest, contents.get(digest)!, 'peer')
        return 'peer' as const
      },
      settled: async () => await Promise.resolve(),
    },
    clock: new FakeClock(),
  }
  const options = { signal: new AbortController().signal, onProgress: () => undefined }
  const copy = new ChunkCopy([table], { verified: new Bitmap(table.count) })
  assert.deepEqual(await copy.complete(parts, options), { held: 4, verified: 4, total: 4 })

  const [damaged] = contents.keys()
  writeFileSync(chunkFile(directory, damaged!), Buffer.alloc(4096, 99))
  await inventory.scrub(damaged!)
  assert.deepEqual(copy.count(inventory), { held: 3, verified: 3, total: 4 })
  assert.deepEqual(await copy.complete(parts, options), { held: 4, verified: 4, total: 4 })
  assert.equal(fetched, 5)
})

/** A host that has the first of eight chunks. */
function hostWith(hasBefore: number) {
  const digests = Array.from({ length: 8 }, (_, i) => digestOf(Buffer.alloc(4096, i + 1)))
  const table = new ChunkTable(
    digests.map(() => 4096),
    Buffer.concat(digests.map(digestToBytes)),
  )
  const here = new Set(digests.slice(0, hasBefore))
  const parts = {
    inventory: { has: (digest: Digest) => here.has(digest), scrub: async () => await Promise.resolve(4096) },
    fetcher: {
      fetchToStore: async ({ digest }: { digest: Digest }) => {
        const source = here.has(digest) ? ('local' as const) : ('peer' as const)
        here.add(digest)
        return await Promise.resolve(source)
      },
      settled: async () => await Promise.resolve(),
    },
    clock: new FakeClock(),
  }
  return { parts, table, here, digests }
}

for (const [what, hasBefore, meanwhile] of [
  ['chunks that reads fetch meanwhile', 0, (here, digests) => digests.forEach((digest) => here.add(digest))],
  [
    'verified chunks that are evicted meanwhile',
    6,
    (here, digests) => digests.forEach((digest) => here.delete(digest)),
  ],
] as [string, number, (here: Set<Digest>, digests: Digest[]) => void][])
  test(`${what} are counted once: no progress has more verified than held, or more than there are`, async () => {
    const { parts, table, here, digests } = hostWith(hasBefore)
    const verified = new Bitmap(table.count)
    for (let position = 0; position < hasBefore; position++) verified.set(position)
    const told: SeedProgress[] = []
    const onProgress = (progress: SeedProgress): void => {
      // The first one comes when all have been counted, and before any is fetched.
      if (told.length === 0) meanwhile(here, digests)
      told.push({ ...progress })
    }
    const { signal } = new AbortController()
    const copy = new ChunkCopy([table], { verified })
    assert.deepEqual(await copy.complete(parts, { signal, onProgress }), { held: 8, verified: 8, total: 8 })
    assert.ok(told.length > 1)
    for (const { held, verified, total } of told)
      assert.ok(verified <= held && held <= total, JSON.stringify({ held, verified, total }))
  })
