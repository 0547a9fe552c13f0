import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import {
  encodeImportAnswer,
  encodeImportRequest,
  importProtocol,
  type ImportAnswer,
  type ImportRequest,
} from '../../../protocol/messages/import.ts'
import { encodeObjectAnswer, maxObjectRequestBytes, objectProtocol } from '../../../protocol/messages/object.ts'
import { encodeRegionMessage, regionProtocol } from '../../../protocol/messages/region.ts'
import { BanList } from '../../../node/peers/ban-list.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import type { ByteProgress } from '../../../node/model/progress.ts'
import type { ImportOutcome } from '../../../node/peers/import/client.ts'
import { createPeerHost } from '../../../node/peers/peer-host.ts'
import { testKey } from '../../support/test-key.ts'
import { TestPeer, until } from './test-peer.ts'

const layer = digestOf(Buffer.from('layer'))
const request: ImportRequest = {
  reference: 'host/r:1',
  platform: 'linux/amd64',
  format: 'ext4',
  manifestDigest: digestOf(Buffer.from('manifest')),
}
const record: ImageRecord = {
  ...request,
  manifest: '{}',
  rootfsDigest: layer,
  attestation: { key: (await testKey(1)).key, signature: new Uint8Array(64) },
}

interface Asked {
  outcome: Promise<ImportOutcome>
  progress: ByteProgress[]
  layers: Digest[]
  abort: AbortController
}

function ask(asker: TestPeer, steward: string): Asked {
  const [progress, layers, abort] = [[] as ByteProgress[], [] as Digest[], new AbortController()]
  const told = {
    onProgress: ({ doneBytes, totalBytes }: ByteProgress) => void progress.push({ doneBytes, totalBytes }),
    onLayer: (diffId: Digest) => void layers.push(diffId),
  }
  return {
    outcome: asker.network.imports.askImport(steward, request, { signal: abort.signal, ...told }),
    progress,
    layers,
    abort,
  }
}

async function pair(t: TestContext): Promise<{ steward: TestPeer; asker: TestPeer }> {
  const steward = await TestPeer.start(t, 'steward')
  const asker = await TestPeer.start(t, 'asker', { bootstrap: [steward.address] })
  await until(
    'they have met',
    () => asker.network.membership.peers().length === 1 && steward.network.membership.peers().length === 1,
  )
  return { steward, asker }
}

test('a steward tells how far it is and what can be taken, and then the record', async (t) => {
  const { steward, asker } = await pair(t)
  const end = Promise.withResolvers<ImageRecord>()
  let from = ''
  steward.importedImage = async (asked, { peer, onProgress, onLayer }) => {
    from = peer
    assert.deepEqual(asked, request)
    onProgress({ doneBytes: 3, totalBytes: 10 })
    onLayer(layer)
    return await end.promise
  }
  const { outcome, progress, layers } = ask(asker, steward.network.peerId)
  await until('two beats', () => progress.length >= 2)
  assert.deepEqual([progress[0], layers, from], [{ doneBytes: 3, totalBytes: 10 }, [layer], asker.network.peerId])
  end.resolve(record)
  assert.deepEqual(await outcome, { record })
  assert.deepEqual(layers, [layer], 'told once')
})

test('a steward refuses with the code of what went wrong', async (t) => {
  const { steward, asker } = await pair(t)
  for (const [error, refused] of [
    [new P2pfsError('denied', 'secret'), 'denied'],
    [new P2pfsError('invalid', 'malformed'), 'invalid'],
    [new TypeError('bug'), 'unavailable'],
  ] as const) {
    steward.importedImage = async () => await Promise.reject(error)
    assert.deepEqual(await ask(asker, steward.network.peerId).outcome, { refused })
  }
  assert.equal(asker.network.membership.peers().length, 1, 'that is no reason to cut it off')
})

test('a steward ends its work when the asker gives up, and when it goes away', async (t) => {
  const { steward, asker } = await pair(t)
  let [begun, ended] = [0, 0]
  steward.importedImage = async (_request, { signal }) => {
    begun++
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
    ended++
    throw signal.reason
  }
  const one = ask(asker, steward.network.peerId)
  const givenUp = assert.rejects(one.outcome, { name: 'AbortError' })
  await until('the import has begun', () => begun === 1)
  one.abort.abort()
  await givenUp
  await until('its end', () => ended === 1)
  const two = assert.rejects(ask(asker, steward.network.peerId).outcome)
  await until('the next has begun', () => begun === 2)
  await asker.network.stop()
  await two
  await until('its end', () => ended === 2)
})

