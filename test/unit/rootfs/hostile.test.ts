import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { encodeHeader } from '../../support/tar-header.ts'
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
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { openCatalog, openChunkStore } from '../../support/stores.ts'
import { Inventory } from '../../../node/store/inventory.ts'
import { BlobMaps } from '../../../node/store/blob-maps.ts'
import { tablesOf } from '../../../node/model/rootfs-chunks.ts'

const { signal } = new AbortController()
const mebibyte = 1024 * 1024
const smallLimits: LayerLimits = { maxLayerBytes: 16 * mebibyte, maxMetadataBytes: mebibyte }
/** Far more than any case takes, and far less than a successful attack. Milliseconds. */
const maxMs = 60_000
const log = createLog('error', () => undefined)

type Fields = Partial<Parameters<typeof encodeHeader>[0]>
const plain = {
  typeflag: '0',
  sizeBytes: 0,
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtimeSeconds: 0,
  linkTarget: '',
  device: { major: 0, minor: 0 },
}

/** A member of a tar. Its header may have another size than its content. */
function member(path: string, content: Buffer | string = '', fields: Fields = {}): Buffer {
  const bytes = Buffer.from(content)
  return Buffer.concat([
    encodeHeader({ ...plain, path, sizeBytes: bytes.length, ...fields }, 'gnu'),
    bytes,
    Buffer.alloc((512 - (bytes.length % 512)) % 512),
  ])
}

/** A header with one field set to other bytes, and with the right checksum. */
function forged(header: Buffer, offset: number, value: Buffer): Buffer {
  const changed = Buffer.from(header)
  value.copy(changed, offset)
  changed.fill(0x20, 148, 156)
  const sum = changed.subarray(0, 512).reduce((total, byte) => total + byte, 0)
  changed.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return changed
}

function pax(records: Record<string, string>): Buffer {
  const lines = Object.entries(records).map(([key, value]) => {
    const rest = Buffer.byteLength(` ${key}=${value}\n`, 'latin1')
    let length = rest
    while (String(length).length + rest !== length) length = String(length).length + rest
    return `${length} ${key}=${value}\n`
  })
  return member('PaxHeaders/x', Buffer.from(lines.join(''), 'latin1'), { typeflag: 'x' })
}

const end = Buffer.alloc(1024)
/** Stands before the bad entry, so that the store has chunks when that is read. */
const good = member('good', createRandom(5).bytes(mebibyte))
const tarOf = (...members: Buffer[]): Buffer => Buffer.concat([good, ...members, end])

interface HostileLayer {
  blob: Buffer
  diffId?: Digest
  digest?: Digest
  sizeBytes?: number
}

interface Attack {
  layers: HostileLayer[]
  limits?: LayerLimits
  entry?: string
  message: RegExp
}

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

const attack = (tar: Buffer, message: RegExp, entry?: string, more: Partial<Attack> = {}): Attack => ({
  layers: [{ blob: tar }],
  message,
  ...(entry === undefined ? {} : { entry }),
  ...more,
})
const bigFile = createRandom(6).bytes(mebibyte)
const whole = tarOf(member('big', bigFile))
const manyTimes = (bytes: Buffer, times: number): Buffer => Buffer.concat(Array.from({ length: times }, () => bytes))
/** A sparse file with one byte of data at the start of each of `count` blocks. */
const combed = (count: number): Buffer => {
  const map = Array.from({ length: count }, (_, i) => `${i * 4096},1`).join(',')
  return Buffer.concat([
    pax({ 'GNU.sparse.size': String(count * 4096), 'GNU.sparse.name': 'combed', 'GNU.sparse.map': map }),
    member('x', 'd'.repeat(count)),
  ])
}

