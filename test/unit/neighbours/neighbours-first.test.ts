import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { Bandwidth } from '../../../node/base/bandwidth.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { NeighboursFirst } from '../../../node/neighbours/neighbours-first.ts'
import type { Delivery, RemoteSource } from '../../../node/model/chunk-request.ts'
import { FakeClock } from '../../support/fake-clock.ts'

const bytes = Buffer.alloc(1000)
const digest = digestOf(bytes)
const request = { digest, lengthBytes: bytes.length, table: digest, index: 0 }

type Answer = (signal: AbortSignal) => Promise<Uint8Array>
const never: Answer = async () => await new Promise(() => undefined)
const deliver: Answer = async () => await Promise.resolve(bytes)
const fail =
  (code: 'missing' | 'unavailable'): Answer =>
  async () =>
    await Promise.reject(new P2pfsError(code, 'as the test wants it'))

function setUp({ neighbour = deliver, registry = deliver, bytesPerSecond = 1e9 } = {}) {
  const clock = new FakeClock()
  const bandwidth = new Bandwidth({ clock, nowUs: () => BigInt(clock.now() * 1000) })
  bandwidth.bytesPerSecond = bytesPerSecond
  const asked: string[] = []
  let source: RemoteSource = 'registry'
  const parts = {
    clock,
    bandwidth,
    neighbours: [
      {
        region: 'b',
        isReady: () => true,
        usualMs: () => 50,
        lastSignMs: -Infinity,
        fetch: async (_: unknown, { signal }: { signal: AbortSignal }) => {
          asked.push('b')
          return await neighbour(signal)
        },
      },
    ],
    registry: {
      fetch: async (_: unknown, { signal }: { signal: AbortSignal }): Promise<Delivery> => {
        asked.push('registry')
        return await registry(signal)
      },
    },
  }
  const first = new NeighboursFirst(parts)
  const fetch = async (more: { isFallback?: boolean; urgency?: Urgency } = {}): Promise<RemoteSource> => {
    source = 'registry'
    await first.fetch(request, {
      signal: new AbortController().signal,
      urgency: new Urgency(true),
      fetchChunk: async () => await Promise.resolve(bytes),
      onSource: (from) => (source = from),
      ...more,
    })
    return source
  }
  return { clock, bandwidth, asked, first, fetch }
}

test('a neighbour that delivers spares the registry', async () => {
  const { asked, fetch } = setUp()
  assert.equal(await fetch(), 'neighbour')
  assert.deepEqual(asked, ['b'])
})

test('a neighbour that lacks the chunk is followed by the registry at once, and is not passed over', async () => {
  const { asked, fetch, first } = setUp({ neighbour: fail('missing') })
  assert.equal(await fetch(), 'registry')
  assert.deepEqual(asked, ['b', 'registry'])
  assert.equal(first.passedOverMs('b'), 0)
})

test('a silent neighbour costs one hedge, and is passed over then, for longer each time', async () => {
  const { clock, asked, fetch, first } = setUp({ neighbour: never })
  const fetching = fetch()
  await clock.pass(49)
  assert.deepEqual(asked, ['b'])
  await clock.pass(1)
  assert.equal(await fetching, 'registry')
  assert.equal(first.passedOverMs('b'), 1_000)
  assert.equal(await fetch(), 'registry')
  assert.deepEqual(asked, ['b', 'registry', 'registry'])
  await clock.pass(1_000)
  const again = fetch()
  await clock.pass(50)
  assert.equal(await again, 'registry')
  assert.equal(first.passedOverMs('b'), 2_000)
})

test('a chunk that nobody waits for gives the neighbour more time, until somebody does', async () => {
  const { clock, asked, fetch } = setUp({ neighbour: never })
  const urgency = new Urgency(false)
  const fetching = fetch({ urgency })
  await clock.pass(249)
  assert.deepEqual(asked, ['b'])
  urgency.raise()
  assert.equal(await fetching, 'registry')
})

