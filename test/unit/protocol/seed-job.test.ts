import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodeCbor } from '../../../protocol/cbor.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import {
  encodeSeedAnswer,
  encodeSeedRequest,
  parseSeedAnswer,
  parseSeedRequest,
  type SeedAnswer,
  type SeedRequest,
} from '../../../protocol/messages/seed.ts'
import {
  encodeSeedJob,
  isCopy,
  maxSeedJobBytes,
  maxSeedKeepers,
  maxSeedTargets,
  newerJob,
  parseSeedJob,
  seedJobId,
  type SeedJob,
} from '../../../protocol/seed-job.ts'
import { image, makeJob, makeTarget } from '../seeds/seed-fakes.ts'

const job = makeJob({
  extent: 'hot',
  places: { on: ['a', 'b'] },
  atMs: 5,
  targets: [makeTarget('a'), makeTarget('b', { state: 'failed', code: 'busy', held: 2, verified: 1 })],
})

test('a seed job has the bytes that it always had, and reads back', () => {
  assert.equal(job.id, 'b78e623894c28a3d52d7b522ea9d4d12')
  assert.equal(digestOf(encodeSeedJob(job)), 'sha256:61062f10d361e74faf7973f223d7137c4ab42cc0e7b2e8807476494f924a226c')
  for (const places of [{ copies: 3 }, { all: true }, { on: ['x'] }] as const)
    assert.deepEqual(parseSeedJob(encodeSeedJob(makeJob({ places }))), makeJob({ places }))
  assert.deepEqual(parseSeedJob(encodeSeedJob(job)), job)
  const group = 'f'.repeat(32)
  assert.deepEqual(parseSeedJob(encodeSeedJob(makeJob({ group }))), makeJob({ group }))
  assert.equal(makeJob({ group }).id, makeJob().id, 'members that know no groups find the same job')
  assert.throws(() => parseSeedJob(encodeSeedJob(makeJob({ group: 'f' }))), { code: 'invalid' })
  const demand = { mounts: 7, hosts: 4 }
  assert.deepEqual(parseSeedJob(encodeSeedJob(makeJob({ demand }))), makeJob({ demand }))
  // The same job on however many hosts.
  assert.equal(makeJob({ demand }).id, makeJob({ demand: { mounts: 9, hosts: 5 }, places: { copies: 16 } }).id)
  assert.notEqual(makeJob({ demand }).id, makeJob().id)
})

test('seed requests and answers read back', () => {
  const place = { type: 'place', ...image, job: job.id, extent: 'hot', untilMs: 9 } as const
  assert.equal(
    digestOf(encodeSeedRequest(place)),
    'sha256:74f073406b011b7de47050fac3147847d059a8f6794eaac28c71ac076aeef789',
  )
  const demand = { mounts: 7, hosts: 4 }
  const mounted: SeedRequest = { type: 'mounted', images: [{ image, mounts: 2 }] }
  const requests: SeedRequest[] = [
    place,
    { ...place, demand },
    mounted,
    { type: 'keep', job },
    { type: 'release', job: job.id },
    { type: 'jobs' },
  ]
  for (const request of requests) assert.deepEqual(parseSeedRequest(encodeSeedRequest(request)), request)
  const progress = { held: 3, verified: 2, total: 4 }
  const answers: SeedAnswer[] = [
    { type: 'progress', ...progress },
    { type: 'held', ...progress },
    { type: 'job', job },
    { type: 'done' },
    { type: 'refused', code: 'busy' },
  ]
  for (const answer of answers) assert.deepEqual(parseSeedAnswer(encodeSeedAnswer(answer)), answer)
})

test('a seed job that is not what it should be is invalid', () => {
  const many = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value)
  const wrong: Record<string, unknown>[] = [
    { version: 2 },
    { id: 'x' },
    { extent: 'half' },
    { places: {} },
    { places: { copies: -1 } },
    { places: { copies: maxSeedTargets + 1 } },
    { places: { on: many(maxSeedTargets + 1, 'a') } },
    { keepers: [] },
    { keepers: many(maxSeedKeepers + 1, 'a') },
    { acceptedBy: 'a'.repeat(1025) },
    { reference: 'a'.repeat(1025) },
    { cancelled: 1 },
    { endsAtMs: -1 },
    { targets: many(maxSeedTargets + 1, makeTarget('a')) },
    { targets: [makeTarget('a', { held: 5 })] },
    { targets: [makeTarget('a', { held: 3, verified: 4 })] },
    { targets: [{ ...makeTarget('a'), state: 'best' }] },
    { targets: [{ ...makeTarget('a'), name: 'a'.repeat(1025) }] },
    { targets: many(600, makeTarget('a', { name: 'a'.repeat(1000) })) },
  ]
  for (const changes of wrong) {
    const bytes = encodeCbor({ version: 1, ...job, ...changes })
    assert.throws(
      () => parseSeedJob(bytes),
      (error) => isP2pfsError(error, 'invalid'),
      JSON.stringify(changes).slice(0, 80),
    )
  }
})

test('a job with as many targets as there may be, with the longest names, fits', () => {
  const name = '\u00fc'.repeat(128)
  const targets = Array.from({ length: maxSeedTargets }, (_, i) =>
    makeTarget(`12D3KooW${`${i}`.padStart(44, 'x')}`, { name, held: 1e9, verified: 1e9, total: 1e9 }),
  )
  const places = { on: targets.map(({ peer }) => peer) }
  assert.ok(encodeSeedJob({ ...job, places, targets }).length <= maxSeedJobBytes)
})

test('the id says what is ordered: each part of it, and nothing else', () => {
  const same: Partial<SeedJob>[] = [{ revision: 9 }, { endsAtMs: 9 }, { acceptedBy: 'x' }, { cancelled: true }]
  for (const changes of same) assert.equal(seedJobId({ ...job, ...changes }), job.id)
  const other: Partial<SeedJob>[] = [
    { reference: 'x' },
    { platform: 'x' },
    { rootfsDigest: digestOf(Buffer.from('x')) },
    { extent: 'full' },
    { places: { on: ['a'] } },
    { atMs: 6 },
  ]
  for (const changes of other) assert.notEqual(seedJobId({ ...job, ...changes }), job.id)
})

test('of two records the last order counts, then the cancelled one, then the one with more changes', () => {
  const ordered = [
    { createdAtMs: 1, revision: 1, cancelled: false },
    { createdAtMs: 1, revision: 2, cancelled: false },
    { createdAtMs: 1, revision: 1, cancelled: true },
    { createdAtMs: 1, revision: 2, cancelled: true },
    { createdAtMs: 2, revision: 1, cancelled: false },
  ].map((changes) => ({ ...job, ...changes }))
  for (const [i, first] of ordered.entries())
    for (const [j, second] of ordered.entries()) assert.equal(newerJob(first, second), ordered[Math.max(i, j)])
})

test('only a host that holds and has hashed every chunk has a copy', () => {
  assert.equal(isCopy(makeTarget('a')), true)
  for (const changes of [{ verified: 3 }, { held: 3, verified: 3 }, { held: 0, verified: 0, total: 0 }])
    assert.equal(isCopy(makeTarget('a', changes)), false)
  for (const state of ['placing', 'failed', 'gone'] as const) assert.equal(isCopy(makeTarget('a', { state })), false)
})
