import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describeSeedJob } from '../../../cli/seed-job.ts'
import type { SeedHost, SeedJobReport } from '../../../node/control/api.ts'

const host = (name: string, changes: Partial<SeedHost> = {}): SeedHost => {
  return { peer: `id-${name}`, name, extent: 'full', state: 'held', held: 4, verified: 4, total: 4, ...changes }
}
const job: SeedJobReport = {
  id: '0'.repeat(32),
  reference: 'host/r:1',
  platform: 'linux/amd64',
  format: 'ext4',
  digest: 'sha256:1',
  manifestDigest: 'sha256:2',
  hot: false,
  copies: 3,
  state: 'placing',
  verifiedCopies: 1,
  startsAt: 'START',
  endsAt: 'END',
  acceptedBy: 'id-a',
  keepers: ['id-a'],
  hosts: [
    host('a'),
    host('b', { state: 'gone', held: 2, verified: 1 }),
    host('c', { state: 'failed', code: 'busy', held: 0, verified: 0, total: 0 }),
    host('d', { state: 'placing', extent: 'hot', held: 1, verified: 1, total: 2 }),
  ],
}

test('an order is shown with what each host holds, and what is wrong first', () => {
  assert.deepEqual(describeSeedJob(job), [
    `${job.id}  host/r:1 (linux/amd64, ext4): placing, verified copies 1 of 3, pinned until END, rootfs sha256:1`,
    '  c (id-c): failed (busy: its disk has too little room, or as much pinned or under way as it takes for others), asked again later; nothing yet',
    '  b (id-b): gone; had 2 of 4 chunks held, 1 verified',
    '  d (id-d): 1 of 2 chunks of metadata and boot profile held, 1 verified',
    '  a (id-a): 4 of 4 chunks held, 4 verified',
  ])
  assert.match(describeSeedJob({ ...job, state: 'scheduled' })[0]!, /, begins START,/)
  assert.doesNotMatch(describeSeedJob({ ...job, state: 'cancelled' })[0]!, /pinned|begins/)
  const many = Array.from({ length: 100 }, (_, i) => host(`${i}`))
  assert.equal(describeSeedJob({ ...job, hosts: many }).at(-1), '  and 36 more hosts')
})
