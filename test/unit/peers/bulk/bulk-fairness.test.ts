import assert from 'node:assert/strict'
import { createConnection, type Socket } from 'node:net'
import { test, type TestContext } from 'node:test'
import { Worker } from 'node:worker_threads'
import type { Digest } from '../../../../protocol/digest.ts'
import { bulkAnswerHeaderBytes, bulkAskerProof, encodeBulkOrder } from '../../../../protocol/messages/bulk.ts'
import { Bandwidth } from '../../../../node/base/bandwidth.ts'
import { bulkLimits } from '../../../../node/peers/bulk/bulk-limits.ts'
import type { FromReceiver, ToReceiver } from '../../../../node/peers/bulk/thread-messages.ts'
import { until } from '../test-peer.ts'
import { ReceiverEnd, SenderEnd } from './bulk-ends.ts'

/** Opens a plain connection from an address of its own, and reads whatever comes. */
async function openFrom(context: TestContext, holder: SenderEnd, peer: string, localAddress: string): Promise<Socket> {
  const { id, secret, port } = holder.grant(peer)
  const socket = createConnection({ host: '127.0.0.1', port, localAddress })
  context.after(() => socket.destroy())
  socket.on('error', () => undefined).resume()
  socket.write(Buffer.concat([id, bulkAskerProof(secret)]))
  await until('the holder has answered, or has cut it off', () => socket.bytesRead > 0 || socket.destroyed)
  return socket
}

function want(socket: Socket, digests: readonly Digest[], order: 'want' | 'last' = 'want', firstId = 0): void {
  const orders = digests.map((digest, i) => encodeBulkOrder({ order, id: firstId + i, digest }))
  socket.write(Buffer.concat(orders))
}

test('who has many identities at one address gets no more than who has one at another', async (t) => {
  const holder = await SenderEnd.start(t, { mode: 'plain' })
  const modest = await openFrom(t, holder, 'modest', '127.0.0.1')
  const crowd: Socket[] = []
  for (let i = 0; i < 6; i++) crowd.push(await openFrom(t, holder, `one of many ${i}`, '127.0.0.2'))
  const few = holder.hold(40)
  for (const one of crowd) want(one, holder.hold(100))
  want(modest, few)
  await until('the modest one has all', () => holder.reads.includes(few.at(-1)!))
  const ofOthers = holder.reads.indexOf(few.at(-1)!) + 1 - few.length
  assert.ok(ofOthers <= 2 * few.length, `${ofOthers} chunks were sent to the crowd meanwhile`)
})

test('the connections of one address are bounded, and another address still gets one', async (t) => {
  const holder = await SenderEnd.start(t, { mode: 'plain' })
  const crowd: Socket[] = []
  for (let i = 0; i < bulkLimits.connections.perSource; i++)
    crowd.push(await openFrom(t, holder, `one of many ${i}`, '127.0.0.2'))
  const connections = (): number => holder.sender.load.connections
  assert.equal(connections(), bulkLimits.connections.perSource)
  const oneMore = await openFrom(t, holder, 'one more', '127.0.0.2')
  await until('it is cut off', () => oneMore.destroyed)
  assert.equal(connections(), bulkLimits.connections.perSource)
  await openFrom(t, holder, 'elsewhere', '127.0.0.3')
  assert.equal(connections(), bulkLimits.connections.perSource + 1)
  crowd[0]!.destroy()
  await until('its place is free', () => connections() === bulkLimits.connections.perSource)
  await openFrom(t, holder, 'one more', '127.0.0.2')
  assert.equal(connections(), bulkLimits.connections.perSource + 1)
})

test('what is wanted last comes after what others want, and after the rest of its asker, but not never', async (t) => {
  const holder = await SenderEnd.start(t, { mode: 'plain' })
  const seeded = await openFrom(t, holder, 'seeded', '127.0.0.1')
  const booting = await openFrom(t, holder, 'booting', '127.0.0.2')
  const [last, own, ahead] = [holder.hold(200), holder.hold(32), holder.hold(64)]
  want(seeded, last, 'last')
  await until('the seed runs', () => holder.reads.length > 4)
  want(seeded, own, 'want', last.length)
  want(booting, ahead)
  const lastAt = (): number => Math.max(...[...own, ...ahead].map((digest) => holder.reads.indexOf(digest)))
  const before = holder.reads.length
  await until('the others have all', () => [...own, ...ahead].every((digest) => holder.reads.includes(digest)))
  const meanwhile = holder.reads.slice(before, lastAt()).filter((digest) => last.includes(digest)).length
  assert.ok(meanwhile >= 1 && meanwhile <= 24, `${meanwhile} chunks of the seed were sent meanwhile`)
  await until('the seed ends', () => last.every((digest) => holder.reads.includes(digest)))
})

