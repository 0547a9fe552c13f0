import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import type { LayerEntry, LayerIndex } from '../../../protocol/layer-index.ts'
import { importLayer } from '../../../node/rootfs/layer-import.ts'
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const { signal } = new AbortController()

/** Keeps chunks, and puts a region together from them. */
class MapSink {
  readonly chunks = new Map<Digest, Uint8Array>()

  put = async (digest: Digest, bytes: Uint8Array): Promise<void> => {
    assert.equal(digestOf(bytes), digest)
    this.chunks.set(digest, bytes)
  }

  region({ chunks }: LayerIndex): Buffer {
    return Buffer.concat(Array.from({ length: chunks.count }, (_, i) => this.chunks.get(chunks.digestAt(i))!))
  }

  content(index: LayerIndex, { sizeBytes, extents }: LayerEntry): Buffer {
    const region = this.region(index)
    const content = Buffer.alloc(sizeBytes)
    for (const { fileOffset, lengthBytes, segmentOffset } of extents)
      region.copy(content, fileOffset, segmentOffset, segmentOffset + lengthBytes)
    return content
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

/** A tree with a bit of everything that tar can say. */
function makeTree(directory: string): void {
  const random = createRandom(3)
  mkdirSync(join(directory, 'tree/sub'), { recursive: true })
  for (let i = 0; i < 120; i++)
    writeFileSync(join(directory, 'tree/sub', `file-${i}`), random.bytes(random.below(30_000)))
  writeFileSync(join(directory, 'tree/big'), random.bytes(2_500_000))
  writeFileSync(join(directory, 'tree/empty'), '')
  writeFileSync(join(directory, 'tree', 'n'.repeat(200)), 'long name')
  const shell = `cd tree && ln sub/file-1 hard && ln -s ${'t'.repeat(150)} soft && mkfifo pipe && mknod null c 1 3 && chmod 4755 hard && chown 3000000:4000000 empty &&
    setfattr -n user.note -v value empty && touch -d @1.123456789 empty && touch -d '1960-01-01 00:00:00.5 UTC' soft -h &&
    truncate -s 50M sparse && printf data | dd of=sparse bs=1 seek=10000001 conv=notrunc status=none && printf end | dd of=sparse bs=1 seek=30000000 conv=notrunc status=none`
  execFileSync('sh', ['-c', shell], { cwd: directory })
}

const formats: [string, string[]][] = [
  [
    'ustar',
    ['--format=ustar', '--exclude=./sparse', `--exclude=./${'n'.repeat(200)}`, '--exclude=./soft', '--exclude=./empty'],
  ],
  ['gnu', ['--format=gnu', '-S']],
  ['pax, sparse 1.0', ['--format=pax', '-S', '--xattrs', '--sparse-version=1.0']],
  ['pax, sparse 0.1', ['--format=pax', '-S', '--xattrs', '--sparse-version=0.1']],
  ['pax, sparse 0.0', ['--format=pax', '-S', '--xattrs', '--sparse-version=0.0']],
]

for (const [name, options] of formats) {
  test(`a tar of format ${name} is read as the tree that it was made of`, async (t) => {
    const directory = temporaryDirectory(t)
    makeTree(directory)
    const tar = execFileSync('tar', [...options, '-C', join(directory, 'tree'), '-cf', '-', '.'], {
      maxBuffer: 2 ** 28,
    })
    const { index, sink } = await importTar(tar)
    const entries = new Map(index.entries.map((entry) => [entry.path, entry]))
    assert.equal(index.tarBytes, tar.length)
    for (let i = 0; i < 120; i++) {
      const entry = entries.get(`sub/file-${i}`)!
      if (entry.type === 'file')
        assert.deepEqual(sink.content(index, entry), readFileSync(join(directory, 'tree/sub', `file-${i}`)))
    }
    const links = [entries.get('hard')!, entries.get('sub/file-1')!]
    assert.deepEqual(links.map(({ type }) => type).toSorted(), ['file', 'hardlink'])
    assert.equal(entries.get('hard')!.mode, 0o4755)
    assert.deepEqual(sink.content(index, entries.get('big')!), readFileSync(join(directory, 'tree/big')))
    assert.equal(entries.get('pipe')!.type, 'fifo')
    assert.deepEqual(entries.get('null')!.device, { major: 1, minor: 3 })
    if (name === 'ustar') return
    assert.equal(entries.get('soft')!.linkTarget, 't'.repeat(150))
    assert.ok(entries.has('n'.repeat(200)))
    const sparse = entries.get('sparse')!
    assert.equal(sparse.sizeBytes, 50 * 2 ** 20)
    assert.deepEqual(sink.content(index, sparse), readFileSync(join(directory, 'tree/sparse')))
    assert.ok(sparse.extents.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0) < 200_000)
    const empty = entries.get('empty')!
    assert.deepEqual([empty.uid, empty.gid, empty.extents], [3_000_000, 4_000_000, []])
    if (name === 'gnu') return
    assert.deepEqual(empty.mtime, { seconds: 1, nanoseconds: 123_456_789 })
    assert.deepEqual(entries.get('soft')!.mtime, { seconds: -315_619_200, nanoseconds: 500_000_000 })
    assert.deepEqual(empty.xattrs, [{ name: 'user.note', value: Uint8Array.from(Buffer.from('value')) }])
  })
}

test('the index depends on the tar alone: not on its compression, nor on how it comes', async (t) => {
  const directory = temporaryDirectory(t)
  makeTree(directory)
  const tar = execFileSync('tar', ['--format=pax', '-S', '-C', join(directory, 'tree'), '-cf', '-', '.'], {
    maxBuffer: 2 ** 28,
  })
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
    assert.deepEqual(other.index, index)
    // Windows of gzip are chunks besides.
    for (let i = 0; i < index.chunks.count; i++) assert.ok(other.sink.chunks.has(index.chunks.digestAt(i)))
  }
})

