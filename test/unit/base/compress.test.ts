import assert from 'node:assert/strict'
import { test } from 'node:test'
import { zstdDecompressSync } from 'node:zlib'
import { compressPieces } from '../../../node/base/compress.ts'
import { createRandom } from '../../support/random.ts'

test('pieces come out of one frame in their order, even where they share a buffer', async () => {
  const random = createRandom(1)
  const all: Buffer[] = []
  const shared = Buffer.alloc(100_000)
  const pieces = function* (): Generator<Uint8Array> {
    for (let i = 0; i < 20; i++) {
      const piece = Buffer.from(random.bytes(random.below(shared.length)))
      all.push(piece)
      piece.copy(shared)
      yield shared.subarray(0, piece.length)
    }
  }
  const compressed = await compressPieces(pieces())
  assert.deepEqual(zstdDecompressSync(compressed), Buffer.concat(all))
  assert.equal(zstdDecompressSync(await compressPieces([])).length, 0)
})
