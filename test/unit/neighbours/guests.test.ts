import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { Libp2p } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { sketchOf } from '../../../protocol/boot-profile.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { encodeLayerIndex } from '../../../protocol/layer-index.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { chunkProtocol } from '../../../protocol/messages/chunk.ts'
import { guestProtocol } from '../../../protocol/messages/guest.ts'
import { objectProtocol } from '../../../protocol/messages/object.ts'
import { formatRegionKey } from '../../../protocol/region-key.ts'
import { encodeRootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { Bandwidth } from '../../../node/base/bandwidth.ts'
import { silentLog } from '../../../node/base/log.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { NeighbourRegion } from '../../../node/neighbours/neighbour-region.ts'
import { RegionGate } from '../../../node/peers/admission/region-gate.ts'
import { openGuestSecret } from '../../../node/peers/admission/region-keys.ts'
import { ChunkClient } from '../../../node/peers/chunk/client.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import { createPeerHost } from '../../../node/peers/peer-host.ts'
import { Peer } from '../../../node/peers/peer.ts'
import { TrafficCounter } from '../../../node/peers/traffic.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { makeSegment, TestPeer, until } from '../peers/test-peer.ts'

const segment = makeSegment(4)
const wanted = (index: number) => ({
  digest: segment.table.digestAt(index),
  lengthBytes: segment.table.lengthAt(index),
  table: segment.table.id,
  index,
})
const options = () => ({ signal: AbortSignal.timeout(10_000), urgency: new Urgency(true) })

async function guestOf(t: TestContext, bootstrap: string[], keyFile?: string): Promise<NeighbourRegion> {
  const guest = await NeighbourRegion.open(
    { log: silentLog, bandwidth: new Bandwidth() },
    {
      region: 'b',
      bootstrap,
      keyFile,
      identityFile: join(temporaryDirectory(t), 'guest.key'),
      own: { region: 'a', name: 'guest' },
    },
  )
  t.after(async () => await guest[Symbol.asyncDispose]())
  return guest
}

function keyFile(t: TestContext, byte: number): string {
  const file = join(temporaryDirectory(t), 'key')
  writeFileSync(file, formatRegionKey(new Uint8Array(32).fill(byte)), { mode: 0o600 })
  return file
}

test('a guest is given chunks, and is no member', async (t) => {
  const b = await TestPeer.start(t, 'b', { region: 'b' })
  b.hold(segment, [0, 1])
  const guest = await guestOf(t, [b.address])
  await until('the guest is connected', () => guest.isReady(segment.table.id))
  assert.deepEqual(Buffer.from(await guest.fetch(wanted(0), options())), segment.chunks[0])
  assert.deepEqual(b.network.membership.members(), [])
  assert.equal(b.network.membership.connected()[Symbol.iterator]().next().done, true)
  assert.equal(b.network.guests().chunksSent, 1)
  assert.equal(guest.status().chunksReceived, 1)
})

test('a guest finds the member that holds a chunk through another one', async (t) => {
  const first = await TestPeer.start(t, 'first', { region: 'b' })
  const holder = await TestPeer.start(t, 'holder', { region: 'b', bootstrap: [first.address] })
  holder.hold(segment, [2])
  await until('they have met', () => first.network.membership.members().length === 1)
  const guest = await guestOf(t, [first.address])
  await until('the guest is connected', () => guest.isReady(segment.table.id))
  await assert.rejects(guest.fetch(wanted(2), options()), { code: 'missing' })
  await until('the holder is connected', () => guest.status().members.includes(holder.network.peerId))
  assert.deepEqual(Buffer.from(await guest.fetch(wanted(2), options())), segment.chunks[2])
})

test('a guest needs the key of guests: neither no key, nor the key of the region as a guest, nor another one', async (t) => {
  const regionKeyFile = keyFile(t, 1)
  const guestKeyFile = keyFile(t, 2)
  const b = await TestPeer.start(t, 'b', { region: 'b', regionKeyFile, guestKeyFile })
  const strangers = await Promise.all(
    [undefined, regionKeyFile, keyFile(t, 3)].map(async (f) => await guestOf(t, [b.address], f)),
  )
  for (const stranger of strangers) stranger.isReady(segment.table.id)
  await until('all are turned away', () => b.network.strangers.turnedAway >= 3)
  for (const stranger of strangers) assert.deepEqual(stranger.status().members, [])
  const guest = await guestOf(t, [b.address], guestKeyFile)
  await until('the guest is connected', () => guest.isReady(segment.table.id))
})

test('a region with a key takes no guests where it has no key for them', async (t) => {
  const regionKeyFile = keyFile(t, 1)
  const b = await TestPeer.start(t, 'b', { region: 'b', regionKeyFile })
  const guest = await guestOf(t, [b.address], regionKeyFile)
  guest.isReady(segment.table.id)
  await until('it is turned away', () => b.network.strangers.turnedAway >= 1)
  assert.deepEqual(guest.status().members, [])
})

test('the key of guests makes nobody a member', async (t) => {
  const guestKeyFile = keyFile(t, 2)
  const b = await TestPeer.start(t, 'b', { region: 'b', regionKeyFile: keyFile(t, 1), guestKeyFile })
  await TestPeer.start(t, 'intruder', { region: 'b', regionKeyFile: guestKeyFile, bootstrap: [b.address] })
  await until('it is turned away', () => b.network.strangers.turnedAway >= 1)
  assert.deepEqual(b.network.membership.members(), [])
})

test('a member that sends wrong bytes is left', async (t) => {
  const b = await TestPeer.start(t, 'b', { region: 'b' })
  b.chunks.set(segment.table.digestAt(0), segment.chunks[1]!)
  const guest = await guestOf(t, [b.address])
  await until('the guest is connected', () => guest.isReady(segment.table.id))
  await assert.rejects(guest.fetch(wanted(0), options()), { code: 'missing' })
  assert.deepEqual(guest.status().members, [])
  assert.equal(guest.status().chunksReceived, 0)
})

test('a guest is given the rootfs manifest and the boot profile whose digest it knows, and nothing that is asked for by name', async (t) => {
  const b = await TestPeer.start(t, 'b', { region: 'b' })
  const { table } = segment
  const manifest = encodeRootfsManifest({ format: 'ext4', metadata: table, layers: [], config: '{}' })
  const rootfs = digestOf(manifest)
  const [other, diffId] = [digestOf(Buffer.from('other')), digestOf(Buffer.from('layer'))]
  b.objects.set(rootfs, manifest)
  const layer = encodeLayerIndex({ diffId, tarBytes: 1024, chunks: table, entries: [] })
  b.objects.set(diffId, layer)
  const sketch = sketchOf([table])
  const profile = { rootfs, sketch, seconds: 1, chunks: [table.digestAt(0)] }
  b.profiles.set(rootfs, profile)
  // The nearest that the host has, of another image that is started there.
  b.profiles.set(other, profile)
  b.importing.add(diffId)
  let names = 0
  b.imageRecord = async () => {
    names++
    return await Promise.resolve(undefined)
  }
  const guest = await guestOf(t, [b.address])
  assert.ok(await guest.isAwake(options()))
  const { signal } = options()
  const { objects } = guest
  assert.equal((await objects.fetchRootfs(rootfs, { signal }))?.metadata.id, table.id)
  assert.equal(await objects.fetchRootfs(other, { signal }), undefined)
  assert.deepEqual(await Promise.all(objects.askProfiles({ rootfs, sketch }, [], { signal })), [profile])
  assert.deepEqual(await Promise.all(objects.askProfiles({ rootfs: other, sketch }, [], { signal })), [undefined])
  assert.equal(await objects.fetchLayerIndex(diffId, { signal }), undefined)
  assert.equal(await objects.fetchBlobMap(diffId, { signal }), undefined)
  assert.equal(await objects.findImport(diffId, { signal }), undefined)
  assert.deepEqual(await objects.findImages({ reference: 'r', platform: 'p', format: 'ext4' }, { signal }), [])
  assert.equal(names, 0)
  assert.equal(guest.status().members.length, 1, 'nothing that it was told is wrong')
})

test('a member that sends another rootfs manifest than was asked for is left', async (t) => {
  const b = await TestPeer.start(t, 'b', { region: 'b' })
  const asked = digestOf(Buffer.from('another'))
  b.objects.set(asked, encodeRootfsManifest({ format: 'ext4', metadata: segment.table, layers: [], config: '{}' }))
  const guest = await guestOf(t, [b.address])
  assert.ok(await guest.isAwake(options()))
  assert.equal(await guest.objects.fetchRootfs(asked, options()), undefined)
  assert.deepEqual(guest.status().members, [])
})

test('members that are known to lack a segment are not named; where nobody is known to hold it, those that may are', async (t) => {
  const first = await TestPeer.start(t, 'first', { region: 'b' })
  const others = await Promise.all(
    ['holder', 'lacks'].map(async (name) => await TestPeer.start(t, name, { region: 'b', bootstrap: [first.address] })),
  )
  const [holder, lacks] = [others[0]!, others[1]!]
  first.track(segment)
  lacks.track(segment)
  holder.hold(segment, [2])
  const held = (peer: TestPeer): number => peer.network.availability.holders(segment.table.id, 2).length
  await until('the holder is known', () => first.network.membership.members().length === 2 && held(first) === 1)
  const guest = await guestOf(t, [first.address])
  await until('the guest is connected', () => guest.isReady(segment.table.id))
  await assert.rejects(guest.fetch(wanted(2), options()), { code: 'missing' })
  await until('the holder is connected', () => guest.status().members.includes(holder.network.peerId))
  assert.equal(guest.status().known, 2, 'the one of the operator, and the holder')
})

/** A libp2p host that proves that it is a guest, and then says what the test has it say. */
async function rawGuest(t: TestContext, b: TestPeer): Promise<Libp2p> {
  const host = await createPeerHost(
    { privateKey: await generateKeyPair('Ed25519'), gate: new RegionGate({ log: silentLog }, [openGuestSecret('b')]) },
    { listen: [], isBarred: () => false, asGuest: true },
  )
  t.after(async () => await host.stop())
  await host.start()
  await host.dial(multiaddr(b.address))
  return host
}

test('a guest is refused every protocol but those for guests', async (t) => {
  const b = await TestPeer.start(t, 'b', { region: 'b', bulk: 'tls' })
  const host = await rawGuest(t, b)
  const target = peerIdFromString(b.network.peerId)
  const served = [chunkProtocol, objectProtocol, guestProtocol]
  let protocols: string[] = []
  while (!protocols.includes(chunkProtocol)) {
    await new Promise((resolve) => setTimeout(resolve, 10))
    protocols = (await host.peerStore.get(target)).protocols.filter((protocol) => protocol.startsWith('/p2pfs/'))
  }
  const refused = protocols.filter((protocol) => !served.includes(protocol))
  assert.ok(refused.length >= 5, refused.join())
  for (const protocol of refused) {
    const frames = async (): Promise<void> => {
      const stream = await host.dialProtocol(target, protocol)
      await writeFrame(stream, [Uint8Array.of(0xa0)])
      for await (const _ of readFrames(stream, 1024)) assert.fail(`${protocol} is answered`)
      throw new P2pfsError('closed', 'nothing is said')
    }
    await assert.rejects(frames(), (error: Error) => !(error instanceof assert.AssertionError), protocol)
  }
  // It sent no message of any of these protocols: a guest is banned for that.
  assert.equal(b.network.guests().connected, 1)
  assert.deepEqual(b.network.membership.members(), [])
})

test('nothing is read from a registry for a guest', async (t) => {
  const b = await TestPeer.start(t, 'b', { region: 'b' })
  let relayed = 0
  b.relayedChunk = async () => {
    relayed++
    return await Promise.resolve(segment.chunks[0])
  }
  const host = await rawGuest(t, b)
  const peer = new Peer(peerIdFromString(b.network.peerId), {
    total: new TrafficCounter(),
    now: () => performance.now(),
  })
  const membership = { connectedPeer: () => peer, reach: async () => await Promise.resolve(peer), ban: () => undefined }
  const { signal } = options()
  const chunks = new ChunkClient({ host, membership, signal })
  const { digest, lengthBytes } = wanted(0)
  const relay = { depth: 1, urgency: new Urgency(true) }
  const want = { signal, stallMs: 5_000, streamClass: 'demand', relay } as const
  await assert.rejects(chunks.fetchChunk(peer.id, digest, lengthBytes, want), { code: 'missing' })
  assert.equal(relayed, 0)
})
