import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { isRootfsOf } from '../../../node/model/image.ts'
import { requestOf } from '../../../node/model/rootfs-chunks.ts'
import { RawPusher } from '../../../node/publish/raw-pusher.ts'
import { parseReference, type RegistryReference } from '../../../node/registry/reference.ts'
import { chunksOf, decodeRange, rangeOf, tarOf } from '../../../node/rootfs/blob-range.ts'
import { importLayer } from '../../../node/rootfs/layer-import.ts'
import { encodeBlobMap, type BlobMap } from '../../../protocol/blob-map.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestOf, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { isRawImage, rawChunkBytes, rawChunkLength, rawLayerBytes, rawLayers } from '../../../protocol/raw-image.ts'
import type { RootfsManifest } from '../../../protocol/rootfs-manifest.ts'

const { signal } = new AbortController()
const rawDigest = digestOf(Buffer.from('rootfs'))

/** A raw image in memory, its chunks, and a registry that takes what is pushed. */
function lab(image: Buffer): {
  chunks: Map<Digest, Buffer>
  blobs: Map<Digest, Uint8Array>
  maps: BlobMap[]
  manifest: RootfsManifest
  pusher: RawPusher
  pushed: () => { layers: { digest: Digest; mediaType: string; size: number }[] }
} {
  const chunks = new Map<Digest, Buffer>()
  const digests: Uint8Array[] = []
  for (let start = 0; start < image.length; start += rawChunkBytes) {
    const chunk = Buffer.alloc(rawChunkLength(image.length - start))
    image.copy(chunk, 0, start, start + rawChunkBytes)
    const digest = digestOf(chunk)
    chunks.set(digest, chunk)
    digests.push(digestToBytes(digest))
  }
  const blobs = new Map<Digest, Uint8Array>()
  const maps: BlobMap[] = []
  let json = ''
  const store = (bytes: Uint8Array): { digest: Digest; sizeBytes: number } => {
    const digest = digestOf(bytes)
    blobs.set(digest, bytes)
    return { digest, sizeBytes: bytes.length }
  }
  const pusher = new RawPusher({
    registry: {
      pushBlob: async (_reference, bytes) => store(bytes),
      pushManifest: async (_reference, _name, text) => {
        json = text
        return store(Buffer.from(text))
      },
    },
    fetcher: { fetch: async ({ digest }) => ({ bytes: chunks.get(digest)!, source: 'local' }) },
    blobMaps: { put: async (map) => void maps.push(map) },
  })
  const layers = rawLayers(Uint8Array.from(Buffer.concat(digests)), image.length)
  const manifest: RootfsManifest = {
    format: 'raw',
    metadata: new ChunkTable([], new Uint8Array(0)),
    layers,
    config: '{}',
    sizeBytes: image.length,
  }
  return {
    chunks,
    blobs,
    maps,
    manifest,
    pusher,
    pushed: () => JSON.parse(json) as ReturnType<ReturnType<typeof lab>['pushed']>,
  }
}

test('a pushed layer is read as a whole, and at any place, and both are what was pushed', async () => {
  const image = Buffer.alloc(rawLayerBytes(0) + 3 * rawChunkBytes + 1234)
  for (const [offset, length] of [
    [5000, 300_000],
    [rawLayerBytes(0) - 100, 200],
    [image.length - 20, 20],
  ] as const)
    randomBytes(length).copy(image, offset)
  const { manifest, pusher, maps, blobs, chunks, pushed } = lab(image)
  const target = { ...(parseReference('host.test/disks/app:1') as RegistryReference), tag: '1' }
  const pushing = { manifest, platform: 'linux/amd64', rootfsDigest: rawDigest }
  const { record, compressedBytes } = await pusher.push(pushing, target, { signal, onProgress: () => undefined })
  assert.deepEqual([record.reference, record.format, record.rootfsDigest], ['host.test/disks/app:1', 'raw', rawDigest])
  assert.ok(compressedBytes < 400_000, 'zeros cost next to nothing')
  assert.ok(isRawImage(pushed().layers))
  assert.equal(maps.length, manifest.layers.length)
  for (const [i, { digest, mediaType }] of pushed().layers.entries()) {
    const { diffId, chunks: table } = manifest.layers[i]!
    const blob = blobs.get(digest)!
    const source = (async function* () {
      yield Uint8Array.from(blob)
    })()
    const put = async (chunk: Digest, bytes: Uint8Array): Promise<void> => assert.ok(chunks.get(chunk)!.equals(bytes))
    const { index, map } = await importLayer(source, { digest, diffId, mediaType }, { put }, { signal })
    assert.equal(index.chunks.id, table.id)
    assert.deepEqual(Buffer.from(encodeBlobMap(map!)), Buffer.from(encodeBlobMap(maps[i]!)))
    for (let at = 0; at < table.count; at++) {
      const place = tarOf(map!, table, at)
      const { digest: wanted, lengthBytes } = requestOf(table, at)
      if (place === undefined) {
        assert.equal(digestOf(new Uint8Array(lengthBytes)), wanted)
        continue
      }
      const range = rangeOf(map!, place.tarStart, place.tarEnd)
      assert.ok(range.tarEnd - range.tarStart <= 2 * rawChunkBytes, 'a chunk is read with one other at most')
      const tar = await decodeRange(map!, range, Buffer.from(blob).subarray(range.start, range.end), new Uint8Array(0))
      const found = [...chunksOf(map!, table, tar, range.tarStart)].find((chunk) => chunk.index === at)
      assert.equal(digestOf(found!.bytes), wanted)
    }
  }
})

test('a layer that is not what its diff id says is not pushed', async () => {
  const { manifest, pusher, blobs } = lab(randomBytes(rawChunkBytes))
  const [layer] = manifest.layers
  const target = { ...(parseReference('host.test/disks/app:1') as RegistryReference), tag: '1' }
  const forged = { ...manifest, layers: [{ ...layer!, diffId: rawDigest }] }
  const pushing = pusher.push({ manifest: forged, platform: 'linux/amd64', rootfsDigest: rawDigest }, target, {
    signal,
    onProgress: () => undefined,
  })
  await assert.rejects(pushing, { code: 'invalid' })
  assert.equal(blobs.size, 0)
})

test('an image has at most as many layers as a manifest may have', () => {
  for (const gibibytes of [1, 16, 17, 60, 128]) {
    const sizeBytes = gibibytes * 1024 ** 3
    assert.ok(sizeBytes / rawLayerBytes(sizeBytes) <= 512, `${gibibytes} GiB`)
  }
  assert.equal(rawLayerBytes(16 * 1024 ** 3), rawLayerBytes(1), 'versions of one size class have the same layers')
})

test('the diff ids of a raw image say which chunks it has, so that no other rootfs is taken for it', () => {
  const { manifest } = lab(randomBytes(3 * rawChunkBytes))
  const image = { config: manifest.config, layers: manifest.layers }
  assert.ok(isRootfsOf(manifest, image))
  const { manifest: other } = lab(randomBytes(3 * rawChunkBytes))
  const forged = { ...manifest, layers: [{ ...manifest.layers[0]!, chunks: other.layers[0]!.chunks }] }
  assert.ok(!isRootfsOf(forged, image))
})
