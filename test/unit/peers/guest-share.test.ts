import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Bandwidth } from '../../../node/base/bandwidth.ts'
import { GuestShare } from '../../../node/peers/guest/share.ts'
import { FakeClock, settled } from '../../support/fake-clock.ts'

const chunkBytes = 128 * 1024

function setUp({ bytesPerSecond, usedBytes = 0 }: { bytesPerSecond?: number; usedBytes?: number } = {}) {
  const clock = new FakeClock()
  const bandwidth = new Bandwidth({ clock, nowUs: () => BigInt(clock.now() * 1000) })
  bandwidth.bytesPerSecond = bytesPerSecond
  const unsent = { usedBytes }
  const share = new GuestShare({ unsent, bandwidth, clock })
  const given: number[] = []
  /** Asks for so many chunks at once, as guests do. */
  const ask = (chunks: number, signal = new AbortController().signal): Promise<void>[] =>
    Array.from({ length: chunks }, async () => {
      await share.take(chunkBytes, { signal })
      given.push(clock.now())
    })
  return { clock, bandwidth, unsent, ask, given }
}

test('all guests together get their bandwidth, whatever they ask for at once', async () => {
  const { clock, ask, given } = setUp({ bytesPerSecond: 10 * chunkBytes })
  const asked = ask(51)
  await clock.pass(5_000)
  await Promise.all(asked)
  // A tenth of a second may pass at once; then ten chunks come a second.
  assert.ok(given.filter((atMs) => atMs === 0).length <= 2)
  for (let second = 1; second <= 5; second++) {
    const count = given.filter((atMs) => atMs <= second * 1000).length
    assert.ok(Math.abs(count - 10 * second) <= 2, `${count} chunks in ${second} s`)
  }
})

test('a limit on guests that is changed holds at once, for those that wait, too', async () => {
  const { clock, bandwidth, ask, given } = setUp({ bytesPerSecond: chunkBytes / 100 })
  const asked = ask(20)
  await clock.pass(1_000)
  assert.ok(given.length <= 2)
  bandwidth.bytesPerSecond = undefined
  await clock.pass(250)
  await Promise.all(asked)
})

test('a guest lets answers to members go first, for a tenth of a second at most', async () => {
  const { clock, unsent, ask, given } = setUp({ usedBytes: 1 })
  const first = ask(1)
  await clock.pass(40)
  assert.deepEqual(given, [])
  unsent.usedBytes = 0
  await clock.pass(10)
  await Promise.all(first)
  assert.deepEqual(given, [50])
  unsent.usedBytes = 1
  const second = ask(1)
  await clock.pass(99)
  assert.deepEqual(given, [50])
  await clock.pass(1)
  await Promise.all(second)
})

test('a guest that leaves waits for nothing any more', async () => {
  const { clock, unsent, ask, given } = setUp({ bytesPerSecond: 1, usedBytes: 1 })
  const left = new AbortController()
  const asked = ask(3, left.signal).map(async (one) => await assert.rejects(one, { name: 'AbortError' }))
  await clock.pass(15)
  left.abort()
  await clock.pass(10)
  await Promise.all(asked)
  unsent.usedBytes = 0
  await settled()
  assert.deepEqual(given, [])
  assert.equal(clock.waiting, 0)
})
