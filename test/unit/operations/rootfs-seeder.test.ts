import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import { silentLog } from '../../../node/base/log.ts'
import type { ResolvedRootfs } from '../../../node/model/image.ts'
import { RootfsSeeder } from '../../../node/operations/rootfs-seeder.ts'
import { FakeClock } from '../../support/fake-clock.ts'

const digests = Array.from({ length: 300 }, (_, i) => digestOf(Buffer.of(i, i >> 8)))
const table = new ChunkTable(
  digests.map(() => 4096),
  Buffer.concat(digests.map(digestToBytes)),
)
const resolved = {
  record: { reference: 'local:image', platform: 'linux/amd64', format: 'ext4', rootfsDigest: digests[0] },
  manifest: { metadata: table, layers: [] },
  origin: 'peer',
} as unknown as ResolvedRootfs

/** Seeds an image; `fails` tells with which error a chunk is not delivered now. */
function seeding(
  fails: (index: number, nowMs: number) => ErrorCode | undefined,
  { freeBytes = Infinity, localBytes = 0, pinnedBytes = 0 } = {},
) {
  const clock = new FakeClock()
  const here = new Set<Digest>()
  const seeder = new RootfsSeeder({
    inventory: { has: (digest) => here.has(digest), isWhole: () => false, localBytes: () => localBytes },
    fetcher: {
      fetchToStore: async ({ digest }) => {
        await Promise.resolve()
        const code = fails(digests.indexOf(digest), clock.now())
        if (code !== undefined) throw new P2pfsError(code, 'no source delivers the chunk')
        here.add(digest)
        return 'peer'
      },
      settled: async () => await Promise.resolve(),
    },
    pins: { claim: async () => await Promise.resolve(), pinnedBytes },
    kept: { hold: () => ({ [Symbol.dispose]: () => undefined }) },
    room: async () => await Promise.resolve({ freeBytes, sizeBytes: freeBytes }),
    noteUse: () => undefined,
    log: silentLog,
    clock,
  })
  const { signal } = new AbortController()
  let outcome: unknown = 'pending'
  const startedAtMs = clock.now()
  seeder.seed(resolved, { signal, onProgress: () => undefined }).then(
    () => (outcome = 'whole'),
    (error: P2pfsError) => (outcome = error.code),
  )
  return {
    here,
    after: async (ms: number) => {
      await clock.pass(ms - (clock.now() - startedAtMs))
      return outcome
    },
  }
}

test('a chunk that nobody has said yet that he holds is asked for again', async () => {
  const { after } = seeding((_, nowMs) => (nowMs < 3_000 ? 'missing' : undefined))
  assert.equal(await after(2_500), 'pending')
  assert.equal(await after(4_000), 'whole')
})

test('a seed that nothing brings on ends after ten seconds', async () => {
  const { after, here } = seeding((index) => (index === 7 ? 'unavailable' : undefined))
  assert.equal(await after(9_000), 'pending')
  assert.equal(await after(11_000), 'unavailable')
  assert.equal(here.size, 299)
})

test('a seed that gets on, however slowly, does not end', async () => {
  const { after } = seeding((index, nowMs) => (nowMs < index * 100 ? 'timeout' : undefined))
  assert.equal(await after(20_000), 'pending')
  assert.equal(await after(31_000), 'whole')
})

for (const code of ['denied', 'invalid'] as const)
  test(`an error that no waiting mends ends a seed at once: ${code}`, async () => {
    const { after } = seeding((index) => (index === 3 ? code : undefined))
    assert.equal(await after(1), code)
  })

test('a seed of an image for which the store can have no room fails before anything is fetched', async () => {
  const freeBytes = table.sizeBytes - 1
  for (const room of [{ freeBytes }, { freeBytes, localBytes: table.sizeBytes / 2 }]) {
    const { here, after } = seeding(() => undefined, room)
    assert.equal(await after(1_000), 'unavailable')
    assert.equal(here.size, 0)
  }
  const { after } = seeding(() => undefined, { freeBytes, localBytes: 4096, pinnedBytes: table.sizeBytes })
  assert.equal(await after(1_000), 'whole', 'it shares with what is pinned')
})
