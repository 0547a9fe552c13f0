import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { encodeLayerIndex, type LayerIndex } from '../../../protocol/layer-index.ts'
import { importLayer } from '../../../node/rootfs/layer-import.ts'
import { createRandom } from '../../support/random.ts'
import { writeTar, type TarEntry } from '../../support/tar-writer.ts'

const { signal } = new AbortController()

/** Keeps chunks. */
class MapSink {
  readonly chunks = new Map<Digest, Uint8Array>()

  put = async (digest: Digest, bytes: Uint8Array): Promise<void> => {
    assert.equal(digestOf(bytes), digest)
    this.chunks.set(digest, bytes)
  }
}

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function importTar(
  tar: Buffer,
  { compress = (bytes: Buffer): Buffer => bytes, size = 64 * 1024, sink = new MapSink() } = {},
): Promise<{ index: LayerIndex; sink: MapSink }> {
  const bytes = compress(tar)
  const layer = { digest: digestOf(bytes), diffId: digestOf(tar) }
  const { index } = await importLayer(pieces(bytes, size), layer, sink, { signal })
  return { index, sink }
}

/** Files of random bytes of up to `maxBytes`. */
function randomFiles(count: number, maxBytes: number): TarEntry[] {
  const random = createRandom(count)
  return Array.from({ length: count }, (_, i) => ({
    path: `sub/file-${String(i).padStart(4, '0')}`,
    type: 'file',
    content: random.bytes(random.below(maxBytes)),
  }))
}

test('the index depends on the tar alone, not on its compression or on the pieces in which it comes', async () => {
  const tar = writeTar([
    ...randomFiles(40, 30_000),
    { path: 'big', type: 'file', content: createRandom(3).bytes(900_000) },
    { path: 'link', type: 'symlink', linkTarget: 'big' },
    {
      path: 'sparse',
      type: 'file',
      sparse: { sizeBytes: 5_000_000, pieces: [{ offset: 3_000_001, bytes: Buffer.from('x') }] },
    },
  ])
  const half = Math.floor(tar.length / 2)
  const { index } = await importTar(tar)
  assert.ok(index.chunks.count > 5)
  for (let i = 0; i < index.chunks.count; i++) assert.ok(index.chunks.lengthAt(i) <= 2 ** 20)
  const others = [
    await importTar(tar, { compress: gzipSync, size: 1000 }),
    await importTar(tar, {
      compress: (bytes) => Buffer.concat([gzipSync(bytes.subarray(0, half)), gzipSync(bytes.subarray(half))]),
    }),
    await importTar(tar, { compress: zstdCompressSync }),
    await importTar(tar, {
      compress: (bytes) =>
        Buffer.concat([zstdCompressSync(bytes.subarray(0, half)), zstdCompressSync(bytes.subarray(half))]),
      size: 777,
    }),
  ]
  for (const other of others) {
    assert.deepEqual(encodeLayerIndex(other.index), encodeLayerIndex(index))
    // Windows of gzip are chunks besides.
    for (let i = 0; i < index.chunks.count; i++) assert.ok(other.sink.chunks.has(index.chunks.digestAt(i)))
  }
})

test('an added file changes the chunk that it is in, and not the chunks behind it', async () => {
  const files = randomFiles(300, 20_000)
  const before = await importTar(writeTar(files))
  const added: TarEntry = { path: 'sub/file-0100a', type: 'file', content: createRandom(9).bytes(10_000) }
  const after = await importTar(writeTar(files.toSpliced(101, 0, added)))
  const fresh = [...after.sink.chunks.keys()].filter((digest) => !before.sink.chunks.has(digest))
  assert.ok(before.index.chunks.count >= 20)
  assert.ok(fresh.length <= 3, `${fresh.length} of ${after.index.chunks.count} chunks are new`)
})

const bad: [string, (tar: Buffer) => { bytes: Buffer; diffId?: Digest; digest?: Digest }, RegExp][] = [
  ['a tar cut short', (tar) => ({ bytes: tar.subarray(0, tar.length / 4) }), /cut short/],
  [
    'a gzip cut short',
    (tar) => ({ bytes: gzipSync(tar).subarray(0, 1000), diffId: digestOf(tar) }),
    /damaged or cut short/,
  ],
  [
    'a damaged gzip',
    (tar) => ({ bytes: Buffer.from(gzipSync(tar)).fill(0x55, 500, 600), diffId: digestOf(tar) }),
    /damaged or cut short/,
  ],
  [
    'a zstd cut short',
    (tar) => ({ bytes: zstdCompressSync(tar).subarray(0, 1000), diffId: digestOf(tar) }),
    /damaged or cut short/,
  ],
  ['another digest', (tar) => ({ bytes: tar, digest: digestOf(Buffer.from('x')) }), /another digest/],
  ['another diff id', (tar) => ({ bytes: gzipSync(tar), diffId: digestOf(Buffer.from('x')) }), /image config says/],
  ['no tar at all', () => ({ bytes: Buffer.alloc(4096, 'x') }), /not an octal number|checksum/],
]
for (const [what, make, pattern] of bad) {
  test(`${what} is refused, naming the layer`, async () => {
    const tar = writeTar([{ path: 'file', type: 'file', content: createRandom(1).bytes(100_000) }])
    const { bytes, diffId = digestOf(bytes), digest = digestOf(bytes) } = make(tar)
    const importing = importLayer(pieces(bytes, 10_000), { digest, diffId }, new MapSink(), { signal })
    await assert.rejects(
      importing,
      (error) => isP2pfsError(error, 'invalid') && pattern.test(error.message) && error.message.includes(digest),
    )
  })
}

test('a path that leaves the image is refused, naming the entry', async () => {
  await assert.rejects(
    importTar(writeTar([{ path: '../outside', type: 'file' }])),
    (error) => isP2pfsError(error, 'invalid') && error.message.includes('"../outside"'),
  )
})

test('a failing store ends the import with its error, and an abort does too', async () => {
  const tar = writeTar(randomFiles(10, 20_000))
  const layer = { digest: digestOf(tar), diffId: digestOf(tar) }
  const full = { put: async (): Promise<void> => await Promise.reject(new Error('disk full')) }
  await assert.rejects(importLayer(pieces(tar, 5000), layer, full, { signal }), /disk full/)
  const abort = new AbortController()
  const stuck = { put: async (): Promise<void> => await new Promise(() => setImmediate(() => abort.abort())) }
  await assert.rejects(importLayer(pieces(tar, 5000), layer, stuck, { signal: abort.signal }), { name: 'AbortError' })
})
