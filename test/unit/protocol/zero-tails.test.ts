import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { expandZeroTails, trimRoomBytes, trimZeroTails } from '../../../protocol/messages/zero-tails.ts'
import { createRandom } from '../../support/random.ts'

/** The trimmed form of a chunk; undefined where it goes as it is. */
function trim(chunk: Uint8Array): Buffer | undefined {
  const target = 9
  const start = Math.ceil((target + trimRoomBytes) / 8) * 8
  const memory = Buffer.allocUnsafeSlow(start + chunk.length).fill(0xaa)
  memory.set(chunk, start)
  const length = trimZeroTails(memory, { start, lengthBytes: chunk.length, target })
  if (length !== undefined) return memory.subarray(target, target + length)
  assert.deepEqual(memory.subarray(start), Buffer.from(chunk), 'a chunk that is not trimmed stays as it was')
  return undefined
}

const isInvalid = (error: unknown): boolean => isP2pfsError(error, 'invalid')

test('a trimmed chunk has these bytes', () => {
  const chunk = Buffer.alloc(3 * 4096)
  chunk.set([1, 0, 0, 0, 0, 0, 0, 0, 2])
  chunk[2 * 4096 + 7] = 0x80
  const form = trim(chunk)!
  assert.equal(
    form.toString('hex'),
    ['0200', '0000', '0100', '0100000000000000', '0200000000000000', '0000000000000080'].join(''),
  )
})

for (const seed of [1, 2, 3])
  test(`every chunk is the same after it was trimmed and expanded, and the form is as short as it can be (seed ${seed})`, () => {
    const random = createRandom(seed)
    for (let i = 0; i < 300; i++) {
      const blocks = 1 + random.below(64)
      const chunk = Buffer.alloc(blocks * 4096)
      const fullness = random.next()
      let kept = 0
      for (let block = 0; block < blocks; block++) {
        const length = random.next() < fullness ? random.below(4097) : random.below(2) * 2048
        random.bytes(length).copy(chunk, block * 4096)
        const content = chunk.subarray(block * 4096, (block + 1) * 4096)
        kept += Math.ceil((content.findLastIndex((byte) => byte !== 0) + 1) / 8) * 8
      }
      const form = trim(chunk)
      const best = 2 * blocks + kept
      if (best > 0.9 * chunk.length) {
        assert.equal(form, undefined)
        continue
      }
      assert.equal(form!.length, best)
      const expanded = Buffer.alloc(chunk.length, 0x55)
      expandZeroTails(form!, expanded)
      assert.deepEqual(expanded, chunk)
      for (const cut of [0, 1, 2 * blocks - 1, form!.length - 1])
        assert.throws(() => expandZeroTails(form!.subarray(0, cut), expanded), isInvalid)
      assert.throws(() => expandZeroTails(Buffer.concat([form!, Buffer.alloc(8)]), expanded), isInvalid)
    }
  })

test('a form of random counts is invalid, or fills the chunk and no more', () => {
  const random = createRandom(4)
  for (let i = 0; i < 2_000; i++) {
    const memory = Buffer.alloc(3 * 8192, 0x55)
    const chunk = memory.subarray(8192, 16_384)
    const form = random.bytes(4 + 8 * random.below(6))
    if (random.next() < 0.9) form.writeUInt32LE(random.below(4) + 65_536 * random.below(4))
    try {
      expandZeroTails(form, chunk)
    } catch (error) {
      assert.ok(isInvalid(error))
    }
    assert.ok(memory.subarray(0, 8192).every((byte) => byte === 0x55))
    assert.ok(memory.subarray(16_384).every((byte) => byte === 0x55))
  }
  assert.throws(() => expandZeroTails(Buffer.from([0x01, 0x02]), Buffer.alloc(4096)), isInvalid)
  // All bytes of 513 units are there, in the first block of two, and in the last.
  for (const counts of [
    [513, 0],
    [0, 513],
  ]) {
    const form = Buffer.alloc(4 + 513 * 8)
    counts.forEach((count, block) => form.writeUInt16LE(count, 2 * block))
    assert.throws(() => expandZeroTails(form, Buffer.alloc(8192)), isInvalid)
  }
})
