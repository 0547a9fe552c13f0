import assert from 'node:assert/strict'
import { createRawHost } from '../../support/raw-host.ts'
import { test, type TestContext } from 'node:test'
import type { Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { encodeMemberRecord } from '../../../protocol/member-record.ts'
import { bulkProtocol } from '../../../protocol/messages/bulk.ts'
import { chunkProtocol, encodeWants } from '../../../protocol/messages/chunk.ts'
import { importProtocol } from '../../../protocol/messages/import.ts'
import { encodeObjectRequest, maxObjectBytes, objectProtocol } from '../../../protocol/messages/object.ts'
import {
  deltaMessages,
  encodeRegionMessage,
  haveMessages,
  haveParts,
  maxAddresses,
  maxTextLength,
  newsMessages,
  parseRegionMessage,
  regionMessageRate,
  regionProtocol,
  type RegionMessage,
} from '../../../protocol/messages/region.ts'
import { reachProtocol } from '../../../protocol/messages/reach.ts'
import { seedProtocol } from '../../../protocol/messages/seed.ts'
import { silentLog } from '../../../node/base/log.ts'
import { BanList } from '../../../node/peers/ban-list.ts'
import { ByteBudget } from '../../../node/peers/byte-budget.ts'
import { ChunkServer } from '../../../node/peers/chunk/server.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import { limits } from '../../../node/peers/limits.ts'
import { ObjectServer } from '../../../node/peers/object/server.ts'
import type { Peer } from '../../../node/peers/peer.ts'
import { SourcePace } from '../../../node/peers/source-pace.ts'
import { serveRegion } from '../../../node/peers/region/server.ts'
import type { ServedData } from '../../../node/peers/served-data.ts'
import { FakeRegion, settled, streamPair, type FakeStream } from './fake-region.ts'
import { RawPeer } from './raw-peer.ts'
import { TestPeer, until } from './test-peer.ts'

const { signal } = new AbortController()
const digest = digestOf(Buffer.from('something'))

async function pair(t: TestContext): Promise<{ a: TestPeer; raw: RawPeer }> {
  const a = await TestPeer.start(t, 'a')
  const raw = await RawPeer.connect(t, a.address)
  return { a, raw }
}

test('connections of one peer are bounded: one more is closed', async (t) => {
  const { a, raw } = await pair(t)
  await raw.sayHello()
  const dial = async (): Promise<unknown> => await raw.host.dial(multiaddr(a.address), { force: true })
  for (let i = 0; i < 5; i++) await dial().catch(() => undefined)
  const open = (): number => raw.host.getConnections(raw.target).filter(({ status }) => status === 'open').length
  await until('those beyond are closed', () => open() === limits.connections.perPeer)
  assert.equal(a.network.membership.members().length, 1)
})

const streamLimits: [string, number][] = [
  [objectProtocol, limits.streams.object],
  [chunkProtocol, limits.streams.chunk],
  [importProtocol, limits.streams.import],
  [bulkProtocol, limits.streams.bulk],
  [seedProtocol, limits.streams.seed],
  [reachProtocol, limits.streams.reach],
]
for (const [protocol, most] of streamLimits) {
  test(`streams of ${protocol} of one connection are bounded: those beyond are reset, and nobody is banned`, async (t) => {
    const { raw } = await pair(t)
    await raw.sayHello()
    const streams: Stream[] = []
    const openOne = async (): Promise<void> => void streams.push(await raw.open(protocol))
    for (let i = 0; i < most; i++) await openOne()
    for (const stream of streams) stream.send(Uint8Array.of(0x80))
    // The client's own bound is the same for objects.
    for (let i = 0; i < 3; i++) await openOne().catch(() => undefined)
    const open = (): number => streams.filter(({ status }) => status === 'open').length
    await until('those beyond are reset', () => open() <= most)
    assert.equal(open(), most)
    assert.equal(raw.isConnected, true)
  })
}

test('nothing is served before the hello of the other side, and everything after it', async (t) => {
  const { a, raw } = await pair(t)
  a.objects.set(digest, Buffer.from('manifest'))
  const stream = await raw.open(objectProtocol)
  const answers = readFrames(stream, maxObjectBytes)
  await writeFrame(stream, [encodeObjectRequest({ kind: 'rootfs', digest })])
  let answer: Uint8Array | undefined
  const answered = answers.next().then(({ value }) => (answer = value as Uint8Array))
  await until('it has heard the hello of this host', () => raw.heard.length > 0)
  assert.equal(answer, undefined)
  await raw.sayHello()
  await answered
  assert.deepEqual(Buffer.from(answer!), Buffer.from('\u0001manifest'))
})

test('a request of a peer that says no hello is refused', async (t) => {
  const { a, raw } = await pair(t)
  a.objects.set(digest, Buffer.from('manifest'))
  const protocols = [objectProtocol, chunkProtocol, importProtocol, bulkProtocol, seedProtocol]
  // At once: a peer without a hello is cut off soon.
  const asking = protocols.map(async (protocol) => {
    const stream = await raw.open(protocol)
    if (protocol === objectProtocol) await writeFrame(stream, [encodeObjectRequest({ kind: 'rootfs', digest })])
    await assert.rejects(async () => {
      for await (const bytes of readFrames(stream, maxObjectBytes)) assert.fail(`it was sent ${bytes.length} bytes`)
    })
  })
  await Promise.all(asking)
})

test('a flood of region messages is a reason for a ban, and twice what a sender may send is none', async (t) => {
  const { a, raw } = await pair(t)
  await raw.sayHello()
  const empty: RegionMessage = { type: 'news', records: [], suspects: [] }
  await raw.sayOften(empty, 2 * regionMessageRate.burst - 100)
  await raw.say({ type: 'query', tables: [digest] })
  await until('all have been taken', () => raw.heard.some(({ type }) => type === 'answered'))
  assert.equal(raw.isConnected, true)
  const flood = async (): Promise<void> => {
    while (raw.isConnected) await raw.sayOften(empty, 1000)
  }
  await flood().catch(() => undefined)
  await until('it is cut off', () => a.network.membership.members().length === 0)
  assert.equal(await raw.canReturn(), false)
})

test('a sender of region messages waits where the protocol allows no more', async () => {
  const region = new FakeRegion()
  const peer = region.join('a')
  await region.membership.introduce(peer, () => undefined)
  for (let i = 0; i < regionMessageRate.burst + 1000; i++) peer.regionClient!.send({ type: 'answered' })
  await settled()
  const sent = region.sent.get('a')!.length
  assert.ok(sent >= regionMessageRate.burst && sent < regionMessageRate.burst + 900, `${sent} sent`)
  region.leave('a')
})

test('region messages are read no faster than the bound on their bytes', async () => {
  const region = new FakeRegion()
  const [near, far] = streamPair()
  const stop = new AbortController()
  const part = { table: digest, count: 4_000_000, first: 0, bits: new Uint8Array(450_000) }
  const [message] = haveMessages([part])
  const bytes = encodeRegionMessage(message!)
  const { perSecond, burst } = limits.region.bytes
  const count = Math.ceil((burst + perSecond / 2) / bytes.length)
  for (let i = 0; i < count; i++) await writeFrame(far as unknown as Stream, [bytes])
  await far.close()
  const startedAt = performance.now()
  const availability = { update: () => undefined }
  await serveRegion(
    near as unknown as Stream,
    region.join('a'),
    { membership: region.membership, availability, pace: new SourcePace(limits.region.bytes) },
    { signal: stop.signal },
  )
  assert.ok(performance.now() - startedAt > 400)
})

const extremes: [string, () => RegionMessage[]][] = [
  [
    'haves of 127 layers and an image of 60 GB, all held',
    () =>
      haveMessages(
        Array.from({ length: 127 }, () =>
          haveParts(digest, new Bitmap(480_000, new Uint8Array(60_000).fill(255))),
        ).flat(),
      ),
  ],
  ['a have of a segment of nine million chunks', () => haveMessages(haveParts(digest, full(9_000_000)))],
  [
    'haves of 100,000 segments',
    () => haveMessages(Array.from({ length: 100_000 }, () => haveParts(digest, full(16))).flat()),
  ],
  [
    'changes of all chunks of 127 layers of 60 GB',
    () => {
      const all = Array.from({ length: 480_000 }, (_, index) => index)
      return deltaMessages(Array.from({ length: 12 }, () => ({ table: digest, added: all, removed: all })))
    },
  ],
  [
    'changes of 10,000 segments that share a chunk',
    () => deltaMessages(Array.from({ length: 10_000 }, () => ({ table: digest, added: [7], removed: [] }))),
  ],
  [
    '4,096 members with 32 addresses of the longest kind, and as many suspects',
    () => {
      const peer = '\u20ac'.repeat(maxTextLength)
      const addresses = Array.from({ length: maxAddresses }, () => peer)
      const claim = encodeMemberRecord({ region: peer, peer, name: peer, addresses, sequence: 1, hasLeft: false })
      return newsMessages({
        records: Array.from({ length: 4096 }, () => ({ claim, signature: new Uint8Array(64) })),
        suspects: Array.from({ length: 4096 }, () => ({ peer, sequence: Date.now() })),
      })
    },
  ],
]
for (const [what, make] of extremes) {
  test(`what an honest host says is a message that others take: ${what}`, () => {
    for (const message of make()) {
      const bytes = encodeRegionMessage(message)
      assert.ok(bytes.length <= limits.region.messageBytes, `${bytes.length} bytes`)
      assert.equal(parseRegionMessage(bytes).type, message.type)
    }
  })
}

function full(count: number): Bitmap {
  const held = new Bitmap(count)
  for (let index = 0; index < count; index++) held.set(index)
  return held
}

test('what a busy reader has not taken is bounded: the stream is paused', async (t) => {
  const [reader, sender] = [await createRawHost({ listen: ['/ip4/127.0.0.1/tcp/0'] }), await createRawHost()]
  const [first, rest] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()]
  let taken = 0
  await reader.handle('/test', async (stream) => {
    for await (const bytes of readFrames(stream, 1024)) {
      taken += bytes.length
      first.resolve(undefined)
      await rest.promise
    }
  })
  for (const host of [reader, sender]) {
    await host.start()
    t.after(async () => await host.stop())
  }
  const stream = await sender.dialProtocol(reader.getMultiaddrs(), '/test')
  const message = Buffer.alloc(1024, 7)
  await writeFrame(stream, [message])
  await first.promise
  const frame = Buffer.concat([Uint8Array.of(0x80, 8), message])
  let sent = 1
  const fill = async (): Promise<void> => {
    for (; sent < 32_768; sent++) {
      const canTakeMore = stream.send(frame)
      if (canTakeMore && stream.writeBufferLength === 0) continue
      const drain = Promise.withResolvers<Event>()
      stream.addEventListener('drain', drain.resolve, { once: true })
      await drain.promise
    }
  }
  void fill()
  // Until nothing moves for a second: a busy machine only makes the wait longer.
  for (let before = 0; before !== sent; await sleep(1000)) before = sent
  assert.ok(sent < 16_384, `${sent} KiB were taken from the sender`)
  rest.resolve(undefined)
  await until('everything comes in the end', () => taken === 32_768 * 1024, { timeoutMs: 60_000 })
})

