import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isP2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import type { SeedJob } from '../../../protocol/seed-job.ts'
import { KeptJobs } from '../../../node/seeds/kept-jobs.ts'
import { FakeCatalog, makeJob, makeTarget } from './seed-fakes.ts'

const limits = { jobs: 4, jobsPerPeer: 2, ttlMs: 90_000_000, clockSkewMs: 1_000 }
const code = (code: ErrorCode) => (error: unknown) => isP2pfsError(error, code)
/** Orders that differ in when they begin. */
const order = (atMs: number, changes: Partial<SeedJob> = {}): SeedJob => makeJob({ atMs, ...changes })

function keeper(catalog = new FakeCatalog()): { kept: KeptJobs; catalog: FakeCatalog; time: { nowMs: number } } {
  const time = { nowMs: 0 }
  return { kept: new KeptJobs({ own: 'b', catalog, today: () => time.nowMs }, limits), catalog, time }
}

test('jobs that members have kept here are bounded, of one and in all, and leave room for the operator', async () => {
  const { kept } = keeper()
  await kept.keep(order(1), 'x')
  await kept.keep(order(2), 'x')
  await assert.rejects(kept.keep(order(3), 'x'), code('busy'))
  await kept.keep(order(4), 'y')
  await kept.keep(order(5), 'y')
  await assert.rejects(kept.keep(order(6), 'z'), code('busy'))
  // More news of a job that is kept is no more jobs.
  await kept.keep(order(1, { revision: 2 }), 'x')
  for (let atMs = 10; atMs < 14; atMs++) await kept.put(order(atMs))
  await assert.rejects(kept.put(order(14)), code('busy'))
  assert.equal(kept.list().length, 8)
})

test('a job that this host changes as its coordinator still counts for the member who sent it', async () => {
  const { kept } = keeper()
  await kept.keep(order(1), 'x')
  await kept.put(order(1, { revision: 2 }))
  await kept.keep(order(2), 'x')
  await assert.rejects(kept.keep(order(3), 'x'), code('busy'))
})

test('a member cannot change an order under its id, nor have one kept that is for others, too long or over', async () => {
  const { kept, time } = keeper()
  time.nowMs = 5_000
  const job = order(1)
  await assert.rejects(kept.keep({ ...job, places: { all: true } }, 'x'), code('denied'))
  await assert.rejects(kept.keep({ ...job, keepers: ['a', 'c'] }, 'x'), code('denied'))
  await assert.rejects(kept.keep(order(1, { endsAtMs: 90_006_001 }), 'x'), code('denied'))
  await assert.rejects(kept.keep(order(1, { createdAtMs: 6_001 }), 'x'), code('denied'))
  await assert.rejects(kept.keep(order(1, { endsAtMs: 5_000 }), 'x'), code('conflict'))
  assert.deepEqual(kept.list(), [])
})

test('the newest record of a job stays, whoever sends which; a cancelled one stays cancelled', async () => {
  const { kept } = keeper()
  const second = order(1, { revision: 2, targets: [makeTarget('a')] })
  await kept.keep(second, 'x')
  assert.deepEqual(await kept.keep(order(1, { revision: 1 }), 'y'), second)
  const cancelled = order(1, { revision: 1, cancelled: true })
  await kept.keep(cancelled, 'y')
  assert.deepEqual(await kept.keep(order(1, { revision: 9 }), 'x'), cancelled)
  // The operator has ordered it again since.
  const again = order(1, { createdAtMs: 10 })
  assert.deepEqual(await kept.keep(again, 'x'), again)
})

test('jobs outlive the process, and end with their time', async () => {
  const { kept, catalog } = keeper()
  const job = order(1)
  await kept.keep(job, 'x')
  const { kept: next, time } = keeper(catalog)
  await next.open()
  assert.deepEqual(next.list(), [job])
  time.nowMs = job.endsAtMs
  await next.expire()
  assert.deepEqual(next.list(), [])
  assert.equal(catalog.jobs.size, 0)
})

test('a keeper that others have replaced forgets the job', async () => {
  const { kept, catalog } = keeper()
  await kept.keep(order(1), 'a')
  const replaced = order(1, { revision: 5, keepers: ['a', 'c', 'd'] })
  assert.deepEqual(await kept.keep(replaced, 'a'), replaced)
  assert.deepEqual(kept.list(), [])
  assert.equal(catalog.jobs.size, 0)
})
