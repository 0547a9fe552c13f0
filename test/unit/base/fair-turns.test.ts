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

test('a task of a lower rank goes first, and some places are kept for rank 0', async () => {
  const turns = new FairTurns({ atOnce: 3, reserved: 1 })
  const ran: string[] = []
  const ends: Record<string, () => void> = {}
  const task = async (name: string, rank: number): Promise<void> =>
    await turns.run(
      'a',
      async () => {
        ran.push(name)
        await new Promise<void>((resolve) => (ends[name] = resolve))
      },
      { rank },
    )
  const tasks = [task('seed', 3), task('boot', 2), task('seed2', 3), task('boot2', 2), task('demand', 0)]
  await Promise.resolve()
  assert.deepEqual(ran, ['seed', 'boot', 'demand'])
  const step = async (name: string): Promise<void> => {
    ends[name]!()
    await new Promise((resolve) => setImmediate(resolve))
  }
  await step('demand')
  assert.deepEqual(ran, ['seed', 'boot', 'demand'])
  await step('seed')
  await step('boot')
  assert.deepEqual(ran, ['seed', 'boot', 'demand', 'boot2', 'seed2'])
  await step('boot2')
  await step('seed2')
  await Promise.all(tasks)
})
