import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CorePool, PooledWorker, Uplink, Worker } from '../../../../netlab/simulator/link.ts'
import { VirtualClock } from '../../../../netlab/simulator/virtual-clock.ts'

const megabit = 1e6

test('a link carries what its rate allows', async () => {
  const clock = new VirtualClock()
  const link = new Uplink(clock, 8 * megabit)
  let sentAtMs = 0
  link.send({}, 1e6, (atMs) => (sentAtMs = atMs))
  await clock.run()
  assert.ok(Math.abs(sentAtMs - 1000) < 1e-6, String(sentAtMs))
  assert.equal(link.sentBytes, 1e6)
})

test('connections share a link evenly, and a short message need not wait for long ones of others', async () => {
  const clock = new VirtualClock()
  const link = new Uplink(clock, 8 * megabit)
  const sentAtMs: Record<string, number> = {}
  for (const name of ['first', 'second']) link.send({}, 1e6, (atMs) => (sentAtMs[name] = atMs))
  link.send({}, 1000, (atMs) => (sentAtMs['short'] = atMs))
  await clock.run()
  // Three pieces go before it: the one under way, and one of each of the others.
  assert.ok(sentAtMs['short']! < 200, String(sentAtMs['short']))
  for (const name of ['first', 'second']) assert.ok(Math.abs(sentAtMs[name]! - 2001) < 100, String(sentAtMs[name]))
})

test('an idle link says at once when a short message has left, and the next one waits for it', async () => {
  const clock = new VirtualClock()
  const link = new Uplink(clock, 8 * megabit)
  const sent: [string, number][] = []
  link.send({}, 1000, (atMs) => sent.push(['first', atMs]))
  assert.deepEqual(sent, [['first', 1]])
  link.send({}, 2000, (atMs) => sent.push(['second', atMs]))
  link.send({}, 1000, (atMs) => sent.push(['third', atMs]))
  assert.equal(sent.length, 1)
  await clock.run()
  assert.deepEqual(sent.slice(1), [
    ['second', 3],
    ['third', 4],
  ])
  assert.equal(clock.count, 3)
})

test('messages of one connection arrive in order', async () => {
  const clock = new VirtualClock()
  const link = new Uplink(clock, megabit)
  const connection = {}
  const sent: number[] = []
  for (const bytes of [300_000, 10, 200_000, 20]) link.send(connection, bytes, () => sent.push(bytes))
  await clock.run()
  assert.deepEqual(sent, [300_000, 10, 200_000, 20])
})

test('what a connection has not sent is forgotten with it, and others go on', async () => {
  const clock = new VirtualClock()
  const link = new Uplink(clock, megabit)
  const lost = {}
  const sent: string[] = []
  link.send(lost, 1e6, () => sent.push('lost'))
  link.send({}, 1000, () => sent.push('other'))
  link.drop(lost)
  await clock.run()
  assert.deepEqual(sent, ['other'])
})

test('one worker does one thing at a time', async () => {
  const clock = new VirtualClock()
  const worker = new Worker(clock)
  const done: number[] = []
  for (const ms of [5, 1, 3]) worker.do(ms, () => done.push(clock.now()))
  await clock.run()
  assert.deepEqual(done, [5, 6, 9])
  assert.equal(worker.busyMs, 9)
})

test('work that comes later begins then, and what is given next comes after it', async () => {
  const clock = new VirtualClock()
  const worker = new Worker(clock)
  const done: number[] = []
  worker.do(1, () => done.push(clock.now()), 10)
  worker.do(1, () => done.push(clock.now()), 10.5)
  await clock.run()
  assert.deepEqual(done, [11, 12])
})

test('workers share the cores of a machine evenly, and each does its own work in order', async () => {
  const clock = new VirtualClock()
  const pool = new CorePool(clock, 2)
  const done: string[] = []
  for (const name of ['a', 'b', 'c']) {
    const worker = new PooledWorker(pool)
    worker.do(10, () => done.push(`${name} long`))
    worker.do(1, () => done.push(`${name} short`))
  }
  await clock.run()
  // 33 ms of work: none waits for the whole work of another.
  assert.ok(clock.now() >= 33 / 2 && clock.now() <= 33 / 2 + 3, String(clock.now()))
  for (const name of ['a', 'b', 'c']) assert.ok(done.indexOf(`${name} long`) < done.indexOf(`${name} short`))
})

test('who has slept gets a core before those that compute, and no more than its part afterwards', async () => {
  const clock = new VirtualClock()
  const pool = new CorePool(clock, 1)
  const overAtMs: Record<string, number> = {}
  for (const name of ['a', 'b']) pool.run({ usedMs: 0 }, 60, () => (overAtMs[name] = clock.now()))
  clock.after(31, () => pool.run({ usedMs: 0 }, 1, () => (overAtMs['short'] = clock.now())))
  clock.after(31, () => pool.run({ usedMs: 0 }, 30, () => (overAtMs['slept'] = clock.now())))
  await clock.run()
  assert.ok(overAtMs['short']! <= 31 + 3 + 3 + 1, String(overAtMs['short']))
  assert.ok(overAtMs['slept']! > 31 + 2 * 30, String(overAtMs['slept']))
})
