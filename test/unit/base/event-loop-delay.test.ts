import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EventLoopDelay } from '../../../node/base/event-loop-delay.ts'

test('a loop that is blocked is found, and what was found stays for a minute and goes after two', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  using delay = new EventLoopDelay()
  const turns = async (ms: number): Promise<void> => {
    const until = performance.now() + ms
    while (performance.now() < until) await new Promise((resolve) => setImmediate(resolve))
  }
  await turns(30)
  const until = performance.now() + 300
  while (performance.now() < until);
  await turns(30)
  assert.ok(delay.figures().max > 200)
  t.mock.timers.tick(60_000)
  assert.ok(delay.figures().max > 200)
  t.mock.timers.tick(60_000)
  assert.equal(delay.figures().max, 0)
})