test('a file added changes the chunk that it is in, and not all that follow', async (t) => {
  const directory = temporaryDirectory(t)
  const random = createRandom(9)
  mkdirSync(join(directory, 'tree'))
  for (let i = 0; i < 600; i++)
    writeFileSync(join(directory, 'tree', `file-${String(i).padStart(4, '0')}`), random.bytes(random.below(20_000)))
  const pack = (): Buffer =>
    execFileSync('tar', ['--sort=name', '--mtime=@0', '-C', join(directory, 'tree'), '-cf', '-', '.'], {
      maxBuffer: 2 ** 28,
    })
  const before = await importTar(pack())
  writeFileSync(join(directory, 'tree/file-0100a'), random.bytes(10_000))
  const after = await importTar(pack())
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
  test(`${what} is refused, naming the layer`, async (t) => {
    const directory = temporaryDirectory(t)
    writeFileSync(join(directory, 'file'), createRandom(1).bytes(100_000))
    const {
      bytes,
      diffId = digestOf(bytes),
      digest = digestOf(bytes),
    } = make(execFileSync('tar', ['-C', directory, '-cf', '-', 'file']))
    const importing = importLayer(pieces(bytes, 10_000), { digest, diffId }, new MapSink(), { signal })
    await assert.rejects(
      importing,
      (error) => isP2pfsError(error, 'invalid') && pattern.test(error.message) && error.message.includes(digest),
    )
  })
}

test('a path that leaves the image is refused, naming the entry', async (t) => {
  const directory = temporaryDirectory(t)
  writeFileSync(join(directory, 'file'), 'x')
  const tar = execFileSync('tar', ['-C', directory, '--transform=s,file,../outside,', '-P', '-cf', '-', 'file'])
  await assert.rejects(
    importTar(tar),
    (error) => isP2pfsError(error, 'invalid') && error.message.includes('"../outside"'),
  )
})

test('a store that fails ends the import with its error; so does an abort', async () => {
  const tar = execFileSync('tar', ['-C', '/usr/bin', '-cf', '-', 'env'])
  const layer = { digest: digestOf(tar), diffId: digestOf(tar) }
  const full = { put: async (): Promise<void> => await Promise.reject(new Error('disk full')) }
  await assert.rejects(importLayer(pieces(tar, 5000), layer, full, { signal }), /disk full/)
  const abort = new AbortController()
  const stuck = { put: async (): Promise<void> => await new Promise(() => setImmediate(() => abort.abort())) }
  await assert.rejects(importLayer(pieces(tar, 5000), layer, stuck, { signal: abort.signal }), { name: 'AbortError' })
})
