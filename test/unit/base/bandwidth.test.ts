import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { Bandwidth } from '../../../node/base/bandwidth.ts'
import { parseByteRate, parseRateLimit } from '../../../node/base/byte-rate.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { FakeClock } from '../../support/fake-clock.ts'

const chunkBytes = 256 * 1024
const { signal } = new AbortController()

function limited(bytesPerSecond: number | undefined): { bandwidth: Bandwidth; clock: FakeClock } {
  const clock = new FakeClock()
  const bandwidth = new Bandwidth({ clock, nowUs: () => BigInt(Math.round(1e9 + clock.now() * 1000)) })
  bandwidth.bytesPerSecond = bytesPerSecond
  return { bandwidth, clock }
}

/** Takes pieces, one after the other, by several at once. @returns bytes that have passed so far, and what ends it */
function stream(
  bandwidth: Bandwidth,
  options: { isUrgent?: boolean; pieceBytes?: number; atOnce?: number } = {},
): { passed: () => number; stop: () => void } {
  const { isUrgent = false, pieceBytes = chunkBytes, atOnce = 1 } = options
  const over = new AbortController()
  let passed = 0
  const run = async (): Promise<void> => {
    while (!over.signal.aborted) {
      await bandwidth.take(pieceBytes, { signal: over.signal, urgency: new Urgency(isUrgent) })
      passed += pieceBytes
    }
  }
  for (let i = 0; i < atOnce; i++) void run().catch(() => undefined)
  return { passed: () => passed, stop: () => over.abort() }
}

for (const [name, bytesPerSecond] of Object.entries({ '1 Mbit': 125_000, '40 Mbit': 5e6, '1 Gbit': 125e6 })) {
  test(`a limit of ${name} a second is kept within a twentieth, whoever takes`, async () => {
    const { bandwidth, clock } = limited(bytesPerSecond)
    const streams = [stream(bandwidth, { atOnce: 16 }), stream(bandwidth, { isUrgent: true, pieceBytes: 4096 })]
    // The first seconds are no part of it: something is borrowed then.
    await clock.pass(10_000)
    const before = bandwidth.bytes
    await clock.pass(60_000)
    const share = (bandwidth.bytes - before) / (60 * bytesPerSecond)
    for (const { stop } of streams) stop()
    assert.ok(Math.abs(share - 1) < 0.05, `${share} of the limit`)
  })
}

test('what nobody waits for comes after what somebody waits for', async () => {
  const { bandwidth, clock } = limited(5e6)
  const background = stream(bandwidth, { atOnce: 64 })
  await clock.pass(2_000)
  for (let i = 0; i < 10; i++) {
    let hasPassed = false
    void bandwidth.take(chunkBytes, { signal, urgency: new Urgency(true) }).then(() => (hasPassed = true))
    await clock.pass(0)
    assert.ok(hasPassed, `read ${i} waits`)
    await clock.pass(200)
  }
  background.stop()
})

test('what becomes urgent while it waits overtakes', async () => {
  const { bandwidth, clock } = limited(125_000)
  bandwidth.charge(chunkBytes / 4)
  const order: string[] = []
  const take = (name: string): Urgency => {
    const urgency = new Urgency(false)
    void bandwidth.take(1000, { signal, urgency }).then(() => order.push(name))
    return urgency
  }
  const [, second] = [take('first'), take('second')]
  await clock.pass(0)
  assert.deepEqual(order, [])
  second.raise()
  await clock.pass(0)
  assert.deepEqual(order, ['second'])
  await clock.pass(5_000)
  assert.deepEqual(order, ['second', 'first'])
})

test('what is last comes after all others, in whatever order they came, and before nobody', async () => {
  const { bandwidth, clock } = limited(125_000)
  bandwidth.charge(chunkBytes)
  const order: string[] = []
  const take = (name: string, isLast: boolean): void =>
    void bandwidth.take(1000, { signal, urgency: new Urgency(false), isLast }).then(() => order.push(name))
  take('seed 1', true)
  take('seed 2', true)
  take('ahead 1', false)
  take('ahead 2', false)
  await clock.pass(10_000)
  assert.deepEqual(order, ['ahead 1', 'ahead 2', 'seed 1', 'seed 2'])
})

test('what is last waits for what goes before it in another thread, too', async () => {
  const { bandwidth, clock } = limited(125_000)
  const other = new Bandwidth({ clock }, bandwidth.memory)
  const passed = bandwidth.beginWait({ isUrgent: false, goesBefore: true })
  let hasPassed = false
  void other.take(1000, { signal, urgency: new Urgency(false), isLast: true }).then(() => (hasPassed = true))
  await clock.pass(1_000)
  assert.equal(hasPassed, false)
  passed()
  await clock.pass(1_000)
  assert.ok(hasPassed)
})

