import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { chunkFile } from '../../../../protocol/chunk-file.ts'
import { digestOf } from '../../../../protocol/digest.ts'
import { isP2pfsError } from '../../../../protocol/errors.ts'
import { bulkModes, bulkProtocol, encodeBulkAnswer, type BulkAnswer } from '../../../../protocol/messages/bulk.ts'
import { worthBytes } from '../../../../node/peers/bulk/bulk-limits.ts'
import { Urgency } from '../../../../node/base/urgency.ts'
import { writeFrame } from '../../../../node/peers/frames.ts'
import { openBulkSocket } from '../../../../node/peers/bulk/bulk-socket.ts'
import { requestGrant } from '../../../../node/peers/bulk/grant-request.ts'
import { RawPeer } from '../raw-peer.ts'
import { makeSegment, TestPeer, until } from '../test-peer.ts'
import { SenderEnd } from './bulk-ends.ts'

const segment = makeSegment(40)
const { table, chunks } = segment
const all = chunks.map((_, i) => i)
const options = { signal: new AbortController().signal, urgency: new Urgency(false) }
const worth = { underWayBytes: worthBytes }

async function whenOpen(asker: TestPeer, peerId: string): Promise<void> {
  await until('the bulk connection is open', () => asker.network.bulk.carries(peerId, worth))
}

/** Two peers with bulk connections; the first holds all chunks of the segment. */
async function startTwo(
  context: TestContext,
  { holder = 'tls', asker = 'tls' }: { holder?: 'tls' | 'plain'; asker?: 'tls' | 'plain' } = {},
): Promise<{ holder: TestPeer; asker: TestPeer; holderId: string }> {
  const a = await TestPeer.start(context, 'a', { bulk: holder })
  a.hold(segment, all)
  const b = await TestPeer.start(context, 'b', { bulk: asker, bootstrap: [a.address] })
  await until('they have met', () => b.network.membership.peers().length === 1)
  return { holder: a, asker: b, holderId: a.network.peerId }
}

for (const mode of bulkModes) {
  test(`${mode}: chunks come into the store of the asker, which is told in batches`, async (t) => {
    const { holder, asker, holderId } = await startTwo(t, { holder: mode, asker: mode })
    const { bulk, membership } = asker.network
    assert.equal(bulk.stateOf(holderId), 'idle')
    await whenOpen(asker, holderId)
    assert.equal(bulk.stateOf(holderId), 'open')
    let batches = 0
    const { adopt } = asker.files
    asker.files.adopt = async (chunks) => {
      batches++
      await adopt(chunks)
    }
    await Promise.all(
      all.map(async (i) => await bulk.fetchToStore(holderId, table.digestAt(i), table.lengthAt(i), options)),
    )
    for (const i of all)
      assert.deepEqual(readFileSync(chunkFile(asker.files.writing.directory, table.digestAt(i))), chunks[i])
    assert.deepEqual(new Set(asker.adopted), new Set(all.map((i) => table.digestAt(i))))
    assert.ok(batches < all.length, `${batches} batches`)
    assert.deepEqual(readdirSync(join(asker.files.writing.directory, 'incoming')), [])
    assert.equal(asker.network.totals().bytesReceived, table.sizeBytes)
    assert.equal(membership.peers()[0]!.chunksReceived, all.length)
    await until('it is counted as sent', () => holder.network.totals().chunksSent === all.length)
    assert.equal(holder.network.membership.peers()[0]!.bytesSent, table.sizeBytes)
  })
}

test('what nobody waits for waits for the connection that is opened for it; what becomes urgent does not', async (t) => {
  const { asker, holderId } = await startTwo(t)
  const { bulk } = asker.network
  assert.equal(await bulk.ready(holderId, { ...options, underWayBytes: 1 }), false)
  const urgency = new Urgency(false)
  const urgent = bulk.ready(holderId, { ...options, ...worth, urgency })
  urgency.raise()
  assert.equal(await urgent, false)
  assert.equal(bulk.stateOf(holderId), 'idle', 'it is not open yet')
  // A busy machine takes longer than is waited for once.
  void bulk.ready(holderId, { ...options, underWayBytes: 1 })
  await until('it is open', () => bulk.stateOf(holderId) === 'open')
})

test('a connection that takes long to open is not waited for', async (t) => {
  const never = Promise.withResolvers<never>()
  const { asker, holderId } = await startGranting(t, async () => await never.promise)
  assert.equal(await asker.network.bulk.ready(holderId, { ...options, ...worth }), false)
  assert.equal(asker.network.bulk.stateOf(holderId), 'idle', 'it may still open')
})

