import assert from 'node:assert/strict'
import { appendFileSync, mkdirSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { test, type TestContext } from 'node:test'
import { ChunkFiles } from '../../../node/mount/fuse/chunk-files.ts'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { digestOf, digestToBytes } from '../../../protocol/digest.ts'
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const bytes = createRandom(1).bytes(70_000)
const piece = { chunk: 0, chunkBytes: bytes.length, within: 60_000, lengthBytes: 5_000 }

/** A chunk on the disk; `read` gives the piece of it, or undefined if the chunk must be fetched. */
function open(t: TestContext): { path: string; read: () => Buffer | undefined; image: { checkedAtMs: Float64Array } } {
  const directory = temporaryDirectory(t)
  const path = chunkFile(directory, digestOf(bytes))
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, bytes)
  const files = new ChunkFiles(directory)
  const image = { number: 3, digests: Buffer.from(digestToBytes(digestOf(bytes))), checkedAtMs: new Float64Array(1) }
  const read = (): Buffer | undefined => {
    const target = Buffer.alloc(piece.lengthBytes + 16)
    return files.read(image, piece, target, 16) ? target.subarray(16) : undefined
  }
  return { path, read, image }
}

const expected = bytes.subarray(piece.within, piece.within + piece.lengthBytes)

test('a piece of a chunk is read, checked the first time', (t) => {
  const { read, image } = open(t)
  assert.equal(image.checkedAtMs[0], 0)
  assert.deepEqual(read(), expected)
  assert.notEqual(image.checkedAtMs[0], 0)
  assert.deepEqual(read(), expected)
})

const flipped = Buffer.from(bytes)
flipped[10]! ^= 1
const damages: Record<string, (path: string) => void> = {
  'a flipped bit': (path) => writeFileSync(path, flipped),
  'a flipped bit and an old modification time': (path) => {
    writeFileSync(path, flipped)
    utimesSync(path, 1, 1)
  },
  'a short file': (path) => truncateSync(path, 100),
  'an empty file': (path) => truncateSync(path),
  'a long file': (path) => appendFileSync(path, 'x'),
}
for (const [name, damage] of Object.entries(damages)) {
  test(`${name} is never served: before the first read, and after it while the file is kept open`, (t) => {
    for (const readBefore of [false, true]) {
      const { path, read } = open(t)
      if (readBefore) assert.deepEqual(read(), expected)
      damage(path)
      assert.equal(read(), undefined)
      rmSync(path)
      assert.equal(read(), undefined)
      writeFileSync(path, bytes)
      assert.deepEqual(read(), expected)
    }
  })
}
