import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '../../node/log.ts'
import { SeekableLayers } from '../../node/seekable-layers.ts'
import { Urgency } from '../../node/urgency.ts'
import type { BlobMap } from '../../protocol/blob-map.ts'
import { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestOf, digestToBytes } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import { rootfsDigest, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { testKey } from '../test-key.ts'

const a = digestOf(Buffer.from('a'))
const table = new ChunkTable([4096, 4096], Buffer.concat([digestToBytes(a), digestToBytes(a)]))
const windows = new ChunkTable([8192], digestToBytes(a))
const config = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [a] } })
const manifest: RootfsManifest = { format: 'ext4', metadata: table, layers: [{ diffId: a, chunks: table }], config }
const record: ImageRecord = {
  reference: 'r.test/lab/image:1',
  platform: 'linux/amd64',
  format: 'ext4',
  manifestDigest: a,
  manifest: JSON.stringify({ schemaVersion: 2, config: { mediaType: 'c', digest: a, size: 1 }, layers: [{ mediaType: 'l', digest: a, size: 5000 }] }),
  rootfsDigest: rootfsDigest(manifest),
  attestation: { key: (await testKey(1)).key, signature: new Uint8Array(64) },
}
const map: BlobMap = {
  digest: a,
  diffId: a,
  sizeBytes: 5000,
  tarBytes: 20_000,
  compression: 'gzip',
  checkpoints: [
    { bitOffset: 0, tarOffset: 0, window: { offset: 0, lengthBytes: 0 } },
    { bitOffset: 16_000, tarOffset: 8000, window: { offset: 4000, lengthBytes: 900 } },
  ],
  marks: new Uint32Array(0),
  windows,
  pieces: [{ regionOffset: 0, lengthBytes: 8192, tarOffset: 10_000 }],
}

/** Of a layer whose windows are published, and nowhere else. */
async function regionOf(parts: Partial<ConstructorParameters<typeof SeekableLayers>[0]>): Promise<NonNullable<Awaited<ReturnType<SeekableLayers['seekable']>>>> {
  const layers = new SeekableLayers({
    catalog: { images: async () => [record], rootfs: async () => manifest, blobMap: async () => map, putBlobMap: async () => undefined },
    registry: { range: async () => new Uint8Array(0) },
    region: { fetchBlobMap: async () => undefined },
    fetchWindow: async () => {
      throw new P2pfsError('unavailable', 'nobody has it')
    },
    published: { of: async () => undefined, window: async () => undefined },
    onBlobMap: () => undefined,
    log: silentLog,
    ...parts,
  })
  return (await layers.seekable(table.id))!
}

const options = { signal: new AbortController().signal, urgency: new Urgency(true), again: false }

test('a window that is only published is asked for while its data is, by exactly its bytes', async () => {
  const windowAsked = Promise.withResolvers<void>()
  const dataAsked = Promise.withResolvers<void>()
  const asked: unknown[] = []
  const region = await regionOf({
    registry: {
      range: async (_reference, _blob, range) => {
        dataAsked.resolve()
        await windowAsked.promise
        asked.push(range)
        return new Uint8Array(range.end - range.start)
      },
    },
    published: {
      of: async () => undefined,
      window: async (_record, window) => {
        windowAsked.resolve()
        await dataAsked.promise
        asked.push(window)
        return new Uint8Array(window.lengthBytes)
      },
    },
  })
  // Neither answers before the other is asked; zeros are no gzip.
  await assert.rejects(region.read(region.stretchOf(0)!, options), { code: 'invalid' })
  assert.deepEqual(new Set(asked), new Set([{ start: 2000, end: 5000 }, { blob: a, table: windows.id, offset: 4000, lengthBytes: 900 }]))
})

test('a window that nobody has is missing, so that the layer is streamed', async () => {
  const region = await regionOf({})
  await assert.rejects(region.read(region.stretchOf(0)!, options), { code: 'missing' })
})