test('waits are counted once for all threads, with what somebody waits for', async () => {
  const { bandwidth, clock } = limited(125_000)
  bandwidth.charge(10 * chunkBytes)
  const raised = new Urgency(false)
  const ended = new AbortController()
  void bandwidth.take(1000, { signal, urgency: raised })
  const given = bandwidth
    .take(1000, { signal: ended.signal, urgency: new Urgency(false), isLast: true })
    .catch(() => undefined)
  const inBulk = new Bandwidth({ clock }, bandwidth.memory).beginWait({ isUrgent: false })
  await clock.pass(0)
  assert.deepEqual(bandwidth.use(), { bytes: 10 * chunkBytes, waiting: 3, waits: 3, urgentWaits: 0, urgentWaitedMs: 0 })
  raised.raise()
  inBulk()
  ended.abort()
  await given
  await clock.pass(60_000)
  const { waiting, waits, urgentWaits, urgentWaitedMs } = bandwidth.use()
  assert.deepEqual({ waiting, waits, urgentWaits }, { waiting: 0, waits: 3, urgentWaits: 1 })
  assert.ok(urgentWaitedMs > 10_000)
})

for (const [name, next] of Object.entries({ raised: 1e9, 'taken away': undefined })) {
  test(`who waits goes on soon when the limit is ${name}`, async () => {
    const { bandwidth, clock } = limited(1000)
    bandwidth.charge(chunkBytes)
    let passed = 0
    for (let i = 0; i < 8; i++)
      void bandwidth.take(chunkBytes, { signal, urgency: new Urgency(false) }).then(() => passed++)
    await clock.pass(1_000)
    assert.equal(passed, 0)
    bandwidth.bytesPerSecond = next
    await clock.pass(300)
    assert.equal(passed, 8)
  })
}

test('a chunk that has just passed holds up no read that somebody waits for, however low the limit is', async () => {
  for (const bytesPerSecond of [10_000, 125_000, 5e6]) {
    const { bandwidth, clock } = limited(bytesPerSecond)
    await bandwidth.take(chunkBytes, { signal, urgency: new Urgency(false) })
    let hasPassed = false
    void bandwidth.take(4096, { signal, urgency: new Urgency(true) }).then(() => (hasPassed = true))
    await clock.pass(0)
    assert.ok(hasPassed, `${bytesPerSecond} bytes a second`)
  }
})

test('who is no longer needed stops waiting, and holds up nobody', async () => {
  const { bandwidth, clock } = limited(125_000)
  bandwidth.charge(chunkBytes)
  const first = new AbortController()
  const refused = assert.rejects(
    bandwidth.take(1000, { signal: first.signal, urgency: new Urgency(false) }),
    /no longer/,
  )
  let hasPassed = false
  void bandwidth.take(1000, { signal, urgency: new Urgency(false) }).then(() => (hasPassed = true))
  await clock.pass(100)
  first.abort(new Error('no longer needed'))
  await refused
  await clock.pass(3_000)
  assert.ok(hasPassed)
})

test('without a limit nothing waits, and bytes are counted', async () => {
  const { bandwidth } = limited(undefined)
  for (let i = 0; i < 100; i++) await bandwidth.take(chunkBytes, { signal, urgency: new Urgency(false) })
  assert.equal(bandwidth.bytes, 100 * chunkBytes)
  assert.equal(bandwidth.use().waits, 0)
  bandwidth.giveBack(chunkBytes)
  assert.equal(bandwidth.bytes, 99 * chunkBytes)
})

test('threads share a limit', async () => {
  const { bandwidth, clock } = limited(125_000)
  const file = new URL('../../../node/base/bandwidth.ts', import.meta.url)
  const source = `const { workerData } = require('node:worker_threads')
    import(workerData.file).then(({ Bandwidth }) => Bandwidth.attach(workerData.memory).charge(125_000))`
  const worker = new Worker(source, { eval: true, workerData: { file: file.href, memory: bandwidth.memory } })
  await new Promise((resolve) => worker.once('exit', resolve))
  assert.equal(bandwidth.bytes, 125_000)
  assert.ok(bandwidth.waitMs(false) > 0)
  assert.equal(clock.waiting, 0)
})

test('rates are decimal, in bits and in bytes', () => {
  assert.equal(parseByteRate('200Mbit'), 25e6)
  assert.equal(parseByteRate('1.5 Gbit'), 187.5e6)
  assert.equal(parseByteRate('25MB'), 25e6)
  assert.equal(parseByteRate('64kbit'), 8e3)
  assert.equal(parseByteRate('12MiB'), 12 * 2 ** 20)
  assert.equal(parseRateLimit('none'), undefined)
  for (const wrong of ['', '200', '0Mbit', '-1Mbit', '200Mb', '1e9MB', 'Mbit', 'None'])
    assert.throws(() => parseRateLimit(wrong), /no rate such as/)
})
