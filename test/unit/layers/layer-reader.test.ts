import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { LayerReader, type LayerReaderParts } from '../../../node/layers/layer-reader.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import { defaultLayerLimits } from '../../../node/rootfs/layer-limits.ts'

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
