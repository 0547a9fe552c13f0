import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Stream } from '@libp2p/interface'
import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import {
  comingMs,
  encodeWants,
  maxAnswerBytes,
  parseAnswer,
  type ChunkAnswer,
  type Want,
  type WantKind,
  type WantPriority,
} from '../../../protocol/messages/chunk.ts'
import { orAbort } from '../../../node/base/single-flight.ts'
import type { Urgency } from '../../../node/base/urgency.ts'
import { ByteBudget } from '../../../node/peers/byte-budget.ts'
import { ChunkServer } from '../../../node/peers/chunk/server.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import { limits } from '../../../node/peers/limits.ts'
import type { Peer } from '../../../node/peers/peer.ts'
import type { ServedData } from '../../../node/peers/served-data.ts'
import { streamPair } from './fake-region.ts'

const bytes = new Uint8Array(4096)
const digest = digestOf(bytes)
const fakePeer = (source = 'a'): Peer =>
  ({ id: source, source, traffic: { sent: () => undefined }, use: () => undefined }) as unknown as Peer

/** A server that holds nothing, and one client of it. */
function relayServer(relayedChunk: ServedData['relayedChunk']) {
  const server = new ChunkServer({
    served: { chunk: async () => await Promise.resolve(undefined), relayedChunk },
    unsent: new ByteBudget({ perPeer: 64 * maxChunkBytes, inAll: 64 * maxChunkBytes, freeBytes: maxChunkBytes }),
  })
  const connect = (source?: string) => {
    const [near, far] = streamPair()
    const serving = server.serve(near as unknown as Stream, fakePeer(source)).catch(() => undefined)
    const answers = readFrames(far as unknown as Stream, maxAnswerBytes)[Symbol.asyncIterator]()
    return {
      want: async (...wants: [id: number, kind: WantKind, priority?: WantPriority][]) =>
        await writeFrame(far as unknown as Stream, [
          encodeWants(
            wants.map(([id, kind, priority = 'boot']): Want => ({
              id,
              kind,
              priority,
              waits: false,
              depth: kind === 'relay' ? 1 : 0,
              digest,
            })),
          ),
        ]),
      nextWhole: async (): Promise<ChunkAnswer> => parseAnswer((await answers.next()).value as Uint8Array),
      next: async (): Promise<Pick<ChunkAnswer, 'id' | 'status'>> => {
        const { value } = await answers.next()
        const { id, status } = parseAnswer(value as Uint8Array)
        return { id, status }
      },
      near,
      end: async () => {
        far.abort(new Error('gone'))
        await serving
      },
    }
  }
  return { connect }
}

test('a chunk that the host does not hold is read for a peer that asks for that, and the peer hears that it is coming', async () => {
  const read = Promise.withResolvers<Uint8Array>()
  const { want, next, end } = relayServer(async () => await read.promise).connect()
  await want([1, 'relay'])
  assert.deepEqual(await next(), { id: 1, status: 'coming' })
  read.resolve(bytes)
  assert.deepEqual(await next(), { id: 1, status: 'chunk' })
  await end()
})

test('that many chunks are coming is one message', async () => {
  const read = Promise.withResolvers<Uint8Array>()
  const { want, nextWhole, end } = relayServer(async () => await read.promise).connect()
  const ids = Array.from({ length: 100 }, (_, i) => i)
  await want(...ids.map((id): [number, WantKind] => [id, 'relay']))
  const told: number[] = []
  let messages = 0
  for (; told.length < 100; messages++) {
    const { id, status, more } = await nextWhole()
    assert.equal(status, 'coming')
    told.push(id, ...more)
  }
  assert.deepEqual(
    told.toSorted((a, b) => a - b),
    ids,
  )
  assert.ok(messages <= 5, `${messages} messages`)
  await end()
})

test('who waits for a chunk hears again and again that it is coming, and nothing of it after the answer', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const read = Promise.withResolvers<Uint8Array>()
  const { want, next, end } = relayServer(async () => await read.promise).connect()
  await want([1, 'relay'])
  assert.equal((await next()).status, 'coming')
  for (let i = 0; i < 3; i++) {
    // The next chunk follows one that has been taken, and no other.
    await new Promise(setImmediate)
    t.mock.timers.tick(comingMs)
    assert.equal((await next()).status, 'coming')
  }
  read.resolve(bytes)
  assert.equal((await next()).status, 'chunk')
  t.mock.timers.tick(10 * comingMs)
  await want([2, 'held'])
  assert.deepEqual(await next(), { id: 2, status: 'missing' })
  await end()
})

