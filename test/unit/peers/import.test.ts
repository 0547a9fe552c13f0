import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import type { Stream } from '@libp2p/interface'
import { multiaddr } from '@multiformats/multiaddr'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { errorCodes, isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import {
  encodeImportAnswer,
  encodeImportRequest,
  importProtocol,
  type ImportAnswer,
  type ImportRequest,
} from '../../../protocol/messages/import.ts'
import { encodeObjectAnswer } from '../../../protocol/messages/object.ts'
import { encodeRegionMessage, regionProtocol } from '../../../protocol/messages/region.ts'
import { registryKey, type RegistryWord } from '../../../protocol/messages/registry-word.ts'
import { silentLog } from '../../../node/base/log.ts'
import { readFrames, writeFrame } from '../../../node/peers/frames.ts'
import type { ByteProgress } from '../../../node/model/progress.ts'
import { ImportClient, type ImportOutcome } from '../../../node/peers/import/client.ts'
import { RegionObjects } from '../../../node/peers/object/region-objects.ts'
import { testKey } from '../../support/test-key.ts'
import { FakeRegion, settled } from './fake-region.ts'
import { TestPeer, until } from './test-peer.ts'
import { createRawHost } from '../../support/raw-host.ts'

const layer = digestOf(Buffer.from('layer'))
const nextLayer = digestOf(Buffer.from('next layer'))
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
  nameStatement: { key: (await testKey(1)).key, signature: new Uint8Array(64), statedAtMs: 1 },
}

interface Question {
  outcome: Promise<ImportOutcome>
  progress: ByteProgress[]
  layers: Digest[]
  abort: AbortController
}

