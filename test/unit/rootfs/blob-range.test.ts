import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { constants, crc32, deflateRawSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { encodeBlobMap, parseBlobMap, type BlobMap } from '../../../protocol/blob-map.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import type { LayerIndex } from '../../../protocol/layer-index.ts'
import { Checkpointer } from '../../../node/rootfs/checkpointer.ts'
import { decompress } from '../../../node/rootfs/decompress.ts'
import { LayerIndexer } from '../../../node/rootfs/layer-indexer.ts'
import { checkpointOf, chunksOf, decodeRange, rangeOf, tarOf, type BlobRange } from '../../../node/rootfs/blob-range.ts'
import { createRandom } from '../../support/random.ts'
import { writeTar, type TarEntry } from '../../support/tar-writer.ts'

/** A tar of small files, large ones, empty ones and ones with holes. */
function makeTar(): Buffer {
  const random = createRandom(31)
  const text = execFileSync('sh', ['-c', 'cat /usr/bin/*config* /etc/*.conf 2>/dev/null | head -c 900000'])
  const files = Array.from({ length: 80 }, (_, i): TarEntry => {
    const start = random.below(text.length)
    const content =
      i % 5 === 0 ? random.bytes(random.below(40_000)) : text.subarray(start, start + random.below(20_000))
    return { path: `sub/file-${i}`, type: 'file', content }
  })
  const pieces = [1, 5, 9, 27].map((megabytes) => ({ offset: megabytes * 1e6 + 1, bytes: Buffer.from('data') }))
  return writeTar([
    ...files,
    { path: 'big', type: 'file', content: random.bytes(1_000_000) },
    { path: 'sparse', type: 'file', sparse: { sizeBytes: 30 * 2 ** 20, pieces } },
  ])
}

const tar = makeTar()

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

function windowOf(map: BlobMap, range: BlobRange, chunks: ReadonlyMap<Digest, Uint8Array>): Uint8Array {
  const { windows } = map
  const { window } = checkpointOf(map, range)
  if (window.lengthBytes === 0) return Buffer.alloc(0)
  const index = windows.indexOf(window.offset)
  const bytes = chunks.get(windows.digestAt(index))
  if (bytes === undefined) throw new P2pfsError('missing', 'no such window')
  return bytes.subarray(window.offset - windows.offsets[index]!).subarray(0, window.lengthBytes)
}

const half = (tar: Buffer): [Buffer, Buffer] => [tar.subarray(0, tar.length >> 1), tar.subarray(tar.length >> 1)]
const frames = (tar: Buffer, size: number, compress: (bytes: Buffer) => Buffer): Buffer =>
  Buffer.concat(
    Array.from({ length: Math.ceil(tar.length / size) }, (_, i) => compress(tar.subarray(i * size, (i + 1) * size))),
  )
/**
 * One member, whose parts are compressed by themselves, with the 32 KiB before them as dictionary. Each part ends with
 * an empty stored block at a byte.
 */
function pigz(tar: Buffer): Buffer {
  const partBytes = 128 * 1024
  const parts = Array.from({ length: Math.ceil(tar.length / partBytes) }, (_, i) => {
    const [from, to] = [i * partBytes, Math.min(tar.length, (i + 1) * partBytes)]
    const dictionary = tar.subarray(Math.max(0, from - 32 * 1024), from)
    return deflateRawSync(tar.subarray(from, to), {
      finishFlush: to === tar.length ? constants.Z_FINISH : constants.Z_SYNC_FLUSH,
      ...(from > 0 && { dictionary }),
    })
  })
  const trailer = Buffer.alloc(8)
  trailer.writeUInt32LE(crc32(tar), 0)
  trailer.writeUInt32LE(tar.length, 4)
  return Buffer.concat([Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]), ...parts, trailer])
}

const blobs: [string, (tar: Buffer) => Buffer][] = [
  ['gzip', (tar) => gzipSync(tar)],
  ['gzip, level 1', (tar) => gzipSync(tar, { level: 1 })],
  ['gzip, level 9', (tar) => gzipSync(tar, { level: 9 })],
  ['gzip of fixed codes', (tar) => gzipSync(tar, { strategy: constants.Z_FIXED })],
  ['gzip of stored blocks', (tar) => gzipSync(tar, { level: 0 })],
  ['gzip of small blocks', (tar) => gzipSync(tar, { memLevel: 1 })],
  ['gzip of parts with dictionaries, as pigz makes it', (tar) => pigz(tar)],
  ['gzip in two members', (tar) => Buffer.concat(half(tar).map((part) => gzipSync(part)))],
  ['gzip in many members', (tar) => frames(tar, 30_000, gzipSync)],
  ['one zstd frame', (tar) => zstdCompressSync(tar)],
  ['many zstd frames', (tar) => frames(tar, 100_000, zstdCompressSync)],
  ['plain tar', (tar) => tar],
]
for (const [name, compress] of blobs) {
  test(`every chunk of a layer can be read alone, in any order: ${name}`, async () => {
    const { index, map, blob, chunks } = await indexBlob(tar, compress(tar), 96 * 1024)
    if (name !== 'one zstd frame' && name !== 'plain tar')
      assert.ok(map.checkpoints.length > 5, `${map.checkpoints.length} checkpoints`)
    const random = createRandom(5)
    const order = Array.from({ length: index.chunks.count }, (_, i) => i).sort(() => random.below(3) - 1)
    let read = 0
    for (const i of order) {
      const wanted = tarOf(map, index.chunks, i)
      if (wanted === undefined) continue
      const range = rangeOf(map, wanted.tarStart, wanted.tarEnd)
      read += range.end - range.start
      const decoded = await decodeRange(map, range, blob.subarray(range.start, range.end), windowOf(map, range, chunks))
      assert.ok(decoded.equals(tar.subarray(range.tarStart, range.tarEnd)))
      const found = [...chunksOf(map, index.chunks, decoded, range.tarStart)]
      assert.ok(
        found.some((chunk) => chunk.index === i),
        `chunk ${i} is not in its own range`,
      )
      for (const { index: at, bytes } of found) assert.equal(digestOf(bytes), index.chunks.digestAt(at))
    }
    if (name === 'gzip') assert.ok(read < 6 * blob.length, `${read} bytes read for ${blob.length}`)
  })
}