async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms))
}

/** The far end of a stream whose peer takes nothing. */
function stuckStream(): { near: Stream; far: FakeStream; isReset: () => boolean } {
  const [near, far] = streamPair()
  near.isFull = true
  let isReset = false
  far.addEventListener('close', () => (isReset = true))
  return { near: near as unknown as Stream, far, isReset: () => isReset }
}

const fakePeer = (id: string): Peer => new FakeRegion().join(id)
const unsent = (): ByteBudget => new ByteBudget({ ...limits.unsent, freeBytes: maxChunkBytes })
const served = (chunk: ServedData['chunk']): Pick<ServedData, 'chunk' | 'relayedChunk'> => ({
  chunk,
  relayedChunk: async () => await Promise.resolve(undefined),
})
const wantsOf = (count: number): Uint8Array =>
  encodeWants(
    Array.from({ length: count }, (_, id) => ({ id, kind: 'held', priority: 'boot', waits: false, depth: 0, digest })),
  )

test('a stream whose peer does not read its chunks is reset after a minute, and holds few chunks until then', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { near, far, isReset } = stuckStream()
  const budget = unsent()
  let read = 0
  const server = new ChunkServer({
    served: served(async () => await Promise.resolve((read++, new Uint8Array(maxChunkBytes)))),
    unsent: budget,
  })
  const ended = assert.rejects(server.serve(near, fakePeer('a')))
  await writeFrame(far as unknown as Stream, [wantsOf(256)])
  await settled()
  assert.ok(read <= 4, `${read} chunks were read`)
  assert.ok(budget.usedBytes <= 4 * maxChunkBytes)
  t.mock.timers.tick(limits.unread.chunkMs - 1)
  assert.equal(isReset(), false)
  t.mock.timers.tick(1)
  await ended
  await settled()
  assert.deepEqual([isReset(), budget.usedBytes], [true, 0])
})

