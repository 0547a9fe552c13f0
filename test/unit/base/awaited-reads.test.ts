import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AwaitedReads } from '../../../node/base/awaited-reads.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { FakeClock } from '../../support/fake-clock.ts'

/** Reads of a host, and a piece of work of which it is seen when it may begin. */
function host(): {
  clock: FakeClock
  reads: AwaitedReads
  /** Begins a read. @returns ends it */
  read: () => () => Promise<void>
  begin: (urgency?: Urgency, signal?: AbortSignal) => { hasBegun: boolean }
} {
  const clock = new FakeClock()
  const reads = new AwaitedReads({ clock })
  return {
    clock,
    reads,
    read: () => {
      const over = Promise.withResolvers<void>()
      const reading = reads.during(async () => await over.promise)
      return async () => {
        over.resolve()
        await reading
        await clock.pass(0)
      }
    },
    begin: (urgency = new Urgency(false), signal = new AbortController().signal) => {
      const way = reads.makeWay({ urgency, signal })
      const piece = { hasBegun: way === undefined }
      void way?.then(() => (piece.hasBegun = true))
      return piece
    },
  }
}

test('work that nobody waits for goes on at once where nobody waits for a read', async () => {
  const { clock, read, begin } = host()
  assert.ok(begin().hasBegun)
  await read()()
  await clock.pass(250)
  assert.ok(begin().hasBegun, 'the last read was long ago')
})

test('work that nobody waits for pauses during a read, and between reads for a moment before each piece', async () => {
  const { clock, read, begin } = host()
  const [first, second] = [read(), read()]
  const piece = begin()
  await first()
  await clock.pass(200)
  assert.ok(!piece.hasBegun, 'the other read goes on')
  await second()
  assert.ok(piece.hasBegun)
  const next = begin()
  await clock.pass(9)
  assert.ok(!next.hasBegun)
  await clock.pass(1)
  assert.ok(next.hasBegun)
  assert.equal(clock.waiting, 0)
})

test('a read that takes for ever does not end work that nobody waits for', async () => {
  const { clock, read, begin } = host()
  const end = read()
  for (let i = 0; i < 3; i++) {
    const piece = begin()
    await clock.pass(249)
    assert.ok(!piece.hasBegun)
    await clock.pass(1)
    assert.ok(piece.hasBegun)
  }
  await end()
})

test('work that somebody waits for does not pause, and goes on as soon as somebody comes to wait, or it is given up', async () => {
  const { clock, read, begin } = host()
  const end = read()
  assert.ok(begin(new Urgency(true)).hasBegun)
  const urgency = new Urgency(false)
  const abort = new AbortController()
  const [raised, aborted] = [begin(urgency), begin(new Urgency(false), abort.signal)]
  urgency.raise()
  abort.abort()
  await clock.pass(0)
  assert.ok(raised.hasBegun && aborted.hasBegun)
  assert.equal(clock.waiting, 0)
  await end()
})
