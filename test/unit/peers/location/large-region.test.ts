import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { digestOf } from '../../../../protocol/digest.ts'
import { Urgency } from '../../../../node/base/urgency.ts'
import { holds } from '../../../../protocol/messages/location.ts'
import { makeSegment, TestPeer, until } from '../test-peer.ts'

const { signal } = new AbortController()
/** Enough that hosts with eight neighbours are not connected to all. */
const count = 16

/** Real hosts of one region, in which from four members on nobody is connected to all. */
async function startRegion(t: TestContext): Promise<TestPeer[]> {
  const first = await TestPeer.start(t, 'host-0', { fullMesh: 3 })
  const others = await Promise.all(
    Array.from(
      { length: count - 1 },
      async (_, i) => await TestPeer.start(t, `host-${i + 1}`, { fullMesh: 3, bootstrap: [first.address] }),
    ),
  )
  const peers = [first, ...others]
  await until('all know all', () => peers.every(({ network }) => network.membership.roster.size === count), {
    timeoutMs: 60_000,
  })
  return peers
}

const isConnected = (a: TestPeer, b: TestPeer): boolean =>
  a.network.membership.members().some(({ id }) => id === b.network.peerId)

/** Two hosts that are not connected, and will not be as neighbours; neither tracks the key. */
function strangers(peers: readonly TestPeer[], key: ReturnType<typeof digestOf>): [TestPeer, TestPeer] {
  const trackers = peers[0]!.network.location.trackersOf(key)
  const others = peers.filter(({ network }) => !trackers.includes(network.peerId))
  for (const a of others) {
    const neighbours = a.network.membership.roster.neighbours()
    for (const b of others) if (a !== b && !isConnected(a, b) && !neighbours.has(b.network.peerId)) return [a, b]
  }
  throw new Error('all hosts are connected')
}

test('a host fetches a chunk from a holder that it was not connected to, which its trackers name', async (t) => {
  const peers = await startRegion(t)
  const segment = makeSegment(4)
  const { table, chunks } = segment
  const [holder, cold] = strangers(peers, table.id)
  holder.hold(segment, [0, 1, 2, 3])
  await until('a tracker knows the holder', () =>
    peers.some(({ network }) => network !== holder.network && network.location.sizes.registrations > 0),
  )
  assert.ok(!isConnected(cold, holder))
  cold.track(segment)
  const { availability } = cold.network
  await until('the holder is found', () => {
    void availability.whenAsked(table.id, { signal, index: 2 })
    return availability.holders(table.id, 2).length > 0
  })
  assert.deepEqual(availability.holders(table.id, 2), [holder.network.peerId])
  const wanted = { signal, streamClass: 'demand', stallMs: 10_000 } as const
  const bytes = await cold.network.chunks.fetchChunk(
    holder.network.peerId,
    table.digestAt(2),
    table.lengthAt(2),
    wanted,
  )
  assert.ok(Buffer.from(bytes).equals(chunks[2]!))
  // A later change is told, too.
  holder.network.availability.withdrawChunks(table.id, [2])
  await until('the withdrawal is heard', () => availability.holders(table.id, 2).length === 0)
})

test('objects and imports are found at members that are not connected', async (t) => {
  const peers = await startRegion(t)
  const key = digestOf(Buffer.from('image manifest'))
  const [holder, cold] = strangers(peers, key)
  const { objects } = cold.network
  assert.equal(await objects.findImport(key, { signal }), undefined)
  holder.importing.add(key)
  holder.network.location.hold(key, holds.much, 'now')
  let importing: string | undefined
  for (let i = 0; importing === undefined && i < 100; i++) {
    importing = await objects.findImport(key, { signal })
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  assert.equal(importing, holder.network.peerId)
})

test('all hosts ask for a span: one reads it, and each other is sent to one above it', async (t) => {
  const peers = await startRegion(t)
  const segment = makeSegment(4)
  for (const peer of peers) peer.track(segment)
  const { id } = segment.table
  const depths = new Map<string, number>()
  for (const { network } of peers) {
    const { peerId, spans } = network
    await spans.ask(id, 0, { urgency: new Urgency(false) })
    const { member, depth } = spans.placeOf(id, 0)!
    if (member === undefined) assert.equal(depths.size, 0, 'only the first reads')
    else assert.ok(depths.get(member)! < depth)
    depths.set(peerId, depth)
  }
})

test('a span that a host of another cohort has is got from that host', async (t) => {
  const peers = await startRegion(t)
  const segment = makeSegment(4)
  const { id } = segment.table
  const [holder, cold] = strangers(peers, id)
  holder.hold(segment, [0, 1, 2, 3])
  await until('its trackers know the holder', () => {
    const trackers = holder.network.location.trackersOf(id)
    return peers.every(
      ({ network }) =>
        !trackers.includes(network.peerId) || network.location.holders(id, { asker: '', order: 0 }).length > 0,
    )
  })
  cold.track(segment)
  const { spans } = cold.network
  await spans.ask(id, 0, { urgency: new Urgency(false) })
  assert.equal(spans.placeOf(id, 0)?.member, holder.network.peerId)
})
