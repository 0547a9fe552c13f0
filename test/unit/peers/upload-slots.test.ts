import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import type { Stream } from '@libp2p/interface'
import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import {
  encodeWants,
  maxAnswerBytes,
  parseAnswer,
  wantPriorities,
  type ChunkAnswer,
  type Want,
  type WantPriority,
} from '../../../protocol/messages/chunk.ts'
import type { Bandwidth } from '../../../node/base/bandwidth.ts'
import { ByteBudget } from '../../../node/peers/byte-budget.ts'
import { ChunkServer } from '../../../node/peers/chunk/server.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import { limits } from '../../../node/peers/limits.ts'
import type { Peer } from '../../../node/peers/peer.ts'
import { settled, streamPair } from './fake-region.ts'

const bytes = new Uint8Array(4096)
const digest = digestOf(bytes)

/** A server whose disk reads nothing until it is let. */
function stalledServer(
  t: TestContext,
  { holders = [], upload }: { holders?: readonly string[]; upload?: Pick<Bandwidth, 'take'> } = {},
) {
  let disk = Promise.withResolvers<Uint8Array>()
  const read: Digest[] = []
  const server = new ChunkServer({
    served: {
      chunk: async (wanted) => {
        read.push(wanted)
        return await disk.promise
      },
      relayedChunk: async () => await Promise.resolve(undefined),
      holders: () => holders,
    },
    unsent: new ByteBudget({ ...limits.unsent, freeBytes: maxChunkBytes }),
    ...(upload && { upload }),
  })
  let next = 0
  /** One stream of a peer. */
  const connect = (id: string) => {
    const [near, far] = streamPair()
    const peer = { id, source: id, traffic: { sent: () => undefined }, use: () => undefined } as unknown as Peer
    const serving = server.serve(near as unknown as Stream, peer).catch(() => undefined)
    t.after(async () => {
      far.abort(new Error('gone'))
      await serving
    })
    const answers: ChunkAnswer[] = []
    const reading = async (): Promise<void> => {
      for await (const message of readFrames(far as unknown as Stream, maxAnswerBytes))
        answers.push(parseAnswer(message))
    }
    reading().catch(() => undefined)
    const want = async (count: number, priority: WantPriority, change: Partial<Want> = {}): Promise<number[]> => {
      const wants = Array.from({ length: count }, (): Want => ({
        id: next++,
        kind: 'held',
        priority,
        waits: false,
        depth: 0,
        digest,
        ...change,
      }))
      for (let i = 0; i < count; i += 256)
        await writeFrame(far as unknown as Stream, [encodeWants(wants.slice(i, i + 256))])
      await settled()
      return wants.map(({ id: wanted }) => wanted)
    }
    return { want, answers, statuses: () => answers.map(({ status }) => status) }
  }
  return { connect, read, letRead: () => disk.resolve(bytes), stall: () => void (disk = Promise.withResolvers()) }
}

test('when as many wants wait as there are slots, further ones are sent to other holders at once', async (t) => {
  const { connect, letRead } = stalledServer(t, { holders: ['x', 'y', 'z', 'w', 'a'] })
  const a = connect('a')
  await a.want(limits.wants.slots, 'boot')
  assert.deepEqual(a.statuses(), [])
  const [refused] = await a.want(1, 'boot')
  const { id, status, holders } = a.answers[0]!
  assert.deepEqual([id, status, holders.length, holders.includes('a')], [refused, 'busy', 3, false])
  letRead()
  await settled()
  assert.equal(a.statuses().filter((answered) => answered === 'chunk').length, limits.wants.slots)
  // There is room again.
  await a.want(1, 'boot')
  assert.equal(a.statuses().at(-1), 'chunk')
})

test('a want waits for its turn where no other holder is known, where it says that it waits, and where a steward has sent it', async (t) => {
  const full = async (holders: string[], change: Partial<Want>): Promise<string[]> => {
    const { connect } = stalledServer(t, { holders })
    const a = connect('a')
    await a.want(limits.wants.slots, 'boot')
    await a.want(3, 'boot', change)
    return a.statuses()
  }
  assert.deepEqual(await full([], {}), [])
  assert.deepEqual(await full(['x'], { waits: true }), [])
  assert.deepEqual(await full(['x'], { kind: 'relay', depth: 1 }), [])
  assert.deepEqual(await full(['x'], {}), ['busy', 'busy', 'busy'])
})

