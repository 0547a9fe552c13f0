import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { encodeBlobMap, parseBlobMap, type BlobMap } from '../../../protocol/blob-map.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import type { LayerIndex } from '../../../protocol/layer-index.ts'
import { Checkpointer } from '../../../node/image/checkpointer.ts'
import { decompress } from '../../../node/image/decompress.ts'
import { LayerIndexer } from '../../../node/image/layer-indexer.ts'
import { chunksOf, decodeSpan, spanOf, tarOf } from '../../../node/image/span.ts'
import { createRandom } from '../../random.ts'
import { temporaryDirectory } from '../../temporary.ts'

/** A tar of small files, large ones, empty ones and ones with holes. */
function makeTar(t: TestContext): Buffer {
  const directory = temporaryDirectory(t)
  const random = createRandom(31)
  mkdirSync(join(directory, 'tree/sub'), { recursive: true })
  const text = execFileSync('sh', ['-c', 'cat /usr/bin/*config* /etc/*.conf 2>/dev/null | head -c 900000'])
  for (let i = 0; i < 250; i++) {
    const at = random.below(text.length)
    writeFileSync(join(directory, 'tree/sub', `file-${i}`), i % 5 === 0 ? random.bytes(random.below(40_000)) : text.subarray(at, at + random.below(20_000)))
  }
  writeFileSync(join(directory, 'tree/big'), random.bytes(2_500_000))
  execFileSync('sh', ['-c', `truncate -s 30M sparse && for i in 1 5 9 27; do printf data | dd of=sparse bs=1 seek=\${i}000001 conv=notrunc status=none; done`], { cwd: join(directory, 'tree') })
  return execFileSync('tar', ['--format=pax', '-S', '--sort=name', '-C', join(directory, 'tree'), '-cf', '-', '.'], { maxBuffer: 2 ** 28 })
}

interface Indexed {
  index: LayerIndex
  map: BlobMap
  blob: Buffer
  chunks: Map<Digest, Uint8Array>
}

async function indexBlob(tar: Buffer, blob: Buffer, spacingBytes: number): Promise<Indexed> {
  const chunks = new Map<Digest, Uint8Array>()
  const sink = { put: async (digest: Digest, bytes: Uint8Array): Promise<void> => void chunks.set(digest, bytes) }
  const indexer = new LayerIndexer(sink)
  const checkpointer = new Checkpointer({ sink, pieces: indexer.pieces }, { spacingBytes })
  const pieces = async function* (): AsyncGenerator<Buffer> {
    for (let at = 0; at < blob.length; at += 50_000) yield Buffer.from(blob.subarray(at, at + 50_000))
  }
  for await (const bytes of decompress(pieces(), checkpointer)) {
    checkpointer.output(bytes)
    await indexer.push(bytes)
  }
  const index = await indexer.finish()
  const map = {
    ...(await checkpointer.finish()),
    digest: digestOf(blob),
    diffId: index.diffId,
    sizeBytes: blob.length,
    tarBytes: tar.length,
    pieces: indexer.pieces,
  }
  return { index, map: parseBlobMap(encodeBlobMap(map)), blob, chunks }
}

const half = (tar: Buffer): [Buffer, Buffer] => [tar.subarray(0, tar.length >> 1), tar.subarray(tar.length >> 1)]
const frames = (tar: Buffer, size: number, compress: (bytes: Buffer) => Buffer): Buffer =>
  Buffer.concat(Array.from({ length: Math.ceil(tar.length / size) }, (_, i) => compress(tar.subarray(i * size, (i + 1) * size))))
const blobs: [string, (tar: Buffer) => Buffer][] = [
  ['gzip', (tar) => gzipSync(tar)],
  ['gzip of small blocks', (tar) => gzipSync(tar, { memLevel: 1 })],
  ['gzip in two members', (tar) => Buffer.concat(half(tar).map((part) => gzipSync(part)))],
  ['gzip in many members', (tar) => frames(tar, 30_000, gzipSync)],
  ['one zstd frame', (tar) => zstdCompressSync(tar)],
  ['many zstd frames', (tar) => frames(tar, 100_000, zstdCompressSync)],
  ['plain tar', (tar) => tar],
]
for (const [name, compress] of blobs) {
  test(`every chunk of a layer can be read alone, in any order: ${name}`, async (t) => {
    const tar = makeTar(t)
    const { index, map, blob, chunks } = await indexBlob(tar, compress(tar), 256 * 1024)
    if (name !== 'one zstd frame' && name !== 'plain tar') assert.ok(map.checkpoints.length > 5, `${map.checkpoints.length} checkpoints`)
    const random = createRandom(5)
    const order = Array.from({ length: index.chunks.count }, (_, i) => i).sort(() => random.below(3) - 1)
    let read = 0
    for (const i of order) {
      const wanted = tarOf(map, index.chunks, i)
      if (wanted === undefined) continue
      const span = spanOf(map, wanted.tarStart, wanted.tarEnd)
      read += span.end - span.start
      const { window } = span.checkpoint
      const windowChunk = window.lengthBytes === 0 ? -1 : map.windows.indexOf(window.offset)
      const windowBytes = windowChunk < 0 ? Buffer.alloc(0) : chunks.get(map.windows.digestAt(windowChunk))!.subarray(window.offset - map.windows.offsets[windowChunk]!).subarray(0, window.lengthBytes)
      const decoded = await decodeSpan(map, span, blob.subarray(span.start, span.end), windowBytes)
      assert.ok(decoded.equals(tar.subarray(span.tarStart, span.tarEnd)))
      const found = [...chunksOf(map, index.chunks, decoded, span.tarStart)]
      assert.ok(found.some((chunk) => chunk.index === i), `chunk ${i} is not in its own span`)
      for (const { index: at, bytes } of found) assert.equal(digestOf(bytes), index.chunks.digestAt(at))
    }
    if (name === 'gzip') assert.ok(read < 6 * blob.length, `${read} bytes read for ${blob.length}`)
  })
}

test('a whole tar has all chunks, zero ones too', async (t) => {
  const tar = makeTar(t)
  const { index, map } = await indexBlob(tar, tar, 1)
  assert.deepEqual([...chunksOf(map, index.chunks, tar, 0)].map((chunk) => chunk.index), Array.from({ length: index.chunks.count }, (_, i) => i))
})

test('bytes that have changed do not decode to a span, or not to its chunks', async (t) => {
  const tar = makeTar(t)
  const { index, map, blob } = await indexBlob(tar, gzipSync(tar), 256 * 1024)
  const random = createRandom(8)
  for (let round = 0; round < 30; round++) {
    const span = spanOf(map, 0, 1000)
    const damaged = Buffer.from(blob.subarray(span.start, round % 3 === 0 ? random.below(span.end) : span.end))
    if (damaged.length > 0) damaged[random.below(damaged.length)]! ^= 1 << random.below(8)
    try {
      const decoded = await decodeSpan(map, span, damaged, Buffer.alloc(0))
      for (const { index: at, bytes } of chunksOf(map, index.chunks, decoded, 0)) {
        if (digestOf(bytes) !== index.chunks.digestAt(at)) throw new Error('another chunk')
      }
    } catch (error) {
      assert.ok(isP2pfsError(error, 'invalid') || (error as Error).message === 'another chunk', String(error))
    }
  }
})