test('a peer that takes nothing is told once that a chunk is coming, however long it takes', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const read = Promise.withResolvers<Uint8Array>()
  const { want, next, end, near } = relayServer(async () => await read.promise).connect()
  await want([1, 'relay'])
  assert.equal((await next()).status, 'coming')
  await new Promise(setImmediate)
  near.isFull = true
  for (let i = 0; i < 100; i++) {
    t.mock.timers.tick(comingMs)
    await new Promise(setImmediate)
  }
  read.resolve(bytes)
  await new Promise(setImmediate)
  near.drain()
  assert.equal((await next()).status, 'coming')
  assert.equal((await next()).status, 'chunk')
  await end()
})

test('a host that is not above the asker in the tree of relays says that it is busy', async () => {
  const depths: number[] = []
  const { want, next, end } = relayServer(async (_, { depth }) => {
    depths.push(depth)
    return await Promise.reject(new P2pfsError('busy', 'not above'))
  }).connect()
  await want([1, 'relay'])
  assert.deepEqual([await next(), depths], [{ id: 1, status: 'busy' }, [1]])
  // Nothing is said of it behind its answer.
  await new Promise(setImmediate)
  await want([2, 'held'])
  assert.deepEqual(await next(), { id: 2, status: 'missing' })
  await end()
})

test('a chunk is not read from the registry for a peer that only asks whether it is here', async () => {
  let reads = 0
  const { want, next, end } = relayServer(async () => await Promise.resolve((reads++, bytes))).connect()
  await want([1, 'held'])
  assert.deepEqual([await next(), reads], [{ id: 1, status: 'missing' }, 0])
  await end()
})

for (const [what, relayed] of [
  ['of no segment of this host', async () => await Promise.resolve(undefined)],
  ['that the registry does not give', async () => await Promise.reject(new Error('denied'))],
] as const)
  test(`a chunk ${what} is missing`, async () => {
    const { want, next, end } = relayServer(relayed).connect()
    await want([1, 'relay', 'demand'])
    assert.deepEqual(await next(), { id: 1, status: 'missing' })
    await end()
  })

test('a chunk that is slow to come holds up no other answer of its stream, and is raised when somebody waits for it', async () => {
  const slow = Promise.withResolvers<Uint8Array>()
  const urgencies: Urgency[] = []
  const { want, next, end } = relayServer(async (_, { urgency }) => {
    urgencies.push(urgency)
    return await slow.promise
  }).connect()
  for (let id = 0; id < 100; id++) {
    await want([id, 'relay'])
    assert.deepEqual(await next(), { id, status: 'coming' })
  }
  await want([1000, 'held'])
  assert.deepEqual(await next(), { id: 1000, status: 'missing' })
  await want([7, 'raise', 'demand'], [1001, 'held'])
  assert.deepEqual(await next(), { id: 1001, status: 'missing' })
  assert.deepEqual([urgencies[7]?.isUrgent, urgencies[8]?.isUrgent], [true, false])
  slow.resolve(bytes)
  await end()
})

test('chunks that are read for the peers of one source are bounded: one more is refused, others are not', async () => {
  const { connect } = relayServer(async (_, { signal }) => await orAbort(new Promise<never>(() => undefined), signal))
  const greedy = [connect('greedy'), connect('greedy')]
  for (let id = 0; id < limits.relays.perSource; id++) {
    const { want, next } = greedy[id % 2]!
    await want([id, 'relay'])
    assert.equal((await next()).status, 'coming')
  }
  const again = connect('greedy')
  await again.want([0, 'relay'])
  assert.equal((await again.next()).status, 'busy')
  const other = connect('other')
  await other.want([0, 'relay'])
  assert.equal((await other.next()).status, 'coming')
  for (const client of [...greedy, again, other]) await client.end()
  const afterwards = connect('greedy')
  await afterwards.want([0, 'relay'])
  assert.equal((await afterwards.next()).status, 'coming')
  await afterwards.end()
})