test('demand is not refused for the sake of others, and others are for the sake of demand', async (t) => {
  const { connect } = stalledServer(t, { holders: ['x'] })
  const a = connect('a')
  await a.want(limits.wants.slots, 'background')
  await a.want(1, 'background')
  assert.deepEqual(a.statuses(), ['busy'])
  await a.want(1, 'boot')
  await a.want(limits.wants.slots, 'demand')
  assert.deepEqual(a.statuses(), ['busy'])
  await a.want(1, 'ahead')
  await a.want(1, 'demand')
  assert.deepEqual(a.statuses(), ['busy', 'busy', 'busy'])
})

test('a peer that asks for little is served, whoever fills the slots', async (t) => {
  const { connect } = stalledServer(t, { holders: ['x'] })
  const [greedy, modest] = [connect('greedy'), connect('modest')]
  await greedy.want(limits.wants.slots, 'boot')
  await modest.want(limits.wants.slots / 2, 'boot')
  assert.deepEqual([greedy.statuses(), modest.statuses()], [[], []])
  await modest.want(1, 'boot')
  await greedy.want(1, 'boot')
  assert.deepEqual([greedy.statuses(), modest.statuses()], [['busy'], ['busy']])
})

test('those that took a chunk a moment ago are named', async (t) => {
  const { connect, letRead, stall } = stalledServer(t)
  letRead()
  for (const id of ['b', 'c']) await connect(id).want(1, 'boot')
  stall()
  const a = connect('a')
  await a.want(limits.wants.slots + 1, 'boot')
  assert.deepEqual(
    a.answers.map(({ holders }) => holders),
    [['c', 'b']],
  )
})

for (const [i, priority] of wantPriorities.entries())
  test(`a full queue is served by priority: ${priority} goes before all that come after it`, async (t) => {
    const { connect, letRead } = stalledServer(t)
    // The peers whose chunks are under way, and fill all turns that are not for demand.
    const others = Array.from({ length: 8 }, (_, n) => connect(`other${n}`))
    for (const { want } of others) await want(16, 'background')
    const a = connect('a')
    const ids: Record<string, number[]> = {}
    for (const later of wantPriorities.slice(i).toReversed()) ids[later] = await a.want(8, later)
    letRead()
    await settled()
    const served = a.answers.map(({ id }) => id)
    const firstOfAll = served.filter((id) => ids[priority]!.includes(id)).map((id) => served.indexOf(id))
    // A stream has four chunks under way at most: those were begun before the others came.
    assert.ok(Math.max(...firstOfAll) < 8 + 4, `places ${firstOfAll.join(' ')}`)
  })

test('a read that somebody waits for is begun at once beside a full queue of seeds and boots', async (t) => {
  const { connect, read } = stalledServer(t)
  const others = Array.from({ length: 16 }, (_, n) => connect(`other${n}`))
  for (const [n, { want }] of others.entries()) await want(16, n % 2 === 0 ? 'background' : 'boot')
  const before = read.length
  await connect('reader').want(1, 'demand')
  assert.equal(read.length, before + 1)
})

test('the limit on upload is told what somebody waits for, and what is of a seed', async (t) => {
  const taken: Record<string, boolean>[] = []
  const upload: Pick<Bandwidth, 'take'> = {
    take: async (_bytes, { urgency: { isUrgent }, isLast = false }) => {
      taken.push({ isUrgent, isLast })
      await Promise.resolve()
    },
  }
  const { connect, letRead } = stalledServer(t, { upload })
  letRead()
  const a = connect('a')
  for (const priority of wantPriorities) await a.want(1, priority)
  assert.deepEqual(taken, [
    { isUrgent: true, isLast: false },
    { isUrgent: false, isLast: false },
    { isUrgent: false, isLast: false },
    { isUrgent: false, isLast: true },
  ])
})
