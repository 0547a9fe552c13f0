import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { Libp2p, Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { encodeBlobMap, type BlobMap } from '../../../protocol/blob-map.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import { encodeLayerIndex } from '../../../protocol/layer-index.ts'
import { encodeRootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { chunkProtocol, encodeWants } from '../../../protocol/messages/chunk.ts'
import { objectProtocol } from '../../../protocol/messages/object.ts'
import { encodeRegionMessage, regionProtocol } from '../../../protocol/messages/region.ts'
import { BanList } from '../../../node/peers/ban-list.ts'
import { writeFrame } from '../../../node/peers/frames.ts'
import { createPeerHost } from '../../../node/peers/peer-host.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { testKey } from '../../support/test-key.ts'
import { PackedPieces } from '../../../protocol/packed-pieces.ts'
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
  assert.deepEqual(await c.network.objects.findImage({ reference: 'r', platform: 'p', format: 'ext4' }, { signal }), {
    record,
    peer: b.network.peerId,
  })
  assert.equal(
    await c.network.objects.findImage({ reference: 'other', platform: 'p', format: 'ext4' }, { signal }),
    undefined,
  )
  assert.equal((await c.network.objects.fetchRootfs(rootfsDigest, { signal }))?.metadata.id, table.id)
  assert.equal((await c.network.objects.fetchLayerIndex(diffId, { signal }))?.tarBytes, 1024)
  assert.deepEqual((await c.network.objects.fetchBlobMap(map.digest, { signal }))?.checkpoints, map.checkpoints)
  assert.equal(
    await c.network.objects.fetchRootfs(diffId, { signal }),
    undefined,
    'under the wrong digest it is not believed',
  )
})

test('a peer keeps its identity over a restart, and can be stopped twice', async (t) => {
  const directory = temporaryDirectory(t)
  const first = await TestPeer.start(t, 'a', { directory })
  const { peerId } = first.network
  await first.network.stop()
  await first.network.stop()
  assert.equal((await TestPeer.start(t, 'a', { directory })).network.peerId, peerId)
})

/** A peer that speaks the protocols as it likes. */
async function rawPeer(t: TestContext, address: string): Promise<Libp2p> {
  const host = await createPeerHost(await generateKeyPair('Ed25519'), [], new BanList())
  await host.start()
  t.after(async () => await host.stop())
  await host.dial(multiaddr(address))
  return host
}

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
    async (stream) => await writeFrame(stream, [encodeRegionMessage({ type: 'members', members: [] })]),
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
    const hostile = await rawPeer(t, a.address)
    const [peer] = hostile.getPeers()
    await abuse(await hostile.dialProtocol(peer!, protocol))
    await until('the connection is closed', () => hostile.getPeers().length === 0)
    const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
    await until('others are still welcome', () => b.network.membership.peers().length === 1)
  })
}

test('a peer that asks for more than it takes is cut off, and takes no memory before that', async (t) => {
  const segment = makeSegment(1)
  const a = await TestPeer.start(t, 'a')
  a.hold(segment, [0])
  const hostile = await rawPeer(t, a.address)
  const stream = await hostile.dialProtocol(hostile.getPeers()[0]!, chunkProtocol)
  stream.pause()
  const wants = encodeWants(Array.from({ length: 256 }, (_, id) => ({ id, digest: segment.table.digestAt(0) })))
  for (let i = 0; i < 8; i++) await writeFrame(stream, [wants]).catch(() => undefined)
  await until('the connection is closed', () => hostile.getPeers().length === 0)
  assert.ok(a.network.totals().bytesSent < 64 * 1024 * 1024)
})
