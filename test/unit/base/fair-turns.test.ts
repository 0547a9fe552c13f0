import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FairTurns } from '../../../node/base/fair-turns.ts'

test('who has many tasks waits for his own, and others do not wait for them', async () => {
  const turns = new FairTurns({ atOnce: 1 })
  const ran: string[] = []
  const task = async (key: string, name: string): Promise<void> =>
    await turns.run(key, async () => {
      ran.push(name)
      await Promise.resolve()
    })
  const tasks = ['a1', 'a2', 'a3', 'a4', 'b1', 'c1', 'b2'].map(async (name) => await task(name[0]!, name))
  await Promise.all(tasks)
  assert.deepEqual(ran, ['a1', 'a2', 'b1', 'c1', 'a3', 'b2', 'a4'])
})

test('as many tasks run at once as may, also after one has failed', async () => {
  const turns = new FairTurns({ atOnce: 2 })
  let running = 0
  let most = 0
  const task = async (): Promise<void> => {
    most = Math.max(most, ++running)
    await new Promise((resolve) => setImmediate(resolve))
    running--
    throw new Error('it fails')
  }
  await Promise.allSettled(Array.from({ length: 9 }, async (_, i) => await turns.run(`${i % 3}`, task)))
  assert.equal(most, 2)
  await turns.run('a', async () => await Promise.resolve())
})