test('a whole tar has all chunks, chunks of zeros too', async () => {
  const { index, map } = await indexBlob(tar, tar, 1)
  assert.deepEqual(
    [...chunksOf(map, index.chunks, tar, 0)].map((chunk) => chunk.index),
    Array.from({ length: index.chunks.count }, (_, i) => i),
  )
})

test('bytes that have changed do not decode to a range, or not to its chunks', async () => {
  const { index, map, blob } = await indexBlob(tar, gzipSync(tar), 256 * 1024)
  const random = createRandom(8)
  for (let round = 0; round < 30; round++) {
    const range = rangeOf(map, 0, 1000)
    const damaged = Buffer.from(blob.subarray(range.start, round % 3 === 0 ? random.below(range.end) : range.end))
    if (damaged.length > 0) damaged[random.below(damaged.length)]! ^= 1 << random.below(8)
    try {
      const decoded = await decodeRange(map, range, damaged, Buffer.alloc(0))
      for (const { index: at, bytes } of chunksOf(map, index.chunks, decoded, 0)) {
        if (digestOf(bytes) !== index.chunks.digestAt(at)) throw new Error('another chunk')
      }
    } catch (error) {
      assert.ok(isP2pfsError(error, 'invalid') || (error as Error).message === 'another chunk', String(error))
    }
  }
})

test('a damaged window is invalid, and a window that is too long is too', async () => {
  const { map, blob } = await indexBlob(tar, gzipSync(tar), 128 * 1024)
  const at = map.checkpoints.find(({ window }) => window.lengthBytes > 0)!.tarOffset
  const range = rangeOf(map, at, at + 1)
  for (const window of [
    Buffer.from('no zstd'),
    zstdCompressSync(Buffer.alloc(32 * 1024 + 1)),
    zstdCompressSync(Buffer.alloc(2 ** 26)),
  ]) {
    await assert.rejects(decodeRange(map, range, blob.subarray(range.start, range.end), window), (error) =>
      isP2pfsError(error, 'invalid'),
    )
  }
})

/** Changes numbers in a map, or bytes of its encoding. */
function spoil(map: BlobMap, random: ReturnType<typeof createRandom>): BlobMap {
  if (random.below(3) === 0) {
    const bytes = encodeBlobMap(map)
    bytes[random.below(bytes.length)]! ^= 1 << random.below(8)
    return parseBlobMap(bytes)
  }
  const checkpoints = map.checkpoints.map((checkpoint) => ({ ...checkpoint, window: { ...checkpoint.window } }))
  const stopPoints = Uint32Array.from(map.stopPoints)
  const pieces = [...map.pieces]
  const some = checkpoints[1 + random.below(checkpoints.length - 1)]!
  const other = checkpoints[1 + random.below(checkpoints.length - 1)]!
  const kind = random.below(5)
  if (kind === 0) some.bitOffset += random.below(64) - 32
  else if (kind === 1) some.tarOffset += random.below(20_000) - 10_000
  else if (kind === 2) [some.window, other.window] = [other.window, some.window]
  else if (kind === 3) for (const [i, mark] of stopPoints.entries()) stopPoints[i] = mark + random.below(40)
  else pieces[random.below(pieces.length)]!.tarOffset += random.below(1000) - 500
  return parseBlobMap(encodeBlobMap({ ...map, checkpoints, stopPoints, pieces }))
}

test('a wrong map makes no wrong chunk: it is invalid, or its chunks are, or the change was harmless', async () => {
  const { index, map, blob, chunks } = await indexBlob(tar, gzipSync(tar, { memLevel: 4 }), 128 * 1024)
  const right = new Map<number, Buffer>()
  for (const { index: at, bytes } of chunksOf(map, index.chunks, tar, 0)) right.set(at, bytes)
  const seen = { invalid: 0, other: 0, right: 0 }
  for (let seed = 1; seed <= 100; seed++) {
    const random = createRandom(seed)
    try {
      const lying = spoil(map, random)
      for (let i = 0; i < 10; i++) {
        const wanted = tarOf(lying, index.chunks, random.below(index.chunks.count))
        if (wanted === undefined) continue
        const range = rangeOf(lying, wanted.tarStart, wanted.tarEnd)
        assert.ok(range.start >= 0 && range.start < range.end && range.tarStart < range.tarEnd, `seed ${seed}`)
        const decoded = await decodeRange(
          lying,
          range,
          blob.subarray(range.start, range.end),
          windowOf(lying, range, chunks),
        )
        for (const { index: at, bytes } of chunksOf(lying, index.chunks, decoded, range.tarStart)) {
          if (digestOf(bytes) !== index.chunks.digestAt(at)) seen.other++
          else {
            assert.deepEqual(bytes, right.get(at), `seed ${seed}`)
            seen.right++
          }
        }
      }
    } catch (error) {
      assert.ok(isP2pfsError(error, 'invalid', 'missing'), `seed ${seed}: ${(error as Error).stack}`)
      seen.invalid++
    }
  }
  assert.ok(seen.invalid > 10 && seen.other > 10 && seen.right > 10, JSON.stringify(seen))
})
