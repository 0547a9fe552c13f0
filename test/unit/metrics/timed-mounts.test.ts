import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MountRequest, MountResult } from '../../../node/control/api.ts'
import type { OperationOptions } from '../../../node/control/operations.ts'
import { TimedMounts } from '../../../node/metrics/timed-mounts.ts'
import { P2pfsError } from '../../../protocol/errors.ts'

test('mounts are timed by where the index came from, and failures counted by their code', async () => {
  let now = 0
  let outcome: () => MountResult = () => ({ origin: 'peer' }) as MountResult
  const mount = {
    run: async (): Promise<MountResult> => {
      now += 1_500
      return await Promise.resolve(outcome())
    },
  }
  const timed = new TimedMounts({ mount }, { now: () => now })
  const request = {} as MountRequest
  const options = {} as OperationOptions
  assert.equal((await timed.run(request, options)).origin, 'peer')
  assert.deepEqual([timed.seconds.peer.count, timed.seconds.peer.sum, timed.seconds.local.count], [1, 1.5, 0])
  outcome = () => {
    throw new P2pfsError('denied', 'no')
  }
  await assert.rejects(timed.run(request, options), { code: 'denied' })
  assert.deepEqual([timed.failures.denied, timed.seconds.peer.count], [1, 1])
})
