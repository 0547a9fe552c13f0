import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestView } from '../../../node/store/digest-key.ts'
import { DigestMap } from '../../../node/store/digest-map.ts'
import { digestFromBytes, digestToBytes, type Digest } from '../../../protocol/digest.ts'
import { createRandom } from '../../support/random.ts'

/** Random digests, of which some differ in one bit only, or have all bits the same. */
function digestsOf(seed: number, count: number): Digest[] {
  const random = createRandom(seed)
  const digests: Digest[] = [digestFromBytes(Buffer.alloc(32)), digestFromBytes(Buffer.alloc(32, 0xff))]
  while (digests.length < count) {
    const bytes = random.bytes(32)
    digests.push(digestFromBytes(bytes))
    bytes[random.below(32)]! ^= 1 << random.below(8)
    digests.push(digestFromBytes(bytes))
  }
  return digests
}

for (const seed of [1, 2, 3])
  test(`a digest map does what a Map does, through growth, removals and additions (seed ${seed})`, () => {
    const random = createRandom(seed)
    const digests = digestsOf(seed + 100, 6_000)
    const model = new Map<Digest, number>()
    const map = new DigestMap()
    for (let step = 0; step < 60_000; step++) {
      // Grows for a third of the steps, shrinks for a third, then both.
      const removal = [0.2, 0.8, 0.5][Math.floor(step / 20_000)]!
      const digest = digests[random.below(digests.length)]!
      if (random.next() < removal) assert.equal(map.delete(digest), model.delete(digest))
      else {
        const value = random.below(1e9) * 4096
        map.set(digest, value)
        model.set(digest, value)
      }
      assert.equal(map.size, model.size)
      const other = digests[random.below(digests.length)]!
      assert.equal(map.get(other), model.get(other))
      assert.equal(map.has(other), model.has(other))
    }
    assert.deepEqual([...map.keys()].toSorted(), [...model.keys()].toSorted())
    for (const digest of digests) {
      assert.equal(map.get(digest), model.get(digest))
      assert.equal(map.getAt(digestView(Buffer.concat([Buffer.alloc(3), digestToBytes(digest)])), 3), model.get(digest))
    }
  })

test('digests may be removed and added while all are gone through', () => {
  const digests = digestsOf(7, 10_000)
  const map = new DigestMap()
  for (const digest of digests) map.set(digest, 1)
  const seen = new Set<Digest>()
  for (const digest of map.keys()) {
    seen.add(digest)
    map.delete(digest)
    if (seen.size === 1) map.set(digestFromBytes(Buffer.alloc(32, 9)), 2)
  }
  for (const digest of digests) assert.ok(seen.has(digest))
})

test('a digest takes at most 60 bytes, where there are many', () => {
  const before = process.memoryUsage().arrayBuffers
  const map = new DigestMap()
  const count = 100_000
  const bytes = Buffer.alloc(32)
  for (let i = 0; i < count; i++) {
    bytes.writeUInt32LE(i)
    map.set(digestFromBytes(bytes), i)
  }
  assert.equal(map.size, count)
  const each = (process.memoryUsage().arrayBuffers - before) / count
  assert.ok(each < 60, `${each} bytes`)
})