test('no connection is opened for little', async (t) => {
  const { asker, holderId } = await startTwo(t)
  assert.equal(asker.network.bulk.carries(holderId, { underWayBytes: worthBytes - 1 }), false)
  assert.equal(asker.network.bulk.stateOf(holderId), 'idle')
})

test('hosts of different modes, and hosts without bulk connections, have none with each other', async (t) => {
  const plain = await startTwo(t, { holder: 'plain', asker: 'tls' })
  plain.asker.network.bulk.carries(plain.holderId, worth)
  await until('it is refused', () => plain.asker.network.bulk.stateOf(plain.holderId) === 'refused')

  const off = await TestPeer.start(t, 'off')
  const asker = await TestPeer.start(t, 'asker', { bulk: 'tls', bootstrap: [off.address] })
  await until('they have met', () => asker.network.membership.peers().length === 1)
  asker.network.bulk.carries(off.network.peerId, worth)
  await until('it is refused', () => asker.network.bulk.stateOf(off.network.peerId) === 'refused')
  assert.equal(off.network.bulk.stateOf(asker.network.peerId), 'off')
})

test('a chunk that rotted on the disk of its holder is missing, and the holder hears of it', async (t) => {
  const { holder, asker, holderId } = await startTwo(t)
  await whenOpen(asker, holderId)
  const digest = table.digestAt(3)
  writeFileSync(chunkFile(holder.files.writing.directory, digest), Buffer.alloc(table.lengthAt(3)))
  await assert.rejects(asker.network.bulk.fetchToStore(holderId, digest, table.lengthAt(3), options), (error) =>
    isP2pfsError(error, 'missing'),
  )
  await until('the holder hears of it', () => holder.suspected.includes(digest))
  assert.equal(asker.network.membership.peers().length, 1, 'nobody is blamed')
})

test('a chunk that rots after it was sent once is not sent again', async (t) => {
  const { holder, asker, holderId } = await startTwo(t)
  await whenOpen(asker, holderId)
  const digest = table.digestAt(4)
  const { bulk } = asker.network
  await bulk.fetchToStore(holderId, digest, table.lengthAt(4), options)
  writeFileSync(chunkFile(holder.files.writing.directory, digest), Buffer.alloc(table.lengthAt(4)))
  await assert.rejects(bulk.fetchToStore(holderId, digest, table.lengthAt(4), options), (error) =>
    isP2pfsError(error, 'missing'),
  )
})

test('a chunk that the disk does not take is asked for elsewhere, and the store hears why', async (t) => {
  const { asker, holderId } = await startTwo(t)
  await whenOpen(asker, holderId)
  rmSync(join(asker.files.writing.directory, 'incoming'), { recursive: true })
  await assert.rejects(
    asker.network.bulk.fetchToStore(holderId, table.digestAt(0), table.lengthAt(0), options),
    (error) => isP2pfsError(error, 'unavailable'),
  )
  assert.match(asker.unwritten[0]!.message, /ENOENT/)
})

test('a full disk is given nothing', async (t) => {
  const { asker, holderId } = await startTwo(t)
  await whenOpen(asker, holderId)
  asker.files.isFull = true
  assert.equal(asker.network.bulk.carries(holderId, worth), false)
})

test('a want that is given up fails at once, and the connection goes on', async (t) => {
  const { asker, holderId } = await startTwo(t)
  await whenOpen(asker, holderId)
  const { bulk } = asker.network
  const abort = new AbortController()
  const given = all.map(
    async (i) =>
      await bulk.fetchToStore(holderId, table.digestAt(i), table.lengthAt(i), { ...options, signal: abort.signal }),
  )
  abort.abort(new Error('given up'))
  for (const { status } of await Promise.allSettled(given)) assert.equal(status, 'rejected')
  await bulk.fetchToStore(holderId, table.digestAt(0), table.lengthAt(0), options)
  // Chunks that came although they were given up are in the store all the same.
  for (const digest of asker.adopted) assert.ok(existsSync(chunkFile(asker.files.writing.directory, digest)))
})

test('when the holder leaves, what was wanted of it fails', async (t) => {
  const { holder, asker, holderId } = await startTwo(t)
  await whenOpen(asker, holderId)
  await holder.network.stop()
  await until('the connection is gone', () => asker.network.bulk.stateOf(holderId) !== 'open')
  await assert.rejects(
    asker.network.bulk.fetchToStore(holderId, table.digestAt(0), table.lengthAt(0), options),
    (error) => isP2pfsError(error, 'unavailable'),
  )
})

