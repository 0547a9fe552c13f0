import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import { pushedRawLayerType } from '../../../protocol/raw-image.ts'
import type { RootfsFormat } from '../../../protocol/rootfs-manifest.ts'
import type { LayerIndex } from '../../../protocol/layer-index.ts'
import { Importer, type ImportOptions } from '../../../node/images/importer.ts'
import type { ResolvedImage } from '../../../node/registry/image-source.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import { defaultLayerLimits } from '../../../node/rootfs/layer-limits.ts'

const { signal } = new AbortController()
const diffId = digestOf(Buffer.from('tar'))
const index: LayerIndex = {
  diffId,
  tarBytes: 1024,
  entries: [],
  chunks: new ChunkTable([4096], Buffer.from(digestOf(Buffer.alloc(4096)).slice('sha256:'.length), 'hex')),
}
const layer = { digest: digestOf(Buffer.from('blob')), diffId, mediaType: 'l', sizeBytes: 1 }
const image: ResolvedImage = {
  reference: 'host.test/app:1',
  platform: 'linux/amd64',
  manifestDigest: digestOf(Buffer.from('manifest')),
  manifest: '{}',
  config: '{}',
  layers: [layer],
}
const record = {} as ImageRecord

/**
 * Imports an image on a host that has this of its layer. @returns whether the layer was read, and what the rootfs
 * stands on
 */
async function importWith(
  known: { own?: boolean; told?: boolean; published?: boolean },
  options: Omit<ImportOptions, 'signal'> = {},
  of: { image: ResolvedImage; format: RootfsFormat } = { image, format: 'ext4' },
): Promise<{ read: Digest[]; isUnverified: boolean }> {
  const read: Digest[] = []
  const own = async (): Promise<LayerIndex | undefined> => await Promise.resolve(known.own === true ? index : undefined)
  const importer = new Importer({
    registry: { resolve: async () => await Promise.reject(new Error('nothing is resolved')) },
    reader: {
      readShared: async (_reference, { diffId }) => {
        read.push(diffId)
        return await Promise.resolve(index)
      },
      readTar: async () => await Promise.reject(new Error('no tar is read')),
    },
    indexes: {
      own,
      find: async () => {
        if ((await own()) !== undefined) return { index, isUnverified: false }
        return known.told === true ? { index, isUnverified: true } : undefined
      },
    },
    transactions: { run: async (task) => await task({ put: async () => undefined }) },
    published: {
      layerIndexes: async () =>
        await Promise.resolve(known.published === true ? new Map([[diffId, index]]) : undefined),
    },
    limits: defaultLayerLimits,
  })
  const { isUnverified } = await importer.importImage(parseReference(image.reference), of.image, of.format, {
    signal,
    ...options,
  })
  return { read, isUnverified }
}

test('a rootfs is on the word of members if a layer index of it is, and on this host if it has read the layers', async () => {
  assert.deepEqual(await importWith({}), { read: [diffId], isUnverified: false })
  assert.deepEqual(await importWith({ own: true, told: true }), { read: [], isUnverified: false })
  assert.deepEqual(await importWith({ told: true }), { read: [], isUnverified: true })
})

test('layer indexes that are published are worth as much as the rootfs that they make', async () => {
  for (const isOnMembersWord of [true, false])
    assert.deepEqual(await importWith({ published: true }, { other: { record, isOnMembersWord } }), {
      read: [],
      isUnverified: isOnMembersWord,
    })
})

test("an import that takes nobody's word reads every layer that this host has not read", async () => {
  const other = { record, isOnMembersWord: true }
  assert.deepEqual(await importWith({ told: true, published: true }, { other, untold: true }), {
    read: [diffId],
    isUnverified: false,
  })
  assert.deepEqual(await importWith({ own: true }, { untold: true }), { read: [], isUnverified: false })
})

test('a raw image is made into nothing else, nothing else into one, and an index that lies about it is not taken', async () => {
  const raw = { ...image, layers: [{ ...layer, mediaType: pushedRawLayerType }] }
  await assert.rejects(importWith({ own: true }, {}, { image: raw, format: 'ext4' }), { code: 'invalid' })
  await assert.rejects(importWith({ own: true }, {}, { image, format: 'raw' }), { code: 'invalid' })
  const { read } = await importWith({ told: true }, {}, { image: raw, format: 'raw' })
  assert.deepEqual(read, [diffId], 'the id of its chunks is not the diff id')
})