test('a steward that goes away is unavailable at once', async (t) => {
  const { steward, asker } = await pair(t)
  let begun = false
  steward.importedImage = async () => {
    begun = true
    return await new Promise(() => undefined)
  }
  const lost = assert.rejects(ask(asker, steward.network.peerId).outcome, (error) => isP2pfsError(error, 'unavailable'))
  await until('the import has begun', () => begun)
  await steward.network.stop()
  await lost
})

test('who imports an image is found, and only then', async (t) => {
  const { steward, asker } = await pair(t)
  const { signal } = new AbortController()
  assert.equal(await asker.network.objects.findImport(request.manifestDigest, { signal }), undefined)
  steward.importing.add(request.manifestDigest)
  assert.equal(await asker.network.objects.findImport(request.manifestDigest, { signal }), steward.network.peerId)
})

test('all hosts of a region agree on the rank', async (t) => {
  const { steward, asker } = await pair(t)
  const third = await TestPeer.start(t, 'third', { bootstrap: [steward.address] })
  await until('all have met', () =>
    [steward, asker, third].every(({ network }) => network.membership.peers().length === 2),
  )
  const ranks = [steward, asker, third].map(({ network }) => network.membership.byResponsibility('key'))
  assert.deepEqual(ranks[1], ranks[0])
  assert.deepEqual(ranks[2], ranks[0])
  assert.equal(new Set(ranks[0]).size, 3)
})

test('a host that has just started meets its region first; one without bootstrap peers has none to wait for', async (t) => {
  const { signal } = new AbortController()
  const a = await TestPeer.start(t, 'a')
  await a.network.membership.whenRegionKnown({ signal })
  const b = await TestPeer.start(t, 'b', { bootstrap: [a.address] })
  await b.network.membership.whenRegionKnown({ signal })
  assert.equal(b.network.membership.peers().length, 1)
  const alone = await TestPeer.start(t, 'alone', { bootstrap: ['/ip4/127.0.0.1/tcp/1'] })
  await alone.network.membership.whenRegionKnown({ signal })
  assert.deepEqual(alone.network.membership.byResponsibility('key'), [alone.network.peerId])
})

/** A member of the region that answers for imports as it likes. */
async function hostileSteward(
  t: TestContext,
  asker: TestPeer,
  serve: (stream: Stream) => Promise<void>,
  serveObject?: (stream: Stream) => Promise<void>,
): Promise<string> {
  const host = await createPeerHost(await generateKeyPair('Ed25519'), [], new BanList())
  if (serveObject !== undefined) await host.handle(objectProtocol, serveObject)
  await host.handle(regionProtocol, async (stream) => {
    for await (const bytes of readFrames(stream, 1 << 20)) void bytes
  })
  await host.handle(importProtocol, async (stream) => {
    try {
      await serve(stream)
    } catch {
      // The asker has had enough.
    }
  })
  await host.start()
  t.after(async () => await host.stop())
  const connection = await host.dial(multiaddr(asker.address))
  await writeFrame(await connection.newStream(regionProtocol), [
    encodeRegionMessage({ type: 'hello', region: 'test', name: 'hostile', addresses: [] }),
  ])
  await until('it is a member', () => asker.network.membership.peers().length === 1)
  return host.peerId.toString()
}

const send = async (stream: Stream, answer: ImportAnswer): Promise<void> =>
  await writeFrame(stream, [encodeImportAnswer(answer)])
const progress: ImportAnswer = { type: 'progress', doneBytes: 0, totalBytes: 10, layers: [] }

