import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SegmentStreams, type SegmentStreamsParts } from '../../../node/layers/segment-streams.ts'
import { WholeReads } from '../../../node/layers/whole-reads.ts'
import { formatReference } from '../../../node/registry/reference.ts'
import { buildRootfs } from '../../../node/rootfs/rootfs-build.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { ImageRecord } from '../../../protocol/image-record.ts'
import type { LayerIndex } from '../../../protocol/layer-index.ts'
import { rootfsDigest } from '../../../protocol/rootfs-manifest.ts'
import { testKey } from '../../support/test-key.ts'

const { signal } = new AbortController()
const diffId = digestOf(Buffer.from('layer'))
const blob = digestOf(Buffer.from('blob'))
const index: LayerIndex = {
  diffId,
  tarBytes: 1024,
  entries: [],
  chunks: new ChunkTable([4096], Buffer.from(digestOf(Buffer.alloc(4096)).slice('sha256:'.length), 'hex')),
}
const config = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [diffId] } })
const manifest = await buildRootfs([index], { config, format: 'ext4' }, { put: async () => undefined })
const record: ImageRecord = {
  reference: 'r.test/lab/image:1',
  platform: 'linux/amd64',
  format: 'ext4',
  manifestDigest: digestOf(Buffer.from('manifest')),
  manifest: JSON.stringify({
    schemaVersion: 2,
    config: { mediaType: 'c', digest: blob, size: 1 },
    layers: [{ mediaType: 'l', digest: blob, size: 5000 }],
  }),
  rootfsDigest: rootfsDigest(manifest),
  attestation: { key: (await testKey(1)).key, signature: new Uint8Array(64) },
  nameStatement: { key: (await testKey(1)).key, signature: new Uint8Array(64), statedAtMs: 1 },
}

interface World {
  streams: SegmentStreams
  wholeReads: WholeReads
  /** Layers that were read. */
  read: Digest[]
  /** Digests of the chunks that came. */
  put: Digest[]
}

/** A host that has the image, and nothing that it is made of. */
function world(parts: Partial<SegmentStreamsParts>): World {
  const wholeReads = new WholeReads()
  const read: Digest[] = []
  const streams = new SegmentStreams({
    catalog: { images: async () => [record], rootfs: async () => manifest, hasLayer: async () => false },
    reader: {
      read: async (_reference, layer) => {
        read.push(layer.diffId)
        return index
      },
    },
    indexes: { find: async () => undefined },
    transactions: { run: async (task) => await task({ put: async () => undefined }) },
    published: { metadata: async () => false },
    wholeReads,
    inventory: { isReferenced: () => true },
    ...parts,
  })
  return { streams, wholeReads, read, put: [] }
}

async function streamMetadata({ streams, put }: World): Promise<void> {
  const stream = (await streams.streamOf(manifest.metadata.id))!
  await stream({ put: async (digest) => void put.push(digest) }, { signal, reason: 'no-map' })
}

const unanswered = async (): Promise<never> => {
  throw new P2pfsError('unavailable', 'no answer')
}
const metadataDigests = Array.from({ length: manifest.metadata.count }, (_, i) => manifest.metadata.digestAt(i))

test('metadata is made of indexes that the region has, though the registry does not answer', async () => {
  const made = world({
    published: { metadata: unanswered },
    indexes: { find: async () => ({ index, isUnverified: true }) },
  })
  await streamMetadata(made)
  assert.deepEqual([made.put, made.read], [metadataDigests, []])
})

test('a layer is read for metadata where region and registry have nothing, and that is told', async () => {
  const made = world({})
  await streamMetadata(made)
  assert.deepEqual([made.put, made.read], [metadataDigests, [diffId]])
  assert.equal(made.wholeReads.of(index.chunks.id)?.reason, 'no-index')
})

for (const [silent, parts] of [
  ['registry', { published: { metadata: unanswered } }],
  ['region', { indexes: { find: unanswered } }],
] as const) {
  test(`no layer is read for metadata while the ${silent} does not answer`, async () => {
    const made = world(parts)
    await assert.rejects(streamMetadata(made), { code: 'unavailable' })
    assert.deepEqual([made.put, made.read], [[], []])
  })
}

test('a layer that is streamed is told of with the reason of whoever streams it', async () => {
  const { streams, wholeReads, read } = world({})
  const stream = (await streams.streamOf(index.chunks.id))!
  await stream({ put: async () => undefined }, { signal, reason: 'no-ranges' })
  assert.deepEqual([read, wholeReads.of(index.chunks.id)?.reason], [[diffId], 'no-ranges'])
})

test('a segment of no image has no stream', async () => {
  assert.equal(await world({}).streams.streamOf(blob), undefined)
})

test('a layer that its repository refuses is streamed out of another one that has it', async () => {
  const asked: string[] = []
  const { streams } = world({
    catalog: {
      images: async () =>
        ['lab/image:1', 'lab/image:2', 'team/other:1'].map((name) => ({ ...record, reference: `r.test/${name}` })),
      rootfs: async () => manifest,
      hasLayer: async () => false,
    },
    reader: {
      read: async (reference) => {
        asked.push(formatReference(reference))
        if (asked.length === 1) throw new P2pfsError('denied', 'not for this host')
        return await Promise.resolve(index)
      },
    },
  })
  const stream = (await streams.streamOf(index.chunks.id))!
  await stream({ put: async () => undefined }, { signal, reason: 'no-map' })
  assert.deepEqual(asked, ['r.test/lab/image:1', 'r.test/team/other:1'])
})
