import assert from 'node:assert/strict'
import { test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import type { Stream } from '@libp2p/interface'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { encodeBlobMap, type BlobMap } from '../../../protocol/blob-map.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import { encodeLayerIndex } from '../../../protocol/layer-index.ts'
import { encodeRootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { chunkProtocol } from '../../../protocol/messages/chunk.ts'
import { maxObjectRequestBytes, objectProtocol } from '../../../protocol/messages/object.ts'
import { encodeRegionMessage, regionProtocol } from '../../../protocol/messages/region.ts'
import { writeFrame } from '../../../node/peers/frames.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { testKey } from '../../support/test-key.ts'
import { PackedPieces } from '../../../protocol/packed-pieces.ts'
import { RawPeer } from './raw-peer.ts'
import { makeSegment, TestPeer, until } from './test-peer.ts'

const demand = { signal: new AbortController().signal, streamClass: 'demand', stallMs: 10_000 } as const

test('peers that know one member find each other', async (t) => {
  const a = await TestPeer.start(t, 'a')
  const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
  const c = await TestPeer.start(t, 'c', { bootstrap: [a.address.replace(/\/p2p\/.*/, '')] })
  await until('all have met', () => [a, b, c].every(({ network }) => network.membership.peers().length === 2))
  assert.deepEqual(
    b.network.membership
      .peers()
      .map(({ name }) => name)
      .toSorted(),
    ['a', 'c'],
  )
})

test('peers of another region are not members', async (t) => {
  const a = await TestPeer.start(t, 'a', { region: 'eu' })
  const b = await TestPeer.start(t, 'b', { region: 'us', bootstrap: [a.address] })
  const c = await TestPeer.start(t, 'c', { region: 'eu', bootstrap: [a.address] })
  await until('a and c have met', () => c.network.membership.peers().length === 1)
  assert.deepEqual(
    a.network.membership.peers().map(({ name }) => name),
    ['c'],
  )
  assert.deepEqual(b.network.membership.peers(), [])
})

test('a host knows the chunks that a peer held before they connected, and its changes since', async (t) => {
  const segment = makeSegment(20)
  const a = await TestPeer.start(t, 'a')
  a.hold(segment, [0, 3])
  const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
  b.track(segment)
  const has = (index: number): boolean =>
    b.network.availability.holders(segment.table.id, index).includes(a.network.peerId)
  await until('the first haves', () => has(0) && has(3))
  assert.equal(has(1), false)
  a.hold(segment, [1, 19])
  await until('the changes', () => has(1) && has(19))
  a.network.availability.withdrawChunks(segment.table.id, [3])
  await until('the withdrawal', () => !has(3))
  assert.equal(has(0), true)
})

test('many chunks are fetched side by side, verified and counted', async (t) => {
  const segment = makeSegment(60)
  const { table, chunks } = segment
  const a = await TestPeer.start(t, 'a')
  a.hold(
    segment,
    chunks.map((_, i) => i),
  )
  const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
  b.track(segment)
  await until('the haves', () => b.network.availability.holders(table.id, 59).length === 1)
  const fetched = await Promise.all(
    chunks.map(
      async (_, i) =>
        await b.network.chunks.fetchChunk(a.network.peerId, table.digestAt(i), table.lengthAt(i), {
          ...demand,
          streamClass: i % 2 === 0 ? 'demand' : 'background',
        }),
    ),
  )
  for (const [i, bytes] of fetched.entries()) assert.deepEqual(Buffer.from(bytes), chunks[i])
  assert.equal(b.network.totals().bytesReceived, table.sizeBytes)
  assert.equal(b.network.membership.peers()[0]!.chunksReceived, 60)
  await until('the last is counted as sent', () => a.network.totals().chunksSent === 60)
})

test('a chunk that the peer does not have is missing, and the stream goes on', async (t) => {
  const segment = makeSegment(2)
  const a = await TestPeer.start(t, 'a')
  a.hold(segment, [0])
  const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
  await until('they have met', () => b.network.membership.peers().length === 1)
  const { table } = segment
  await assert.rejects(b.network.chunks.fetchChunk(a.network.peerId, table.digestAt(1), 131_072, demand), (error) =>
    isP2pfsError(error, 'missing'),
  )
  assert.equal(
    (await b.network.chunks.fetchChunk(a.network.peerId, table.digestAt(0), 131_072, demand)).length,
    131_072,
  )
})

test('a peer that sends wrong bytes is cut off', async (t) => {
  const segment = makeSegment(2)
  const { table, chunks } = segment
  for (const lie of [
    Buffer.alloc(131_072),
    chunks[0]!.subarray(0, 4096),
    Buffer.concat([chunks[0]!, Buffer.alloc(4096)]),
  ]) {
    const liar = await TestPeer.start(t, 'liar')
    liar.hold(segment, [0, 1])
    liar.chunks.set(table.digestAt(0), lie)
    const b = await TestPeer.start(t, 'b', { bootstrap: [liar.address] })
    b.track(segment)
    await until('the haves', () => b.network.availability.holders(table.id, 0).length === 1)
    await assert.rejects(
      b.network.chunks.fetchChunk(liar.network.peerId, table.digestAt(0), 131_072, demand),
      (error) => isP2pfsError(error, 'invalid'),
    )
    assert.deepEqual(b.network.availability.holders(table.id, 1), [])
    assert.deepEqual(b.network.membership.peers(), [])
    await assert.rejects(
      b.network.chunks.fetchChunk(liar.network.peerId, table.digestAt(1), 131_072, demand),
      (error) => isP2pfsError(error, 'unavailable'),
    )
  }
})

test('a peer that sends a chunk whose length a false table gives wrong is not to blame', async (t) => {
  const segment = makeSegment(1)
  const a = await TestPeer.start(t, 'a')
  a.hold(segment, [0])
  const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
  await until('they have met', () => b.network.membership.peers().length === 1)
  await assert.rejects(
    b.network.chunks.fetchChunk(a.network.peerId, segment.table.digestAt(0), 4096, demand),
    (error) => isP2pfsError(error, 'missing'),
  )
  assert.equal(b.network.membership.peers().length, 1)
})

test('an image whose name is longer than a request is not asked for, and nobody is banned for a long one', async (t) => {
  const a = await TestPeer.start(t, 'a')
  const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
  await until('they have met', () => b.network.membership.peers().length === 1)
  for (const length of [4095, maxObjectRequestBytes]) {
    const name = { reference: `oci:/${'d'.repeat(length)}:tag`, platform: 'p', format: 'ext4' } as const
    assert.deepEqual(await b.network.objects.findImages(name, { ...demand, isOfUse: () => true }), [])
  }
  assert.deepEqual(
    [a, b].map(({ network }) => network.membership.peers().length),
    [1, 1],
  )
})

test('the first fetch of a segment finds the member that holds it, and waits for nothing where nobody does', async (t) => {
  const segment = makeSegment(2)
  const a = await TestPeer.start(t, 'a')
  a.hold(segment, [0])
  const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
  await until('they have met', () => b.network.membership.peers().length === 1)
  b.track(segment)
  const { availability } = b.network
  const holders = async (index: number): Promise<string[]> => {
    await availability.whenAsked(segment.table.id, { signal: demand.signal, index })
    return availability.holders(segment.table.id, index)
  }
  assert.deepEqual(await holders(0), [a.network.peerId])
  const other = digestOf(Buffer.from('a segment that nobody has'))
  availability.announce(other, new Bitmap(1))
  const startedAt = performance.now()
  await availability.whenAsked(other, { signal: demand.signal, index: 0 })
  t.diagnostic(`nobody has it: known after ${(performance.now() - startedAt).toFixed(1)} ms`)
})

test('a peer that stalls costs the timeout; one that goes away costs nothing', async (t) => {
  const { table, chunks } = makeSegment(1)
  const a = await TestPeer.start(t, 'a')
  const { promise, resolve } = Promise.withResolvers<Uint8Array>()
  a.stall = promise
  const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
  await until('they have met', () => b.network.membership.peers().length === 1)
  const fetch = async (stallMs: number): Promise<Uint8Array> =>
    await b.network.chunks.fetchChunk(a.network.peerId, table.digestAt(0), 131_072, { ...demand, stallMs })
  await assert.rejects(fetch(50), (error) => isP2pfsError(error, 'timeout'))
  const waiting = fetch(60_000)
  const failed = assert.rejects(waiting, (error) => isP2pfsError(error, 'unavailable', 'closed'))
  await a.network.stop()
  resolve(chunks[0]!)
  await failed
})

test('an aborted fetch ends at once with the reason', async (t) => {
  const { table } = makeSegment(1)
  const a = await TestPeer.start(t, 'a')
  a.stall = new Promise(() => undefined)
  const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
  await until('they have met', () => b.network.membership.peers().length === 1)
  const abort = new AbortController()
  const fetching = b.network.chunks.fetchChunk(a.network.peerId, table.digestAt(0), 131_072, {
    ...demand,
    signal: abort.signal,
  })
  const failed = assert.rejects(fetching, { name: 'AbortError' })
  setImmediate(() => abort.abort())
  await failed
})

test('image records are gathered for 50 ms after the first, or until all members have answered', async (t) => {
  const { table } = makeSegment(1)
  const record = async (seed: number): Promise<ImageRecord> => ({
    reference: 'r',
    platform: 'p',
    format: 'ext4',
    manifestDigest: table.id,
    manifest: '{}',
    rootfsDigest: table.id,
    attestation: { key: (await testKey(seed)).key, signature: new Uint8Array(64) },
    nameStatement: { key: (await testKey(seed)).key, signature: new Uint8Array(64), statedAtMs: seed },
  })
  const [a, b, c] = [await TestPeer.start(t, 'a'), await TestPeer.start(t, 'b'), await TestPeer.start(t, 'c')]
  const asker = await TestPeer.start(t, 'asker', { bootstrap: [a, b, c].map(({ address }) => address) })
  await until('all have met', () => asker.network.membership.peers().length === 3)
  const [second, third] = [Promise.withResolvers<ImageRecord>(), Promise.withResolvers<ImageRecord>()]
  a.images.set('r', await record(1))
  b.imageRecord = async () => await second.promise
  c.imageRecord = async () => await third.promise
  const { signal } = new AbortController()
  const statements = async (onRecord: (statedAtMs: number) => void): Promise<number[]> => {
    const isOfUse = ({ nameStatement }: ImageRecord): boolean => {
      onRecord(nameStatement.statedAtMs)
      return true
    }
    const found = await asker.network.objects.findImages(
      { reference: 'r', platform: 'p', format: 'ext4' },
      { signal, isOfUse },
    )
    return found.map(({ record: { nameStatement } }) => nameStatement.statedAtMs)
  }
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const two = await record(2)
  // The second comes after the first, and the third not within 50 ms.
  const gathered = await statements((statedAtMs) => {
    if (statedAtMs === 1) {
      t.mock.timers.tick(49)
      setImmediate(() => second.resolve(two))
    } else setImmediate(() => t.mock.timers.tick(50))
  })
  assert.deepEqual(gathered, [1, 2])
  // All answer: no timer has to end.
  third.resolve(await record(3))
  assert.deepEqual(
    (await statements(() => undefined)).toSorted((a, b) => a - b),
    [1, 2, 3],
  )
})

test('image records, manifests, layer indexes and blob maps come from whichever peer has them', async (t) => {
  const { table } = makeSegment(3)
  const diffId = digestOf(Buffer.from('layer'))
  const manifest = encodeRootfsManifest({
    format: 'ext4',
    metadata: table,
    layers: [{ diffId, chunks: table }],
    config: '{}',
  })
  const rootfsDigest = digestOf(manifest)
  const record: ImageRecord = {
    reference: 'r',
    platform: 'p',
    format: 'ext4',
    manifestDigest: diffId,
    manifest: '{}',
    rootfsDigest,
    attestation: { key: (await testKey(1)).key, signature: new Uint8Array(64) },
    nameStatement: { key: (await testKey(1)).key, signature: new Uint8Array(64), statedAtMs: 1 },
  }
  const a = await TestPeer.start(t, 'a')
  const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
  b.images.set('r', record)
  b.objects.set(rootfsDigest, manifest)
  const map: BlobMap = {
    digest: digestOf(Buffer.from('blob')),
    diffId,
    sizeBytes: 100,
    tarBytes: 1024,
    compression: 'gzip',
    checkpoints: [{ bitOffset: 0, tarOffset: 0, window: { offset: 0, lengthBytes: 0 } }],
    stopPoints: new Uint32Array(0),
    windows: table,
    pieces: PackedPieces.of([]),
  }
  b.objects.set(map.digest, zstdCompressSync(encodeBlobMap(map)))
  b.objects.set(diffId, encodeLayerIndex({ diffId, tarBytes: 1024, chunks: table, entries: [] }))
  const c = await TestPeer.start(t, 'c', { bootstrap: [a.address, b.address] })
  await until('all have met', () => c.network.membership.peers().length === 2)
  const { signal } = new AbortController()
  assert.deepEqual(await c.network.objects.findImages({ reference: 'r', platform: 'p', format: 'ext4' }, { signal }), [
    { record, peer: b.network.peerId },
  ])
  assert.deepEqual(
    await c.network.objects.findImages({ reference: 'other', platform: 'p', format: 'ext4' }, { signal }),
    [],
  )
  assert.equal((await c.network.objects.fetchRootfs(rootfsDigest, { signal }))?.metadata.id, table.id)
  assert.equal((await c.network.objects.fetchLayerIndex(diffId, { signal }))?.tarBytes, 1024)
  assert.deepEqual((await c.network.objects.fetchBlobMap(map.digest, { signal }))?.checkpoints, map.checkpoints)
  assert.equal(
    await c.network.objects.fetchRootfs(diffId, { signal }),
    undefined,
    'under the wrong digest it is not believed',
  )
  const givenBytes = a.bandwidths.upload.bytes + b.bandwidths.upload.bytes
  assert.ok(givenBytes > 0, 'objects count for the limit on upload')
  assert.ok(c.bandwidths.download.bytes >= givenBytes, 'objects count for the limit on download')
})

test('a peer keeps its identity over a restart, and can be stopped twice', async (t) => {
  const directory = temporaryDirectory(t)
  const first = await TestPeer.start(t, 'a', { directory })
  const { peerId } = first.network
  await first.network.stop()
  await first.network.stop()
  assert.equal((await TestPeer.start(t, 'a', { directory })).network.peerId, peerId)
})

const abuses: [string, string, (stream: Stream) => Promise<void>][] = [
  [
    'a message longer than the protocol allows',
    regionProtocol,
    async (stream) => void stream.send(Buffer.from('ffffff7f', 'hex')),
  ],
  [
    'something that is no message',
    regionProtocol,
    async (stream) => await writeFrame(stream, [Buffer.from('garbage')]),
  ],
  [
    'another message before its hello',
    regionProtocol,
    async (stream) => await writeFrame(stream, [encodeRegionMessage({ type: 'news', records: [], suspects: [] })]),
  ],
  ['wants of no whole length', chunkProtocol, async (stream) => await writeFrame(stream, [Buffer.alloc(35)])],
  [
    'a request for no known kind of object',
    objectProtocol,
    async (stream) => await writeFrame(stream, [Buffer.from('a1646b696e6461', 'hex')]),
  ],
]
for (const [what, protocol, abuse] of abuses) {
  test(`a peer that sends ${what} is cut off`, async (t) => {
    const a = await TestPeer.start(t, 'a')
    const hostile = await RawPeer.connect(t, a.address)
    if (protocol !== regionProtocol) await hostile.sayHello()
    await abuse(await hostile.open(protocol))
    await until('the connection is closed', () => !hostile.isConnected)
    assert.equal(await hostile.canReturn(), false)
    const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
    await until('others are still welcome', () => b.network.membership.peers().length === 1)
  })
}
