import assert from 'node:assert/strict'
import { test } from 'node:test'
import { offByDefault } from '../../../netlab/chaos/faults.ts'
import { runChaos } from '../../../netlab/chaos/run.ts'

/** `npm run chaos` takes longer, and takes all faults. */
const seconds = 60

test('a minute of random actions and faults: no wrong byte, no hang, nothing lost and nothing left', async (t) => {
  const seed = Number(process.env['P2PFS_FUZZ_SEED'] ?? 20_261_127)
  const off = [...offByDefault]
  t.diagnostic(`seed ${seed}`)
  const log: string[] = []
  const outcome = await runChaos({ seed, seconds, off, isSmall: true, tell: (line) => log.push(line) })
  t.diagnostic(`${outcome.actions} actions, ${outcome.reads} reads, ${outcome.failedReads} failed`)
  if (outcome.findings.length > 0) for (const line of log) t.diagnostic(line)
  assert.deepEqual(outcome.findings, [])
  assert.ok(outcome.reads > 100, 'readers have read')
})
