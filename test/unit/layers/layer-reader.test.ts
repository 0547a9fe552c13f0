import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { AwaitedReads } from '../../../node/base/awaited-reads.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { LayerReader, type LayerReaderParts } from '../../../node/layers/layer-reader.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import { defaultLayerLimits } from '../../../node/rootfs/layer-limits.ts'
import { FakeClock } from '../../support/fake-clock.ts'
import { writeTar } from '../../support/tar-writer.ts'

const digest = digestOf(Buffer.from('layer'))
const layer = { digest, diffId: digest, mediaType: 'application/vnd.oci.image.layer.v1.tar', sizeBytes: 1024 }
const sink = { put: async (): Promise<void> => await Promise.resolve() }

test('a layer is read once by the readers of two clients, unless they read it out of different registries', async () => {
  const opened: string[] = []
  /** A registry that begins to answer, and then says nothing. */
  const registryOf = (name: string): LayerReaderParts['registry'] => ({
    openLayer: async function* (reference, _layer, { signal }) {
      opened.push(`${name} ${reference.kind === 'registry' ? reference.registry : ''}`)
      yield Buffer.alloc(512)
      await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
    },
  })
  const own = new LayerReader({
    registry: registryOf('own'),
    indexes: { own: async () => await Promise.resolve(undefined), put: async () => await Promise.resolve() },
    blobMaps: { put: async () => await Promise.resolve() },
    inventory: { track: () => undefined },
    limits: defaultLayerLimits,
  })
  const forPeers = own.from(registryOf('for peers'))
  const read = (reader: LayerReader, image: string): AbortController => {
    const abort = new AbortController()
    const options = { signal: abort.signal, onBytes: () => undefined }
    reading.push(assert.rejects(reader.readShared(parseReference(image), layer, sink, options), { name: 'AbortError' }))
    return abort
  }
  const reading: Promise<void>[] = []
  const until = async (count: number): Promise<void> => {
    while (opened.length < count) await new Promise((resolve) => setTimeout(resolve, 1))
  }
  const first = read(forPeers, 'one.test/app')
  await until(1)
  const second = read(own, 'one.test/app')
  const other = read(own, 'two.test/app')
  await until(2)
  assert.deepEqual(opened, ['for peers one.test', 'own two.test'])
  first.abort()
  await until(3)
  assert.equal(opened[2], 'own one.test', 'the reading that was waited for has ended without a result')
  second.abort()
  other.abort()
  await Promise.all(reading)
  assert.equal(forPeers.chunks, own.chunks)
})

test('a layer that nobody waits for is read one piece at a time beside reads, and at once as soon as somebody waits', async () => {
  const tar = writeTar([{ path: 'file', type: 'file', content: Buffer.alloc(200_000, 1) }])
  const pieceBytes = 16 * 1024
  const clock = new FakeClock()
  const reads = new AwaitedReads({ clock })
  let taken = 0
  let isKept = false
  const reader = new LayerReader({
    registry: {
      openLayer: async function* () {
        for (let at = 0; at < tar.length; at += pieceBytes) {
          taken++
          yield await Promise.resolve(Buffer.from(tar.subarray(at, at + pieceBytes)))
        }
      },
    },
    indexes: { own: async () => await Promise.resolve(undefined), put: async () => await Promise.resolve() },
    blobMaps: { put: async () => await Promise.resolve() },
    inventory: { track: () => void (isKept = true) },
    limits: defaultLayerLimits,
    reads,
  })
  const tarDigest = digestOf(tar)
  const tarLayer = { ...layer, digest: tarDigest, diffId: tarDigest, sizeBytes: tar.length }
  const urgency = new Urgency(false)
  const over = Promise.withResolvers<void>()
  const awaited = reads.during(async () => await over.promise)
  const options = { signal: new AbortController().signal, urgency, onBytes: () => undefined }
  const reading = reader.readShared(parseReference('one.test/app'), tarLayer, sink, options)
  for (let pieces = 0; pieces < 3; pieces++) {
    await clock.pass(0)
    while (clock.waiting === 0) await new Promise((resolve) => setTimeout(resolve, 1))
    assert.equal(taken, pieces)
    await clock.pass(250)
  }
  urgency.raise()
  await reading
  assert.ok(isKept && taken > 3)
  over.resolve()
  await awaited
})
