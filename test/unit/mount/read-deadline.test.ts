import assert from 'node:assert/strict'
import { test } from 'node:test'
import { withinDeadline } from '../../../node/mount/read-deadline.ts'
import { isP2pfsError, P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'

const { signal } = new AbortController()
const fail = (code: ErrorCode): never => {
  throw new P2pfsError(code, `it is ${code}`)
}

test('a failure that may pass is followed by another attempt', async () => {
  let tries = 0
  const found = await withinDeadline(async () => (++tries < 3 ? fail('unavailable') : 'bytes'), {
    signal,
    deadlineMs: 60_000,
  })
  assert.deepEqual([found, tries], ['bytes', 3])
})

test('a read is given up when its deadline has passed, with the reason', async () => {
  const isLate =
    (pattern: RegExp) =>
    (error: unknown): boolean =>
      isP2pfsError(error, 'timeout') && pattern.test(error.message)
  await assert.rejects(
    withinDeadline(async () => fail('missing'), { signal, deadlineMs: 20 }),
    isLate(/within 0\.02 s: it is missing/),
  )
  const silent = async ({ signal: given }: { signal: AbortSignal }): Promise<never> =>
    await new Promise((_resolve, reject) =>
      given.addEventListener('abort', () => reject(new P2pfsError('timeout', 'nothing has come')), { once: true }),
    )
  await assert.rejects(withinDeadline(silent, { signal, deadlineMs: 20 }), isLate(/nothing has come/))
  await assert.rejects(
    withinDeadline(silent, { signal, deadlineMs: 20, statedMs: 30_000 }),
    isLate(/within 30 s: nothing has come/),
  )
})

test('wrong bytes, and the end of the daemon, are final', async () => {
  for (const code of ['invalid', 'closed'] as const) {
    let tries = 0
    const attempt = async (): Promise<never> => {
      tries++
      return fail(code)
    }
    await assert.rejects(withinDeadline(attempt, { signal, deadlineMs: 60_000 }), (error) => isP2pfsError(error, code))
    assert.equal(tries, 1)
  }
})

test('a reader that is interrupted waits no longer', async () => {
  const reader = new AbortController()
  const reading = withinDeadline(async () => fail('unavailable'), { signal: reader.signal, deadlineMs: 60_000 })
  setImmediate(() => reader.abort())
  await assert.rejects(reading, { name: 'AbortError' })
})
