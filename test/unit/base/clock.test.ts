import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pause, systemClock } from '../../../node/base/clock.ts'
import { FakeClock } from '../../support/fake-clock.ts'

test('a pause ends after its time, or with the signal, and leaves no timer', async () => {
  const clock = new FakeClock()
  const abort = new AbortController()
  const ended: string[] = []
  void pause(clock, 100, { signal: abort.signal }).then(() => ended.push('one'))
  void pause(clock, 200, { signal: abort.signal }).then(() => ended.push('two'))
  await clock.pass(99)
  assert.deepEqual(ended, [])
  await clock.pass(1)
  assert.deepEqual(ended, ['one'])
  abort.abort()
  await clock.pass(0)
  assert.deepEqual([ended, clock.waiting], [['one', 'two'], 0])
  await pause(clock, 1_000, { signal: abort.signal })
})

test('a call of the system clock comes once, and not after it was cancelled', async () => {
  let calls = 0
  const cancel = systemClock.after(1, () => calls++)
  cancel()
  await new Promise<void>((resolve) => void systemClock.after(2, resolve))
  assert.equal(calls, 0)
})