test('a stream whose peer does not read an object is reset after a minute', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { near, far, isReset } = stuckStream()
  const budget = unsent()
  const server = new ObjectServer({
    served: { rootfsManifest: async () => await Promise.resolve(new Uint8Array(1000)) } as unknown as ServedData,
    unsent: budget,
    log: silentLog,
  })
  const ended = assert.rejects(server.serve(near, fakePeer('a')))
  await writeFrame(far as unknown as Stream, [encodeObjectRequest({ kind: 'rootfs', digest })])
  await settled()
  assert.equal(budget.usedBytes, 1001)
  t.mock.timers.tick(limits.unread.objectMs)
  await ended
  assert.deepEqual([isReset(), budget.usedBytes], [true, 0])
})

test('wants that are not answered yet are bounded by reading no more of them: no client is cut off for it', async (t) => {
  const { a, raw } = await pair(t)
  const stalled = Promise.withResolvers<Uint8Array>()
  a.stall = stalled.promise
  await raw.sayHello()
  const stream = await raw.open(chunkProtocol)
  const wants = encodeWants(
    Array.from({ length: 256 }, (_, id) => ({ id, kind: 'held', priority: 'boot', waits: false, depth: 0, digest })),
  )
  for (let i = 0; i < 8; i++) await writeFrame(stream, [wants])
  stalled.resolve(new Uint8Array(4096))
  let answers = 0
  for await (const _ of readFrames(stream, maxChunkBytes + 5)) if (++answers === 8 * 256) break
  assert.deepEqual([answers, raw.isConnected], [8 * 256, true])
})