test('a peer that is cut off loses its bulk connection, whether it wants to or not', async (t) => {
  const holder = await TestPeer.start(t, 'holder', { bulk: 'tls' })
  const raw = await RawPeer.connect(t, holder.address)
  await raw.sayHello()
  const target = { id: raw.target.toString(), libp2pId: raw.target }
  const granted = await requestGrant(raw.host, target, 'tls', options)
  assert.ok('grant' in granted)
  const open = Promise.withResolvers<void>()
  const socket = openBulkSocket(
    { mode: 'tls', ...granted },
    { onOpen: open.resolve, target: () => Buffer.alloc(1), onRead: () => undefined },
  )
  t.after(() => socket.destroy())
  socket.on('error', () => undefined)
  await open.promise
  const { membership } = holder.network
  membership.drop(membership.connectedPeer(raw.host.peerId.toString()))
  await until('the connection ends', () => socket.destroyed)
})

test('an asker that is cut off notices it', async (t) => {
  const { holder, asker, holderId } = await startTwo(t)
  await whenOpen(asker, holderId)
  const { membership } = holder.network
  membership.drop(membership.connectedPeer(asker.network.peerId))
  await until('the connection is gone', () => asker.network.bulk.stateOf(holderId) !== 'open')
})

test('a holder whose bulk port cannot be reached is unreachable, and is left alone for a while', async (t) => {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise<void>((resolve) => server.close(() => resolve()))
  const { asker, holderId, requests } = await startGranting(t, () => ({
    port,
    id: randomBytes(16),
    secret: randomBytes(32),
  }))
  const { bulk } = asker.network
  assert.equal(bulk.carries(holderId, worth), false)
  await until('it is known', () => bulk.stateOf(holderId) === 'unreachable')
  for (let i = 0; i < 3; i++) assert.equal(await bulk.ready(holderId, { ...options, ...worth }), false)
  assert.equal(requests.count, 1)
  assert.equal(asker.network.membership.peers().length, 1, 'it stays a member')
})

test('a holder that sends wrong bytes in bulk is banned', async (t) => {
  const liar = await SenderEnd.start(t)
  const digest = digestOf(Buffer.from('the chunk'))
  liar.chunks.set(digest, Buffer.alloc(4096))
  const { asker, holderId } = await startGranting(t, () => liar.grant())
  await whenOpen(asker, holderId)
  await assert.rejects(asker.network.bulk.fetchToStore(holderId, digest, 4096, options), (error) =>
    isP2pfsError(error, 'invalid'),
  )
  await until('it is cut off', () => asker.network.membership.peers().length === 0)
  assert.deepEqual(asker.adopted, [])
})

test('a holder whose answer is no grant is banned', async (t) => {
  const { asker, holderId } = await startGranting(t, () => Buffer.from('nonsense'))
  asker.network.bulk.carries(holderId, worth)
  await until('it is cut off', () => asker.network.membership.peers().length === 0)
})

test('a bulk port that is in use is another one, unless an operator has named it', async (t) => {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const { port } = server.address() as { port: number }
  await assert.rejects(TestPeer.start(t, 'named', { bulk: 'tls', bulkListen: `/ip4/127.0.0.1/tcp/${port}` }), (error) =>
    isP2pfsError(error, 'unavailable'),
  )
  await assert.rejects(TestPeer.start(t, 'wrong', { bulk: 'tls', bulkListen: 'localhost:4101' }), (error) =>
    isP2pfsError(error, 'invalid'),
  )
  const sender = await SenderEnd.start(t, { listen: { port, orAny: true } })
  assert.notEqual(sender.port, port)
})

/** A member that answers requests for grants in its own way, and an asker that has met it. */
async function startGranting(
  context: TestContext,
  answer: () => BulkAnswer | Buffer | Promise<BulkAnswer>,
): Promise<{ asker: TestPeer; holderId: string; requests: { count: number } }> {
  const asker = await TestPeer.start(context, 'asker', { bulk: 'tls' })
  const holder = await RawPeer.connect(context, asker.address)
  const { host } = holder
  const requests = { count: 0 }
  await host.handle(bulkProtocol, async (stream) => {
    requests.count++
    const given = await answer()
    await writeFrame(stream, [Buffer.isBuffer(given) ? given : encodeBulkAnswer(given)])
  })
  await holder.sayHello()
  await until('they have met', () => asker.network.membership.peers().length === 1)
  return { asker, holderId: host.peerId.toString(), requests }
}