test('chunks in bulk that wait for the limit on upload are counted, and what is cancelled meanwhile is not sent', async (t) => {
  const upload = new Bandwidth()
  const holder = await SenderEnd.start(t, { mode: 'plain', upload })
  const asker = await openFrom(t, holder, 'asker', '127.0.0.1')
  upload.bytesPerSecond = 1000
  // Less than what may be borrowed for an urgent piece: the word that something is cancelled does not wait.
  upload.charge(200_000)
  let answered = 0
  asker.on('data', ({ length }: Buffer) => (answered += length))
  const digests = holder.hold(3)
  want(asker, digests, 'last')
  await until('one waits', () => upload.use().waiting === 1)
  for (const id of [0, 1]) asker.write(encodeBulkOrder({ order: 'cancel', id }))
  await until('the others are cancelled', () => answered === 2 * bulkAnswerHeaderBytes)
  upload.bytesPerSecond = undefined
  await until('the third is sent', () => holder.reads.length > 0)
  assert.deepEqual(holder.reads, [digests[2]])
  await until('none waits', () => upload.use().waiting === 0)
  assert.ok(upload.use().waits >= 1)
})

test('a holder that has much to send does not keep another one waiting', async (t) => {
  const [greedy, modest] = [await SenderEnd.start(t), await SenderEnd.start(t)]
  const asker = new ReceiverEnd(t)
  const [fromGreedy, fromModest] = [await asker.opened(greedy.grant()), await asker.opened(modest.grant())]
  asker.want(fromGreedy, greedy.hold(400), 256 * 1024, 1_000)
  asker.want(fromModest, modest.hold(10))
  const keptOf = (holder: SenderEnd): number =>
    [...asker.kept.keys()].filter((digest) => holder.chunks.has(digest)).length
  let meanwhile = 0
  const { keep } = asker
  asker.keep = (digest, bytes) => {
    const changedAtMs = keep(digest, bytes)
    if (modest.chunks.has(digest)) meanwhile = keptOf(greedy)
    return changedAtMs
  }
  await until('all of the modest one are there', () => keptOf(modest) === 10)
  assert.ok(meanwhile <= 100, `${meanwhile} chunks of the greedy one came before`)
})

test('what is cancelled in the midst of a transfer is not read by the holder any more', async (t) => {
  const holder = await SenderEnd.start(t)
  const asker = new ReceiverEnd(t)
  const digests = holder.hold(400)
  const connection = await asker.opened(holder.grant())
  asker.want(connection, digests)
  await until('some have come', () => asker.outcomes.size >= 20)
  const before = holder.reads.length
  for (const id of digests.keys()) if (!asker.outcomes.has(id)) asker.receiver.handle({ cancel: connection, id })
  await until('all are answered', () => asker.outcomes.size === digests.length)
  const after = holder.reads.length - before
  // One turn of the event loop sends one chunk, and the orders take a few to get there: a round trip.
  assert.ok(after <= 4 * bulkLimits.buffers, `${after} chunks were read after they were cancelled`)
})

test('a disk that stands still stops the holder, and goes on where it was', async (t) => {
  const holder = await SenderEnd.start(t)
  const allowed = new Int32Array(new SharedArrayBuffer(4))
  const worker = new Worker(new URL('./blocked-receiver.ts', import.meta.url), { workerData: allowed.buffer })
  t.after(async () => await worker.terminate())
  const reports: FromReceiver[] = []
  worker.on('message', (report: FromReceiver) => reports.push(report))
  const tell = (message: ToReceiver): void => worker.postMessage(message)
  tell({ open: 1, host: '127.0.0.1', grant: holder.grant() })
  await until('it is open', () => reports.some((report) => 'opened' in report))
  const digests = holder.hold(128)
  tell({ want: 1, wants: digests.map((digest, id) => ({ id, digest, lengthBytes: 256 * 1024 })) })
  let before = -1
  await until('the holder has stopped', () => {
    const isQuiet = holder.reads.length === before && holder.sender.load.unsentChunks === bulkLimits.buffers
    before = holder.reads.length
    return isQuiet
  })
  assert.ok(holder.reads.length < digests.length, 'the kernel took everything: the test needs more chunks')
  Atomics.store(allowed, 0, digests.length)
  Atomics.notify(allowed, 0)
  const kept = (): number =>
    reports.flatMap((report) => ('met' in report ? report.wants : [])).filter(({ outcome }) => outcome === 'kept')
      .length
  await until('everything is kept', () => kept() === digests.length)
})