test('no more wants of a stream are read than a client has on the way', async () => {
  const [near, far] = streamPair()
  const stalled = Promise.withResolvers<Uint8Array>()
  const server = new ChunkServer({ served: served(async () => await stalled.promise), unsent: unsent() })
  const { outstanding } = limits.wants
  let taken = 0
  const counting = Object.assign(near as unknown as Stream, {
    [Symbol.asyncIterator]: async function* () {
      for (; taken < 100; taken++) yield Buffer.concat([Uint8Array.of(0x80, 0x4c), wantsOf(256)])
      await Promise.resolve()
    },
  })
  void server.serve(counting, fakePeer('a')).catch(() => undefined)
  await settled()
  assert.equal(taken + 1, outstanding / 256, 'messages')
  far.abort(new Error('the end'))
})

test('bytes that wait for peers are bounded, of one and in all; a peer for which nothing waits gets a chunk all the same', async () => {
  const budget = new ByteBudget({ perPeer: 300, inAll: 500, freeBytes: 100 })
  assert.equal(budget.tryTake('a', 300), true)
  assert.equal(budget.tryTake('a', 1), false)
  assert.equal(budget.tryTake('b', 200), true)
  assert.equal(budget.tryTake('c', 101), false, 'in all')
  assert.equal(budget.tryTake('c', 100), true, 'for free')
  assert.equal(budget.tryTake('c', 1), false, 'but once')
  const abort = new AbortController()
  const never = async (): Promise<void> => await Promise.reject(new Error('it runs all the same'))
  const gaveUp = assert.rejects(budget.run({ peer: 'd', bytes: 300, signal: abort.signal }, never), {
    name: 'AbortError',
  })
  const waiting = budget.run({ peer: 'b', bytes: 100, signal }, async () => await Promise.resolve(budget.usedBytes))
  abort.abort()
  await gaveUp
  budget.giveBack('a', 300)
  assert.equal(await waiting, 400)
  assert.equal(budget.usedBytes, 300)
})