function ask(asker: TestPeer, steward: string): Question {
  const [progress, layers, abort] = [[] as ByteProgress[], [] as Digest[], new AbortController()]
  const events = {
    onProgress: ({ doneBytes, totalBytes }: ByteProgress) => void progress.push({ doneBytes, totalBytes }),
    onLayer: (diffId: Digest) => void layers.push(diffId),
  }
  return {
    outcome: asker.network.imports.askImport(steward, request, { signal: abort.signal, ...events }),
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

test('a steward sends its progress and the layers that it has read, and then the record', async (t) => {
  const { steward, asker } = await pair(t)
  const end = Promise.withResolvers<ImageRecord>()
  let from = ''
  let readLayer = (_diffId: Digest): void => undefined
  steward.importedImage = async (asked, { peer, onProgress, onLayer }) => {
    from = peer
    assert.deepEqual(asked, request)
    onProgress({ doneBytes: 3, totalBytes: 10 })
    onLayer(layer)
    readLayer = onLayer
    return await end.promise
  }
  const { outcome, progress, layers } = ask(asker, steward.network.peerId)
  await until('the first layer', () => layers.length === 1)
  assert.deepEqual([progress.at(-1), layers, from], [{ doneBytes: 3, totalBytes: 10 }, [layer], asker.network.peerId])
  readLayer(nextLayer)
  await until('the next layer', () => layers.length === 2)
  end.resolve(record)
  assert.deepEqual(await outcome, { record })
  assert.deepEqual(layers, [layer, nextLayer], 'each once')
})

test('a steward that refuses tells only whether it is busy or the image malformed', async (t) => {
  const { steward, asker } = await pair(t)
  for (const [error, refused] of [
    [new P2pfsError('invalid', 'malformed'), 'invalid'],
    [new P2pfsError('busy', 'enough'), 'busy'],
    ...errorCodes
      .filter((code) => code !== 'busy' && code !== 'invalid')
      .map((code) => [new P2pfsError(code, 'secret'), 'denied'] as const),
    [new TypeError('bug'), 'denied'],
  ] as const) {
    steward.importedImage = async () => await Promise.reject(error)
    assert.deepEqual(await ask(asker, steward.network.peerId).outcome, { refused })
  }
  assert.equal(asker.network.membership.peers().length, 1, 'a refusal is no reason to cut it off')
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
  const first = ask(asker, steward.network.peerId)
  const givenUp = assert.rejects(first.outcome, { name: 'AbortError' })
  await until('the import has begun', () => begun === 1)
  first.abort.abort()
  await givenUp
  await until('its end', () => ended === 1)
  const second = assert.rejects(ask(asker, steward.network.peerId).outcome)
  await until('the next has begun', () => begun === 2)
  await asker.network.stop()
  await second
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

test('a member is found while it imports the image, and not before', async (t) => {
  const { steward, asker } = await pair(t)
  const { signal } = new AbortController()
  assert.equal(await asker.network.objects.findImport(request.manifestDigest, { signal }), undefined)
  steward.importing.add(request.manifestDigest)
  assert.equal(await asker.network.objects.findImport(request.manifestDigest, { signal }), steward.network.peerId)
})

test('a member says what it has seen of a registry, and an import under way is no word', async (t) => {
  const { steward, asker } = await pair(t)
  const { signal } = new AbortController()
  const [silent, quick, unknown] = ['silent.test', 'quick.test', 'unknown.test'].map(registryKey)
  steward.registryWords.set(silent!, { isSilent: true, usualMs: undefined })
  steward.registryWords.set(quick!, { isSilent: false, usualMs: 20.3 })
  const wordsOn = async (key: Digest | undefined): Promise<[RegistryWord, string][]> => {
    const words: [RegistryWord, string][] = []
    await asker.network.objects.askRegistry(key!, {
      signal,
      onWord: (word, peer) => {
        words.push([word, peer])
        return true
      },
    })
    return words
  }
  const { peerId } = steward.network
  assert.deepEqual(await wordsOn(silent), [[{ isSilent: true, usualMs: undefined }, peerId]])
  assert.deepEqual(await wordsOn(quick), [[{ isSilent: false, usualMs: 21 }, peerId]])
  assert.deepEqual(await wordsOn(unknown), [])
})

test('all hosts of a region agree on the order of responsibility', async (t) => {
  const { steward, asker } = await pair(t)
  const third = await TestPeer.start(t, 'third', { bootstrap: [steward.address, asker.address] })
  await until('all have met', () =>
    [steward, asker, third].every(({ network }) => network.membership.peers().length === 2),
  )
  const orders = [steward, asker, third].map(({ network }) => network.membership.byResponsibility('key'))
  assert.deepEqual(orders[1], orders[0])
  assert.deepEqual(orders[2], orders[0])
  assert.equal(new Set(orders[0]).size, 3)
})

/** A real member of the region that answers import requests as it likes. */
async function hostileSteward(
  t: TestContext,
  asker: TestPeer,
  serve: (stream: Stream) => Promise<void>,
): Promise<string> {
  const host = await createRawHost()
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
      for (let i = 0; i < 200; i++) await send(stream, progress)
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

for (const [how, before, silenceMs] of [
  ['from the start', 0, 1_000],
  ['after a while', 2, 5_000],
] as const) {
  test(`a steward that is silent ${how} is given up, and responsible for nothing until it answers`, async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const region = new FakeRegion()
    const steward = region.join('steward')
    const imports = new ImportClient(region)
    const seen: ByteProgress[] = []
    region.serve = async (stream) => {
      for (let i = 0; i < before; i++) {
        await settled()
        t.mock.timers.tick(i === 0 ? 999 : 4_999)
        await send(stream, progress)
      }
    }
    const outcome = imports.askImport(steward.id, request, {
      signal: new AbortController().signal,
      onProgress: (heard) => void seen.push(heard),
      onLayer: () => undefined,
    })
    const givenUp = assert.rejects(outcome, (error) => isP2pfsError(error, 'timeout'))
    while (seen.length < before) await settled()
    await settled()
    t.mock.timers.tick(silenceMs - 1)
    assert.equal(region.membership.byResponsibility('key').length, 2)
    t.mock.timers.tick(1)
    await givenUp
    assert.equal(seen.length, before)
    assert.deepEqual(region.membership.byResponsibility('key'), ['me'])

    const objects = new RegionObjects({
      host: region.host,
      membership: region.membership,
      log: silentLog,
    })
    const { signal } = new AbortController()
    region.serve = async (stream) => await stream.close()
    await objects.findImport(request.manifestDigest, { signal })
    assert.deepEqual(region.membership.byResponsibility('key'), ['me'], 'closing a stream is no answer')
    region.serve = async (stream) => await writeFrame(stream, [encodeObjectAnswer(undefined)])
    await objects.findImport(request.manifestDigest, { signal })
    assert.equal(region.membership.byResponsibility('key').length, 2)
    assert.equal(steward.standing.isSilent, false)
  })
}

test('a steward that is alive but too slow is given up after two minutes', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let nowMs = 0
  t.mock.method(performance, 'now', () => nowMs)
  const region = new FakeRegion()
  const steward = region.join('steward')
  let answers = 0
  region.serve = async (stream) => {
    // It reads one MiB in the first minute, and less in the next two.
    for (; nowMs <= 240_000; nowMs += 1000, answers++) {
      await send(stream, {
        type: 'progress',
        doneBytes: nowMs < 60_000 ? 0 : 2 ** 20 + 1,
        totalBytes: 2 ** 30,
        layers: [],
      })
      await settled()
    }
  }
  const { signal } = new AbortController()
  const options = { signal, onProgress: () => undefined, onLayer: () => undefined }
  await assert.rejects(
    new ImportClient(region).askImport(steward.id, request, options),
    (error) => isP2pfsError(error, 'timeout') && /too slow/.test(error.message),
  )
  assert.ok(answers > 180 && answers < 190, `after ${answers} seconds`)
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
    const host = await createRawHost()
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
