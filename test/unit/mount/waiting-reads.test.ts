import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { silentLog, type LogFields } from '../../../node/base/log.ts'
import type { Source } from '../../../node/model/chunk-request.ts'
import type { Inquiry } from '../../../node/model/inquiry.ts'
import { WaitingReads } from '../../../node/mount/waiting-reads.ts'
import { FakeClock } from '../../support/fake-clock.ts'

const rootfs = digestOf(Buffer.from('rootfs'))
const chunk = digestOf(Buffer.from('chunk'))
const deadlineMs = 60_000
const asked: Inquiry = { peers: ['a', 'b'], refusals: [{ peer: 'c', code: 'busy' }], registry: 'asked' }

interface Reading {
  deliver: (source: Source) => void
  fail: (error: Error) => void
  failed: (error: unknown) => void
  done: Promise<unknown>
}

function host(): {
  clock: FakeClock
  waiting: WaitingReads
  logged: { level: string; message: string; fields: LogFields }[]
  read: (of?: Digest) => Reading
} {
  const clock = new FakeClock()
  const logged: { level: string; message: string; fields: LogFields }[] = []
  const note =
    (level: string) =>
    (message: string, fields: LogFields = {}) =>
      void logged.push({ level, message, fields })
  const waiting = new WaitingReads({
    fetcher: { inquiry: (digest) => (digest === chunk ? asked : undefined) },
    imagesOf: (digest) => (digest === rootfs ? ['app:1'] : []),
    log: { ...silentLog, warn: note('warn'), info: note('info') },
    clock,
  })
  const read = (of = chunk): Reading => {
    const { promise, resolve, reject } = Promise.withResolvers<{ bytes: Uint8Array; source: Source }>()
    let failed: Reading['failed'] = () => assert.fail()
    const done = waiting.during({ rootfs, chunk: of, deadlineMs }, async (options) => {
      failed = options.failed
      return await promise
    })
    done.catch(() => undefined)
    return { deliver: (source) => resolve({ bytes: Buffer.of(1), source }), fail: reject, failed, done }
  }
  return { clock, waiting, logged, read }
}

test('reads that wait are counted, the longest first, with who is asked and when they fail', async () => {
  const { clock, waiting, read } = host()
  const first = read()
  await clock.pass(1_500)
  const second = read(digestOf(Buffer.from('other')))
  await clock.pass(1_000)
  assert.deepEqual([waiting.count, waiting.slow, waiting.longestMs], [2, 1, 2_500])
  second.failed(new P2pfsError('unavailable', 'no route'))
  const [longest, next] = waiting.longest(5)
  assert.deepEqual(longest, {
    images: ['app:1'],
    rootfs,
    chunk,
    waitedMs: 2_500,
    failsInMs: 57_500,
    inquiry: asked,
    failure: undefined,
  })
  assert.deepEqual([next?.inquiry, next?.failure, next?.failsInMs], [undefined, 'unavailable', 59_000])
  assert.equal(waiting.longest(1).length, 1)
  first.deliver('peer')
  second.deliver('registry')
  await Promise.all([first.done, second.done])
  assert.deepEqual([waiting.count, waiting.slow, waiting.longestMs], [0, 0, 0])
})

test('a read that waits for two seconds is logged with what it waits for, and when it has its data', async () => {
  const { clock, logged, read } = host()
  const slow = read()
  await clock.pass(1_999)
  assert.deepEqual(logged, [])
  await clock.pass(1)
  const [{ level, message, fields } = assert.fail()] = logged
  assert.deepEqual([level, message], ['warn', 'read waits long for its data'])
  assert.deepEqual(fields, {
    images: ['app:1'],
    rootfs,
    chunk,
    waitedMs: 2_000,
    failsInMs: 58_000,
    ...asked,
    failure: undefined,
    waiting: 1,
    slow: 1,
  })
  await clock.pass(3_000)
  slow.deliver('registry')
  await slow.done
  assert.deepEqual(logged[1], {
    level: 'info',
    message: 'read that waited long got its data',
    fields: { rootfs, chunk, waitedMs: 5_000, end: 'registry' },
  })
})

test('reads that do not wait long are not logged, however many follow each other', async () => {
  const { clock, logged, read } = host()
  for (let i = 0; i < 10; i++) {
    const quick = read()
    const next = read()
    await clock.pass(900)
    quick.deliver('peer')
    await quick.done
    await clock.pass(900)
    next.deliver('peer')
    await next.done
  }
  assert.deepEqual(logged, [])
  assert.equal(clock.waiting, 0)
})

test('a thousand slow reads make a few lines, which count the others', async () => {
  const { clock, logged, read, waiting } = host()
  const reads = Array.from({ length: 1_000 }, () => read())
  await clock.pass(2_000)
  assert.ok(logged.length <= 6, `${logged.length} lines`)
  await clock.pass(20_000)
  const late = read()
  await clock.pass(2_000)
  const { fields } = logged.at(-1)!
  assert.equal(fields['unlogged'], 1_000 - (logged.length - 1))
  assert.equal(fields['slow'], 1_001)
  for (const one of [...reads, late]) one.deliver('peer')
  await Promise.all([...reads, late].map(async ({ done }) => await done))
  assert.equal(waiting.waits.peer.count, 1_001)
})

test('how long reads waited is counted by where their data came from', async () => {
  const { clock, waiting, read } = host()
  const reads = { local: read(), peer: read(), failed: read(), gone: read(), stopped: read() }
  await clock.pass(400)
  reads.local.deliver('local')
  reads.peer.deliver('peer')
  await clock.pass(600)
  reads.failed.fail(new P2pfsError('timeout', 'nobody'))
  reads.gone.fail(new DOMException('interrupted', 'AbortError'))
  reads.stopped.fail(new P2pfsError('closed', 'the daemon stops'))
  await Promise.allSettled(Object.values(reads).map(async ({ done }) => await done))
  const counts = Object.entries(waiting.waits).map(([end, { count, sum }]) => [end, count, sum])
  assert.deepEqual(counts, [
    ['local', 1, 0.4],
    ['peer', 1, 0.4],
    ['neighbour', 0, 0],
    ['registry', 0, 0],
    ['none', 1, 1],
  ])
  assert.equal(waiting.count, 0)
})