test('one peer that reads nothing does not keep the others from their chunks', async () => {
  const budget = new ByteBudget({ perPeer: 4 * maxChunkBytes, inAll: 8 * maxChunkBytes, freeBytes: maxChunkBytes })
  const server = new ChunkServer({
    served: served(async () => await Promise.resolve(new Uint8Array(maxChunkBytes))),
    unsent: budget,
  })
  const stuck = Array.from({ length: 4 }, () => stuckStream())
  for (const [i, { near, far }] of stuck.entries()) {
    void server.serve(near, fakePeer(`bad-${i}`)).catch(() => undefined)
    await writeFrame(far as unknown as Stream, [wantsOf(256)])
  }
  await settled()
  assert.ok(budget.usedBytes >= 8 * maxChunkBytes && budget.usedBytes <= 10 * maxChunkBytes, `${budget.usedBytes}`)
  const [near, far] = streamPair()
  void server.serve(near as unknown as Stream, fakePeer('honest')).catch(() => undefined)
  await writeFrame(far as unknown as Stream, [wantsOf(3)])
  let answers = 0
  for await (const _ of readFrames(far as unknown as Stream, maxChunkBytes + 5)) if (++answers === 3) break
  assert.equal(answers, 3)
  for (const stream of [far, ...stuck.map((end) => end.far)]) stream.abort(new Error('the end'))
})

test('requests beyond the pace of a source wait, and those of another do not', async () => {
  const pace = new SourcePace({ perSecond: 100, burst: 10 })
  const [a, b] = [fakePeer('a'), fakePeer('b')]
  const startedAt = performance.now()
  await Promise.all(Array.from({ length: 40 }, async () => await pace.wait(a, { signal })))
  assert.ok(performance.now() - startedAt > 250)
  const abort = new AbortController()
  const waiting = assert.rejects(pace.wait(a, { requests: 1000, signal: abort.signal }), { name: 'AbortError' })
  abort.abort()
  await waiting
  let isOver = false
  void pace.wait(b, { signal }).then(() => (isOver = true))
  await Promise.resolve()
  await Promise.resolve()
  assert.equal(isOver, true)
})

test('identities of one source share its pace', async () => {
  const pace = new SourcePace({ perSecond: 1, burst: 10 })
  const identities = Array.from({ length: 11 }, (_, i) => fakePeer(`identity ${i}`))
  for (const peer of identities) peer.source = '10.0.0.1'
  const abort = new AbortController()
  let served = 0
  const waits = identities.map(async (peer) => await pace.wait(peer, { signal: abort.signal }).then(() => served++))
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(served, 10)
  abort.abort()
  await Promise.allSettled(waits)
})

test('large objects are looked up two at a time for one peer and four in all, small ones at once', async () => {
  let running = 0
  const end = Promise.withResolvers<undefined>()
  const server = new ObjectServer({
    served: {
      rootfsManifest: async () => {
        running++
        return await end.promise
      },
      isImporting: () => false,
      registryWord: () => undefined,
    } as unknown as ServedData,
    unsent: unsent(),
    log: silentLog,
  })
  const ask = (peer: Peer, kind: 'rootfs' | 'import'): FakeStream => {
    const [near, far] = streamPair()
    void server.serve(near as unknown as Stream, peer).catch(() => undefined)
    void writeFrame(far as unknown as Stream, [encodeObjectRequest({ kind, digest })])
    return far
  }
  const a = fakePeer('a')
  for (let i = 0; i < 5; i++) ask(a, 'rootfs')
  await settled()
  assert.equal(running, limits.objects.lookupsPerPeer)
  for (const id of ['b', 'c', 'd']) for (let i = 0; i < 5; i++) ask(fakePeer(id), 'rootfs')
  await settled()
  assert.equal(running, limits.objects.lookupsInAll)
  const { value } = await readFrames(ask(a, 'import') as unknown as Stream, 10).next()
  assert.deepEqual(value, Buffer.of(0))
  end.resolve(undefined)
  await settled()
})

