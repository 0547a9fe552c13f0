import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Fault } from '../../support/registry/faults.ts'
import { createRandom } from '../../support/random.ts'
import { readSlowly } from '../lost-chunks.ts'
import { hash, startFaultyLab, type FaultyLab } from './fault-daemon.ts'

const path = /\/blobs\/|\/signed\//

/** Faults that readers do not notice. */
const survived: [string, Fault[]][] = [
  ['corrupt bytes', [{ corruptEveryBytes: 10_000, times: 2 }]],
  ['bodies that end early without a word', [{ truncateAfterBytes: 5_000, times: 20 }]],
  ['resets in mid-body', [{ resetAfterBytes: 7_000, times: 20 }]],
  ['connections closed in mid-body', [{ closeAfterBytes: 3_000, times: 20 }]],
  ['429 with Retry-After', [{ status: 429, retryAfter: 2, times: 3 }]],
  ['a burst of 503', [{ status: 503, times: 10 }]],
  [
    '500 and 502 in turn',
    [
      { status: 500, times: 4 },
      { status: 502, times: 2 },
    ],
  ],
  ['a registry that forgets the blob for a moment', [{ status: 404, times: 2 }]],
  ['403 for a moment', [{ status: 403, times: 1 }]],
  ['other ranges', [{ shiftRangeBytes: -512, times: 10 }]],
  // Last: it is streamed from then on, for a while.
  ['no ranges', [{ ranges: 'ignore' }]],
]

async function readsRight(
  { rootfs, whole, lose, daemon, registry }: FaultyLab,
  what: string,
  faults: Fault[],
): Promise<void> {
  registry.faults.clear()
  assert.ok(lose(0.7) > 3)
  for (const fault of faults) registry.faults.add({ path, ...fault })
  const before = registry.front.requests(path).length
  assert.equal(hash(await readSlowly(rootfs, whole.length)), hash(whole), what)
  assert.ok(registry.front.requests(path).length > before, `${what}: the registry was asked`)
  assert.doesNotMatch(daemon.log, /read failed/, what)
}

test('a registry that does wrong is not noticed by who reads', async (t) => {
  const lab = await startFaultyLab(t, 'odd')
  for (const [what, faults] of survived) await readsRight(lab, what, faults)
})

test('signed URLs that expire are asked for anew', async (t) => {
  const lab = await startFaultyLab(t, 'odd', { redirectBlobs: { lifeMs: 60_000 } })
  for (const lifeMs of [60_000, 30, 1]) {
    lab.registry.front.redirectBlobs = { lifeMs }
    if (lifeMs === 1) setTimeout(() => (lab.registry.front.redirectBlobs = { lifeMs: 60_000 }), 3_000)
    await readsRight(lab, `URLs that are good for ${lifeMs} ms`, [])
  }
})

test('seeded mixtures of faults: readers get the right bytes, or an error', async (t) => {
  const seed = Number(process.env['P2PFS_FUZZ_SEED'] ?? 20_261_121)
  t.diagnostic(`seed ${seed}`)
  const random = createRandom(seed)
  const { registry, rootfs, whole, lose } = await startFaultyLab(t, 'odd', {
    daemonOptions: ['--read-deadline', '10s'],
  })
  const kinds = survived.flatMap(([, faults]) => faults)
  let failed = 0
  for (let round = 0; round < 6; round++) {
    registry.faults.clear()
    assert.ok(lose(0.6) > 3)
    for (let i = 0; i < 6; i++)
      registry.faults.add({
        path,
        ...kinds[random.below(kinds.length)]!,
        after: random.below(6),
        times: 1 + random.below(6),
      })
    try {
      assert.equal(hash(await readSlowly(rootfs, whole.length)), hash(whole), `round ${round}`)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EIO') throw error
      failed++
    }
  }
  t.diagnostic(`${failed} of 6 rounds ended with an error`)
  registry.faults.clear()
  assert.equal(hash(await readSlowly(rootfs, whole.length)), hash(whole))
})

test('bytes that stay wrong are an error, at once, and never bytes', async (t) => {
  const { registry, daemon, rootfs, whole, lose } = await startFaultyLab(t, 'odd')
  assert.ok(lose(1) > 3)
  registry.faults.add({ path, corruptEveryBytes: 5_000 })
  await assert.rejects(readSlowly(rootfs, whole.length), { code: 'EIO' })
  assert.match(daemon.log, /read failed/)
  registry.faults.clear()
  assert.equal(hash(await readSlowly(rootfs, whole.length)), hash(whole))
})