const attacks: Record<string, () => Attack> = {
  'a path that leaves the image': () =>
    attack(tarOf(member('a/../../etc/passwd', 'x')), /leaves the image/, 'a/../../etc/passwd'),
  'a hard link that leaves the image': () =>
    attack(tarOf(member('link', '', { typeflag: '1', linkTarget: '../../etc/shadow' })), /leaves the image/, 'link'),
  'a loop of symbolic links': () =>
    attack(
      tarOf(
        member('a', '', { typeflag: '2', linkTarget: 'b' }),
        member('b', '', { typeflag: '2', linkTarget: 'a' }),
        member('a/file', 'x'),
      ),
      /too many symbolic links/,
      'a/file',
    ),
  'a hard link to itself': () =>
    attack(tarOf(member('self', '', { typeflag: '1', linkTarget: 'self' })), /not there/, 'self'),
  'hard links in a circle': () =>
    attack(
      tarOf(
        member('one', '', { typeflag: '1', linkTarget: 'two' }),
        member('two', '', { typeflag: '1', linkTarget: 'one' }),
      ),
      /not there/,
      'one',
    ),
  'a plain tar cut short': () => attack(whole.subarray(0, whole.length - mebibyte / 2), /cut short/, 'big'),
  'a gzip cut short': () => {
    const blob = gzipSync(whole)
    return {
      layers: [{ blob: blob.subarray(0, blob.length - mebibyte / 2), diffId: digestOf(whole) }],
      entry: 'big',
      message: /damaged or cut short/,
    }
  },
  'a zstd cut short': () => {
    const blob = zstdCompressSync(whole)
    return {
      layers: [{ blob: blob.subarray(0, blob.length - mebibyte / 2), diffId: digestOf(whole) }],
      entry: 'big',
      message: /damaged or cut short/,
    }
  },
  'a damaged gzip': () => ({
    layers: [{ blob: gzipSync(whole).fill(0x55, 1.5 * mebibyte, 1.5 * mebibyte + 70_000), diffId: digestOf(whole) }],
    entry: 'big',
    message: /damaged or cut short/,
  }),
  'a damaged zstd': () => ({
    layers: [
      { blob: zstdCompressSync(whole).fill(0x55, 1.5 * mebibyte, 1.5 * mebibyte + 200_000), diffId: digestOf(whole) },
    ],
    entry: 'big',
    message: /damaged or cut short|another digest|uncompressed it is/,
  }),
  'a damaged header': () =>
    attack(
      tarOf(member('first', 'x'), Buffer.from(member('second', 'x')).fill(0x41, 100, 108)),
      /checksum|octal/,
      'second',
    ),
  'a size beyond the tar': () =>
    attack(Buffer.concat([good, member('liar', 'x', { sizeBytes: 10 * mebibyte })]), /cut short/, 'liar'),
  'a negative size': () =>
    attack(
      tarOf(forged(member('negative', 'x'), 124, Buffer.from('ffffffffffffffffffffffff', 'hex'))),
      /negative/,
      'negative',
    ),
  'a size of more than 2^53': () =>
    attack(
      tarOf(forged(member('huge', 'x'), 124, Buffer.from('800000007fffffffffffffff', 'hex'))),
      /too large/,
      'huge',
    ),
  'a size of a petabyte': () =>
    attack(tarOf(member('vast', 'x', { sizeBytes: 2 ** 50 })), /larger than 16MiB.*--max-layer-size/, 'vast', {
      limits: smallLimits,
    }),
  'a PAX size that is no number': () =>
    attack(tarOf(pax({ size: '99999999999999999999' }), member('paxed', 'x')), /PAX size is out of range/, 'paxed'),
  'a gzip bomb': () => {
    const tar = tarOf()
    const bomb = gzipSync(Buffer.alloc(16 * mebibyte), { level: 9 })
    return {
      layers: [{ blob: Buffer.concat([gzipSync(tar), manyTimes(bomb, 4096)]), diffId: digestOf(tar) }],
      limits: smallLimits,
      message: /larger than 16MiB.*--max-layer-size/,
    }
  },
  'a zstd bomb': () => {
    const tar = tarOf()
    const bomb = zstdCompressSync(Buffer.alloc(16 * mebibyte))
    return {
      layers: [{ blob: Buffer.concat([zstdCompressSync(tar), manyTimes(bomb, 4096)]), diffId: digestOf(tar) }],
      limits: smallLimits,
      message: /larger than 16MiB.*--max-layer-size/,
    }
  },
  'a bomb in one entry': () => {
    const head = Buffer.concat([good, member('bomb', '', { sizeBytes: 2 ** 36 })])
    return {
      layers: [
        {
          blob: Buffer.concat([gzipSync(head), manyTimes(gzipSync(Buffer.alloc(16 * mebibyte)), 4096)]),
          diffId: digestOf(head),
        },
      ],
      limits: smallLimits,
      entry: 'bomb',
      message: /larger than 16MiB/,
    }
  },
  'endless attributes': () => {
    const records = Object.fromEntries(
      Array.from({ length: 3000 }, (_, i) => [`SCHILY.xattr.user.${i}`, 'v'.repeat(200)]),
    )
    return attack(
      tarOf(...Array.from({ length: 8 }, (_, i) => Buffer.concat([pax(records), member(`attributed-${i}`)]))),
      /more names, links, attributes and entries than 1MiB.*--max-layer-metadata/,
      'attributed-1',
      { limits: smallLimits },
    )
  },
  'an attribute list of gigabytes': () =>
    attack(
      tarOf(forged(pax({ 'SCHILY.xattr.user.x': 'v' }), 124, Buffer.from('77777777777 '))),
      /extended header/,
      'PaxHeaders/x',
    ),
  'endless entries': () =>
    attack(
      tarOf(...Array.from({ length: 10_000 }, (_, i) => member(`entry-${i}`))),
      /--max-layer-metadata/,
      undefined,
      { limits: smallLimits },
    ),
  'a sparse map that leaves its file': () =>
    attack(
      tarOf(
        pax({ 'GNU.sparse.size': '4096', 'GNU.sparse.name': 'sparse', 'GNU.sparse.map': '0,1,999999999,1' }),
        member('x', 'ab'),
      ),
      /sparse map/,
      'sparse',
    ),
  'a sparse map that runs backwards': () =>
    attack(
      tarOf(
        pax({ 'GNU.sparse.size': '9000', 'GNU.sparse.name': 'sparse', 'GNU.sparse.map': '4096,1,0,1' }),
        member('x', 'ab'),
      ),
      /sparse map/,
      'sparse',
    ),
  'a sparse map of more data than there is': () =>
    attack(
      tarOf(
        pax({ 'GNU.sparse.size': '9000', 'GNU.sparse.name': 'sparse', 'GNU.sparse.map': '0,5000' }),
        member('x', 'ab'),
      ),
      /sparse map/,
      'sparse',
    ),
  'a sparse map that is no list of numbers': () =>
    attack(
      tarOf(
        pax({ 'GNU.sparse.size': '9000', 'GNU.sparse.name': 'sparse', 'GNU.sparse.map': '0,many' }),
        member('x', 'ab'),
      ),
      /not a number|sparse map/,
    ),
  'a sparse file whose data is far more than the tar': () =>
    attack(tarOf(combed(8000)), /data of its files, is larger than 16MiB/, 'combed', { limits: smallLimits }),
  'another digest': () => ({
    layers: [{ blob: whole, digest: digestOf(Buffer.from('x')) }],
    message: /another digest/,
  }),
  'another diff id': () => ({
    layers: [{ blob: gzipSync(whole), diffId: digestOf(Buffer.from('x')) }],
    message: /image config says/,
  }),
  'a blob longer than declared': () => ({
    layers: [{ blob: whole, sizeBytes: whole.length - 100_000 }],
    message: /longer than its/,
  }),
  'a blob shorter than declared': () => ({
    layers: [{ blob: whole, sizeBytes: whole.length + 1 }],
    message: /has \d+ bytes, not/,
  }),
  'a good layer below a bad one': () => ({
    layers: [{ blob: whole }, { blob: tarOf(member('../x')) }],
    entry: '../x',
    message: /leaves the image/,
  }),
  'no tar at all': () => attack(createRandom(8).bytes(100_000), /checksum|octal/),
}

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