test('an object of this host that cannot be read, or is too large, is none: the asker is not to blame', async () => {
  const failing: Partial<ServedData>[] = [
    { rootfsManifest: async () => await Promise.reject(Object.assign(new Error('damaged'), { code: 'invalid' })) },
    { rootfsManifest: async () => await Promise.resolve(new Uint8Array(maxObjectBytes)) },
  ]
  for (const served of failing) {
    const [near, far] = streamPair()
    const server = new ObjectServer({ served: served as ServedData, unsent: unsent(), log: silentLog })
    const serving = server.serve(near as unknown as Stream, fakePeer('a'))
    await writeFrame(far as unknown as Stream, [encodeObjectRequest({ kind: 'rootfs', digest })])
    const { value } = await readFrames(far as unknown as Stream, 10).next()
    assert.deepEqual(value, Buffer.of(0))
    await serving
  }
})

test('bans are bounded: the oldest ends early', () => {
  const bans = new BanList()
  for (let i = 0; i <= limits.bans.inAll; i++) bans.add(`${i}`)
  assert.deepEqual([bans.has('0'), bans.has('1'), bans.has(`${limits.bans.inAll}`)], [false, true, true])
})

test('two hosts with 100,000 segments each learn all of each other, and ask for a new one meanwhile', async (t) => {
  const count = 100_000
  const tables = Array.from({ length: count }, (_, i) => digestOf(Buffer.from(`segment ${i}`)))
  const held = (): Bitmap => new Bitmap(16, Uint8Array.of(255, 255))
  const track = ({ network }: TestPeer, some: readonly Digest[]): void => {
    for (const table of some) network.availability.announce(table, held())
  }
  const a = await TestPeer.start(t, 'a')
  track(a, tables)
  const fresh = digestOf(Buffer.from('fresh'))
  track(a, [fresh])
  const before = process.memoryUsage().rss
  const startedAt = performance.now()
  const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
  track(b, tables)
  await until('they have met', () => b.network.membership.members().length === 1)
  track(b, [fresh])
  const knows = (peer: TestPeer, table: Digest): boolean => peer.network.availability.holders(table, 15).length === 1
  await until('the new one is known', () => knows(b, fresh), { timeoutMs: 60_000 })
  const freshMs = performance.now() - startedAt
  const learned = ({ network }: TestPeer): number => network.membership.members()[0]?.holdings.size ?? 0
  for (const peer of [a, b]) await until('all are known', () => learned(peer) === count + 1, { timeoutMs: 120_000 })
  const ms = Math.round(performance.now() - startedAt)
  const mebibytes = Math.round((process.memoryUsage().rss - before) / 2 ** 20)
  t.diagnostic(
    `${count} segments: ${ms} ms, a new one after ${Math.round(freshMs)} ms, ${mebibytes} MiB for both hosts`,
  )
  assert.deepEqual(
    [a, b].map(({ network }) => network.membership.members().length),
    [1, 1],
  )
})

test('a host that begins anew while its old connection is open is met anew', async (t) => {
  const a = await TestPeer.start(t, 'a')
  const raw = await RawPeer.connect(t, a.address)
  await raw.sayHello()
  await until('it is a member', () => a.network.membership.members().length === 1)
  const again = await raw.open(regionProtocol)
  const hello = encodeRegionMessage({ type: 'hello', region: 'test', name: 'again', addresses: [] })
  await writeFrame(again, [hello]).catch(() => undefined)
  await until('the connection is closed', () => !raw.isConnected)
  assert.equal(await raw.canReturn(), true)
})