const lies: [string, (stream: Stream) => Promise<void>][] = [
  [
    'the record of another reference',
    async (stream) => await send(stream, { type: 'image', record: { ...record, reference: 'host/r:2' } }),
  ],
  [
    'the record of another format',
    async (stream) => await send(stream, { type: 'image', record: { ...record, format: 'erofs' } }),
  ],
  [
    'the record of another manifest',
    async (stream) => await send(stream, { type: 'image', record: { ...record, manifestDigest: layer } }),
  ],
  ['something that is no message', async (stream) => await writeFrame(stream, [Buffer.from('garbage')])],
  ['a message longer than the protocol allows', async (stream) => void stream.send(Buffer.from('ffffff7f', 'hex'))],
  [
    'a flood of progress',
    async (stream) => {
      for (let i = 0; i < 10_000; i++) await send(stream, progress)
    },
  ],
]
for (const [what, lie] of lies) {
  test(`a steward that sends ${what} is cut off`, async (t) => {
    const asker = await TestPeer.start(t, 'asker')
    const steward = await hostileSteward(t, asker, lie)
    await assert.rejects(ask(asker, steward).outcome, (error) => isP2pfsError(error, 'invalid'))
    assert.deepEqual(asker.network.membership.peers(), [])
  })
}

test('a steward that breaks off in an answer is unavailable', async (t) => {
  const asker = await TestPeer.start(t, 'asker')
  const steward = await hostileSteward(t, asker, async (stream) => {
    for await (const bytes of readFrames(stream, 4096)) {
      assert.ok(bytes.length > 0)
      stream.send(Uint8Array.of(200, 1, 0xa2))
      await stream.close()
      return
    }
  })
  await assert.rejects(ask(asker, steward).outcome, (error) => isP2pfsError(error, 'unavailable'))
})

for (const [how, before] of [
  ['from the start', 0],
  ['after a while', 2],
] as const) {
  test(`a steward that is silent ${how} is given up, and not counted on for a while`, async (t) => {
    const asker = await TestPeer.start(t, 'asker')
    const steward = await hostileSteward(t, asker, async (stream) => {
      for (let i = 0; i < before; i++) await send(stream, progress)
      await new Promise(() => undefined)
    })
    assert.equal(asker.network.membership.byResponsibility('key').length, 2)
    const { outcome, progress: seen } = ask(asker, steward)
    await assert.rejects(outcome, (error) => isP2pfsError(error, 'timeout'))
    assert.equal(seen.length, before)
    assert.deepEqual(asker.network.membership.byResponsibility('key'), [asker.network.peerId])
  })
}

test('a steward that was silent is counted on again as soon as it answers anything', async (t) => {
  const asker = await TestPeer.start(t, 'asker')
  let isStalled = true
  const steward = await hostileSteward(
    t,
    asker,
    async () => await new Promise(() => undefined),
    async (stream) => {
      await readFrames(stream, maxObjectRequestBytes).next()
      if (!isStalled) await writeFrame(stream, [encodeObjectAnswer(undefined)])
    },
  )
  const { signal } = new AbortController()
  await assert.rejects(ask(asker, steward).outcome, (error) => isP2pfsError(error, 'timeout'))
  await asker.network.objects.findImport(request.manifestDigest, { signal })
  assert.equal(asker.network.membership.byResponsibility('key').length, 1)
  isStalled = false
  await asker.network.objects.findImport(request.manifestDigest, { signal })
  assert.equal(asker.network.membership.byResponsibility('key').length, 2)
})

test('an asker that asks twice on a stream, or asks for nonsense, is cut off', async (t) => {
  const steward = await TestPeer.start(t, 'steward')
  let aborted = 0
  steward.importedImage = async (_request, { signal }) => {
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
    aborted++
    throw signal.reason
  }
  for (const messages of [[encodeImportRequest(request), encodeImportRequest(request)], [Buffer.from('garbage')]]) {
    const host = await createPeerHost(await generateKeyPair('Ed25519'), [], new BanList())
    await host.handle(regionProtocol, async (stream) => {
      for await (const bytes of readFrames(stream, 1 << 20)) void bytes
    })
    await host.start()
    t.after(async () => await host.stop())
    const connection = await host.dial(multiaddr(steward.address))
    await writeFrame(await connection.newStream(regionProtocol), [
      encodeRegionMessage({ type: 'hello', region: 'test', name: 'hostile', addresses: [] }),
    ])
    await until('it is a member', () => steward.network.membership.peers().length === 1)
    const stream = await connection.newStream(importProtocol)
    for (const message of messages) await writeFrame(stream, [message])
    await until('the connection is closed', () => host.getPeers().length === 0)
  }
  await until('its import is aborted', () => aborted === 1)
})
