import assert from 'node:assert/strict'
import { createConnection } from 'node:net'
import { test, type TestContext } from 'node:test'
import type { Digest } from '../../../../protocol/digest.ts'
import { bulkAskerProof, encodeBulkOrder } from '../../../../protocol/messages/bulk.ts'
import { Bandwidth } from '../../../../node/base/bandwidth.ts'
import { bulkLimits } from '../../../../node/peers/bulk/bulk-limits.ts'
import { until } from '../test-peer.ts'
import { ReceiverEnd, SenderEnd } from './bulk-ends.ts'

const chunkBytes = 4096

/** A peer that has a connection to the holder. */
class Asker {
  readonly end: ReceiverEnd
  readonly #connection: number

  static async open(t: TestContext, holder: SenderEnd, peer: string): Promise<Asker> {
    const end = new ReceiverEnd(t, { mode: 'plain' })
    return new Asker(end, await end.opened(holder.grant(peer)))
  }

  private constructor(end: ReceiverEnd, connection: number) {
    this.end = end
    this.#connection = connection
  }

  want(digests: readonly Digest[], { firstId = 0, waits = false }: { firstId?: number; waits?: boolean } = {}): void {
    const wants = digests.map((digest, i) => ({
      id: firstId + i,
      digest,
      lengthBytes: chunkBytes,
      waits,
      isLast: true,
    }))
    this.end.receiver.handle({ want: this.#connection, wants })
  }

  raise(id: number): void {
    this.end.receiver.handle({ raise: this.#connection, id })
  }

  /** Whom the holder has named, by the ids of the wants. */
  named(): Map<number, readonly string[]> {
    const met = this.end.reports.flatMap((report) => ('met' in report ? report.wants : []))
    return new Map(met.flatMap((want) => (want.outcome === 'elsewhere' ? [[want.id, want.holders]] : [])))
  }
}

/** A peer that wants chunks all the time, since it does not read what comes. */
async function addStuckAsker(t: TestContext, holder: SenderEnd): Promise<void> {
  const { id, secret, port } = holder.grant('stuck')
  const socket = createConnection({ host: '127.0.0.1', port })
  t.after(() => socket.destroy())
  socket.on('error', () => undefined).pause()
  const orders = holder.hold(100).map((digest, id) => encodeBulkOrder({ order: 'want', id, digest }))
  socket.write(Buffer.concat([id, bulkAskerProof(secret), ...orders]))
  await until('the holder has stopped', () => holder.sender.load.unsentChunks === bulkLimits.buffers)
  holder.reads = []
}

test('many that want the same chunks are sent each of them once, and are told who holds the others', async (t) => {
  const holder = await SenderEnd.start(t, { mode: 'plain' })
  await addStuckAsker(t, holder)
  const digests = holder.hold(120, chunkBytes)
  const askers = await Promise.all([0, 1, 2, 3, 4, 5].map(async (i) => await Asker.open(t, holder, `peer ${i}`)))
  for (const asker of askers) asker.want(digests)
  await until('all wants have an answer', () => askers.every(({ end }) => end.outcomes.size === digests.length))
  assert.equal(holder.reads.length, digests.length)
  assert.ok(askers.filter(({ end }) => end.kept.size > 0).length > 1, 'one of them was sent everything')
  for (const asker of askers) {
    for (const [id, holders] of asker.named())
      for (const peer of holders) {
        const named = askers[Number(peer.split(' ')[1])]!
        assert.ok(named !== asker && named.end.kept.has(digests[id]!), `${peer} does not hold chunk ${id}`)
      }
  }
})

test('an asker that is alone is sent everything, whoever took the chunks before', async (t) => {
  const holder = await SenderEnd.start(t, { mode: 'plain' })
  const digests = holder.hold(40, chunkBytes)
  for (const peer of ['first', 'second']) {
    const asker = await Asker.open(t, holder, peer)
    asker.want(digests)
    await until('it has an answer to each want', () => asker.end.outcomes.size === digests.length)
    assert.equal(asker.end.kept.size, digests.length)
  }
})

test('beside others, what somebody waits for is sent, and what has nobody else to be asked of', async (t) => {
  const holder = await SenderEnd.start(t, { mode: 'plain' })
  await addStuckAsker(t, holder)
  const digests = holder.hold(60, chunkBytes)
  const first = await Asker.open(t, holder, 'first')
  first.want(digests)
  await until('the first has all', () => first.end.kept.size === digests.length)
  const second = await Asker.open(t, holder, 'second')
  second.want(digests.slice(0, 30))
  second.raise(29)
  second.want(digests.slice(30), { firstId: 100, waits: true })
  await until('the second has all answers', () => second.end.outcomes.size === digests.length)
  assert.deepEqual(second.named().get(0), ['first'])
  assert.equal(second.end.outcomes.get(29), 'kept')
  for (let id = 100; id < 130; id++) assert.equal(second.end.outcomes.get(id), 'kept')
})

test('what was on its way to a peer that leaves is sent to the next one', async (t) => {
  const holder = await SenderEnd.start(t, { mode: 'plain' })
  await addStuckAsker(t, holder)
  const digests = holder.hold(8, chunkBytes)
  const first = await Asker.open(t, holder, 'first')
  first.end.keep = () => {
    throw new Error('no space left on device')
  }
  first.want(digests)
  await until('the first was sent all', () => first.end.outcomes.size === digests.length)
  const second = await Asker.open(t, holder, 'second')
  second.want(digests)
  // Its connection is there, and its wants have come.
  const [other] = holder.hold(1, chunkBytes)
  second.want([other!], { firstId: 100 })
  await until('the rest is answered', () => second.end.outcomes.has(100))
  holder.sender.handle({ revoke: 'first' })
  await until('the second has all', () => second.end.kept.size === digests.length + 1)
})

test('a peer that does not say that it holds what it was sent is not waited for', async (t) => {
  const holder = await SenderEnd.start(t, { mode: 'plain' })
  await addStuckAsker(t, holder)
  const digests = holder.hold(8, chunkBytes)
  const first = await Asker.open(t, holder, 'first')
  first.end.keep = () => {
    throw new Error('no space left on device')
  }
  first.want(digests)
  await until('the first was sent all', () => first.end.outcomes.size === digests.length)
  const second = await Asker.open(t, holder, 'second')
  second.want([...digests, holder.hold(1, chunkBytes)[0]!])
  await until('the rest is answered', () => second.end.outcomes.has(digests.length))
  for (let checks = 0; checks < 3; checks++) holder.sender.check()
  await until('the second has all', () => second.end.kept.size === digests.length + 1)
})

test('others are named while the limit on upload is used up', async (t) => {
  const upload = new Bandwidth()
  const holder = await SenderEnd.start(t, { mode: 'plain', upload })
  await addStuckAsker(t, holder)
  const digests = holder.hold(20, chunkBytes)
  const first = await Asker.open(t, holder, 'first')
  first.want(digests)
  await until('the first has all', () => first.end.kept.size === digests.length)
  upload.bytesPerSecond = 1000
  upload.charge(1_000_000)
  const second = await Asker.open(t, holder, 'second')
  second.want(digests)
  await until('the second has all answers', () => second.named().size === digests.length)
})
