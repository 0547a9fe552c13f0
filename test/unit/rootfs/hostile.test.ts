import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { gzipSync } from 'node:zlib'
import { Importer } from '../../../node/images/importer.ts'
import { LayerIndexes } from '../../../node/layers/layer-indexes.ts'
import { LayerReader } from '../../../node/layers/layer-reader.ts'
import { WholeReads } from '../../../node/layers/whole-reads.ts'
import { LayerTransactions } from '../../../node/layers/layer-transactions.ts'
import { SegmentStreams } from '../../../node/layers/segment-streams.ts'
import type { LayerLimits } from '../../../node/rootfs/layer-limits.ts'
import { createLog } from '../../../node/base/log.ts'
import { createImageSource } from '../../../node/registry/image-source.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import type { Catalog } from '../../../node/store/catalog.ts'
import type { ChunkStore } from '../../../node/store/chunk-store.ts'
import { ImportTransactions } from '../../../node/store/import-transaction.ts'
import { digestHex, digestOf, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import type { RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { openCatalog, openChunkStore } from '../../support/stores.ts'
import { Inventory } from '../../../node/store/inventory.ts'
import { BlobMaps } from '../../../node/store/blob-maps.ts'
import { tablesOf } from '../../../node/model/rootfs-chunks.ts'
import {
  attacks,
  bigFile,
  end,
  good,
  mebibyte,
  member,
  smallLimits,
  tarOf,
  whole,
  type HostileLayer,
} from './hostile-layers.ts'

const { signal } = new AbortController()
/** Far more than any case takes, and far less than a successful attack. Milliseconds. */
const maxMs = 60_000
const log = createLog('error', () => undefined)

/** Writes an image layout as a hostile registry could serve it. */
function writeLayout(directory: string, layers: readonly HostileLayer[], { config = '' } = {}): void {
  const blobs = join(directory, 'blobs/sha256')
  mkdirSync(blobs, { recursive: true })
  const add = (bytes: Buffer, { digest = digestOf(bytes), size = bytes.length, mediaType = '' } = {}): object => {
    writeFileSync(join(blobs, digestHex(digest)), bytes)
    return { mediaType, digest, size }
  }
  const diffIds = layers.map(({ blob, diffId = digestOf(blob) }) => diffId)
  const manifest = {
    schemaVersion: 2,
    config: add(
      Buffer.from(
        config ||
          JSON.stringify({
            os: 'linux',
            architecture: 'amd64',
            config: {},
            rootfs: { type: 'layers', diff_ids: diffIds },
          }),
      ),
    ),
    layers: layers.map(({ blob, digest = digestOf(blob), sizeBytes = blob.length }) =>
      add(blob, { digest, size: sizeBytes }),
    ),
  }
  writeFileSync(
    join(directory, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [add(Buffer.from(JSON.stringify(manifest)))] }),
  )
}

/** The parts of a host that an import needs. */
async function openHost(
  t: TestContext,
  limits: LayerLimits,
): Promise<{
  store: ChunkStore
  catalog: Catalog
  importer: Importer
  streams: SegmentStreams
  import: (layout: string) => Promise<RootfsManifest>
  know: (manifest: RootfsManifest) => void
  files: () => string[]
  layers: () => Promise<string>
}> {
  const directory = temporaryDirectory(t)
  const store = await openChunkStore(join(directory, 'chunks'))
  const catalog = await openCatalog(t, join(directory, 'catalog'))
  const nothing = (): void => undefined
  const region = { announce: nothing, announceChunks: nothing, withdrawChunks: nothing, forget: nothing }
  const inventory = new Inventory({ chunks: store, region })
  const registry = createImageSource({ insecureRegistries: [], userAgent: 'test', log })
  const chunks = new ImportTransactions({ inventory })
  const nobody = async (): Promise<undefined> => await Promise.resolve(undefined)
  const indexes = new LayerIndexes({
    catalog,
    region: { fetchLayerIndex: nobody },
    answers: { layerIndex: nobody },
    trust: { trustsMembers: true },
  })
  const transactions = new LayerTransactions({ catalog, transactions: chunks, inventory })
  const blobMaps = new BlobMaps({ catalog, inventory })
  const reader = new LayerReader({ registry, indexes, blobMaps, inventory, limits })
  const published = { layerIndexes: nobody, metadata: async () => false }
  const importer = new Importer({ registry, reader, indexes, transactions, published, limits })
  const streams = new SegmentStreams({
    catalog,
    reader,
    indexes,
    transactions,
    published,
    wholeReads: new WholeReads(),
    inventory,
  })
  return {
    store,
    catalog,
    importer,
    streams,
    import: async (layout) => {
      const reference = parseReference(`oci:${layout}`)
      const image = await registry.resolve(reference, 'linux/amd64', { signal })
      return (await importer.importImage(reference, image, 'ext4', { signal })).manifest
    },
    know: (manifest) => {
      for (const table of tablesOf(manifest)) inventory.track(table)
    },
    files: () =>
      readdirSync(store.directory, { recursive: true, encoding: 'utf8' })
        .filter((name) => /[0-9a-f]{64}$/.test(name))
        .toSorted(),
    layers: async () =>
      (await Promise.all([...layersSeen].map(async (diffId) => ((await catalog.hasLayer(diffId)) ? diffId : '')))).join(
        '',
      ),
  }
}

/** Diff ids of the layers of all attacks. */
const layersSeen = new Set<Digest>()

for (const [what, make] of Object.entries(attacks)) {
  test(`${what} is refused, naming layer and entry, and leaves nothing`, { timeout: maxMs }, async (t) => {
    const { layers, limits = { maxLayerBytes: 2 ** 40, maxMetadataBytes: 2 ** 26 }, entry, message } = make()
    const layout = temporaryDirectory(t)
    writeLayout(layout, layers)
    const host = await openHost(t, limits)
    for (const { blob, diffId = digestOf(blob) } of layers) layersSeen.add(diffId)
    await host.store.put(digestOf(Buffer.from('kept')), Buffer.from('kept'))
    const before = host.files()
    const bad = layers.at(-1)!
    const names = [bad.digest ?? digestOf(bad.blob), bad.diffId ?? digestOf(bad.blob)]
    await assert.rejects(host.import(layout), (error) => {
      assert.ok(isP2pfsError(error, 'invalid'), String(error))
      assert.match(error.message, message)
      assert.ok(
        names.some((name) => error.message.includes(name)),
        `no layer in: ${error.message}`,
      )
      if (entry !== undefined)
        assert.ok(error.message.includes(`entry ${JSON.stringify(entry)}`), `no entry in: ${error.message}`)
      return true
    })
    assert.deepEqual(host.files(), before)
    assert.equal(await host.layers(), '')
  })
}

test('a failed import leaves the chunks of a known rootfs, and those of another import', async (t) => {
  const [layout, other] = [temporaryDirectory(t), temporaryDirectory(t)]
  const host = await openHost(t, { maxLayerBytes: 2 ** 40, maxMetadataBytes: 2 ** 26 })
  writeLayout(layout, [{ blob: Buffer.concat([good, member('../x'), end]) }])
  writeLayout(other, [{ blob: tarOf(member('fine', bigFile)) }])
  // Both import the same content at once. The good import keeps a chunk that either of them wrote.
  const [failed, manifest] = await Promise.allSettled([host.import(layout), host.import(other)])
  assert.ok(failed.status === 'rejected' && manifest.status === 'fulfilled')
  const table = manifest.value.layers[0]!.chunks
  const allThere = (): boolean =>
    Array.from({ length: table.count }, (_, i) => table.digestAt(i)).every((digest) => host.store.has(digest))
  assert.ok(allThere())
  host.know(manifest.value)
  await assert.rejects(host.import(layout), (error) => isP2pfsError(error, 'invalid'))
  assert.ok(allThere())
})

test('an import that may succeed later keeps the layers that it has read', async (t) => {
  const layout = temporaryDirectory(t)
  writeLayout(layout, [{ blob: tarOf() }, { blob: gzipSync(whole), diffId: digestOf(whole) }])
  const missing = join(layout, 'blobs/sha256', digestHex(digestOf(gzipSync(whole))))
  rmSync(missing)
  const host = await openHost(t, smallLimits)
  await assert.rejects(host.import(layout), (error) => isP2pfsError(error, 'missing'))
  writeFileSync(missing, gzipSync(whole))
  await host.import(layout)
  assert.ok(host.files().length > 4)
})

test('manifests, indexes and configs of absurd size or shape are refused early', async (t) => {
  const host = await openHost(t, smallLimits)
  const rejects = async (directory: string, message: RegExp): Promise<void> =>
    await assert.rejects(
      host.import(directory),
      (error) => isP2pfsError(error, 'invalid') && (message.test(error.message) || assert.fail(error.message)),
    )
  const empty = { blob: end }
  const long = temporaryDirectory(t)
  writeLayout(long, [empty])
  execFileSync('truncate', ['-s', '100G', join(long, 'index.json')])
  await rejects(long, /index.json has 107374182400 bytes; 4194304 is the most/)
  const pipe = temporaryDirectory(t)
  execFileSync('mkfifo', [join(pipe, 'index.json')])
  await rejects(pipe, /not a file/)
  const many = temporaryDirectory(t)
  writeLayout(
    many,
    Array.from({ length: 513 }, () => empty),
  )
  await rejects(many, /513 layers; 512 is the most/)
  const vast = temporaryDirectory(t)
  writeLayout(vast, [{ ...empty, sizeBytes: 2 ** 52 }])
  await rejects(vast, /descriptor .* is of 4503599627370496 bytes/)
  const deep = temporaryDirectory(t)
  writeLayout(deep, [empty], { config: `{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}` })
  await rejects(deep, /levels deep/)
  const large = temporaryDirectory(t)
  writeLayout(large, [empty], { config: `{"a":"${'x'.repeat(9 * mebibyte)}"}` })
  await rejects(large, /8388608 is the most/)
})