test('beyond the bandwidth the registry is asked, and nothing waits', async () => {
  const { clock, asked, fetch, bandwidth } = setUp({ bytesPerSecond: 1000 })
  assert.equal(await fetch(), 'neighbour')
  assert.equal(await fetch(), 'registry')
  assert.deepEqual(asked, ['b', 'registry'])
  await clock.pass(1000)
  assert.equal(await fetch(), 'neighbour')
  assert.equal(await fetch(), 'registry')
  bandwidth.bytesPerSecond = undefined
  assert.equal(await fetch(), 'neighbour')
})

test('a chunk that the neighbour lacks costs no bandwidth', async () => {
  const { asked, fetch } = setUp({ bytesPerSecond: 1000, neighbour: fail('missing') })
  for (let i = 0; i < 3; i++) assert.equal(await fetch(), 'registry')
  assert.deepEqual(asked, ['b', 'registry', 'b', 'registry', 'b', 'registry'])
})

test('beyond the bandwidth a read waits for its share where the registry fails', async () => {
  const { clock, fetch } = setUp({ bytesPerSecond: 1000, registry: fail('unavailable') })
  assert.equal(await fetch(), 'neighbour')
  let isOver = false
  const waiting = fetch({ urgency: new Urgency(false) }).finally(() => (isOver = true))
  await clock.pass(800)
  assert.equal(isOver, false)
  await clock.pass(200)
  assert.equal(await waiting, 'neighbour')
})

test('a host that another reads for does not ask the neighbour, unless the registry fails', async () => {
  const { asked, fetch } = setUp()
  assert.equal(await fetch({ isFallback: true }), 'registry')
  assert.deepEqual(asked, ['registry'])
  const cut = setUp({ registry: fail('unavailable') })
  assert.equal(await cut.fetch({ isFallback: true }), 'neighbour')
  assert.deepEqual(cut.asked, ['registry', 'b'])
})

test('where both fail the error is that of the registry', async () => {
  const { fetch } = setUp({ neighbour: fail('missing'), registry: fail('unavailable') })
  await assert.rejects(fetch(), { code: 'unavailable' })
})

test('a registry that hangs costs a read two seconds where the neighbour was passed over', async () => {
  let isSilent = true
  const { clock, asked, fetch } = setUp({
    neighbour: async (signal) => await (isSilent ? never : deliver)(signal),
    registry: async (signal) => await (isSilent ? deliver : never)(signal),
  })
  const first = fetch()
  await clock.pass(50)
  assert.equal(await first, 'registry')
  isSilent = false
  const second = fetch()
  await clock.pass(1_999 - 1_000)
  assert.deepEqual(asked, ['b', 'registry', 'registry'])
  await clock.pass(1_001)
  assert.equal(await second, 'neighbour')
})

test('a chunk that nobody waits for waits for a registry that hangs, until somebody does', async () => {
  const { clock, asked, fetch } = setUp({ registry: never })
  const urgency = new Urgency(false)
  const fetching = fetch({ isFallback: true, urgency })
  await clock.pass(60_000)
  assert.deepEqual(asked, ['registry'])
  urgency.raise()
  assert.equal(await fetching, 'neighbour')
  assert.equal(clock.waiting, 0)
})

test('a registry that is late and delivers is taken, and the neighbour is let go', async () => {
  let isLetGo = false
  const late = Promise.withResolvers<Uint8Array>()
  const { clock, asked, fetch } = setUp({
    neighbour: async (signal) => {
      signal.addEventListener('abort', () => (isLetGo = true))
      return await never(signal)
    },
    registry: async () => await late.promise,
  })
  const fetching = fetch({ isFallback: true })
  await clock.pass(2_000)
  assert.deepEqual(asked, ['registry', 'b'])
  late.resolve(bytes)
  assert.equal(await fetching, 'registry')
  assert.ok(isLetGo)
})
