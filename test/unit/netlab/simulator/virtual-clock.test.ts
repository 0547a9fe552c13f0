import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EventHeap, SimulatedEvent } from '../../../../netlab/simulator/event-heap.ts'
import { VirtualClock } from '../../../../netlab/simulator/virtual-clock.ts'
import { createRandom } from '../../../support/random.ts'

test('events happen in the order of their time, and those of one time in the order in which they were made', () => {
  const random = createRandom(7)
  const heap = new EventHeap()
  const events = Array.from(
    { length: 1000 },
    (_, order) => new SimulatedEvent(random.below(50), order, () => undefined),
  )
  for (const event of events) heap.push(event)
  const popped = Array.from(events, () => heap.pop())
  assert.deepEqual(
    popped,
    events.toSorted((a, b) => a.atMs - b.atMs || a.order - b.order),
  )
  assert.equal(heap.pop(), undefined)
})

test('what follows from an event by promises is done before time goes on', async () => {
  const clock = new VirtualClock()
  const seen: string[] = []
  clock.after(10, () => {
    void (async () => {
      for (let i = 0; i < 50; i++) await Promise.resolve()
      seen.push(`promise at ${clock.now()}`)
      clock.after(5, () => seen.push(`event at ${clock.now()}`))
    })()
  })
  clock.after(20, () => seen.push(`event at ${clock.now()}`))
  await clock.run()
  assert.deepEqual(seen, ['promise at 10', 'event at 15', 'event at 20'])
})

test('a cancelled event does not happen, and time does not go to it', async () => {
  const clock = new VirtualClock()
  const event = clock.after(1000, () => assert.fail('cancelled'))
  event.cancel()
  clock.after(10, () => undefined)
  await clock.run()
  assert.equal(clock.now(), 10)
})

test('cancelled events leave long before their time, and the others keep their order', async () => {
  const clock = new VirtualClock()
  const random = createRandom(3)
  const seen: number[] = []
  for (let i = 0; i < 500; i++) {
    const ms = 1 + random.below(1000)
    clock.after(ms, () => seen.push(ms))
  }
  for (let i = 0; i < 100_000; i++) clock.after(60_000 - (i % 7), () => assert.fail('cancelled')).cancel()
  assert.ok(clock.waiting < 4_000, String(clock.waiting))
  await clock.run()
  assert.equal(seen.length, 500)
  assert.deepEqual(
    seen,
    seen.toSorted((a, b) => a - b),
  )
})

test('a run ends at its time, and what comes later stays for the next one', async () => {
  const clock = new VirtualClock()
  let count = 0
  for (const ms of [10, 20, 30]) clock.after(ms, () => count++)
  await clock.run({ untilMs: 20 })
  assert.deepEqual([count, clock.now()], [2, 20])
  await clock.run({ untilMs: 100 })
  assert.deepEqual([count, clock.now()], [3, 100])
})

test('what an event throws ends the run', async () => {
  const clock = new VirtualClock()
  clock.after(1, () => {
    throw new Error('broken')
  })
  await assert.rejects(async () => await clock.run(), /broken/)
})
