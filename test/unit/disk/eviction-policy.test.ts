import assert from 'node:assert/strict'
import { test } from 'node:test'
import { blockBytes } from '../../../node/base/room-counter.ts'
import { coldest } from '../../../node/disk/coldest.ts'
import { StoredChunks } from '../../../node/store/stored-chunks.ts'
import { UseScores } from '../../../node/store/use-scores.ts'
import { digestFromBytes, type Digest } from '../../../protocol/digest.ts'
import { createRandom } from '../../support/random.ts'
import { beladyHits, zipfTrace, type ZipfTrace } from '../../support/zipf-trace.ts'

const chunkBytes = 256 * 1024
/** Shares of the room at which eviction begins and ends, as `StoreRoom` has them. */
const [high, low] = [0.98, 0.96]

const digestOfNumber = (n: number): Digest => {
  const bytes = Buffer.alloc(32)
  bytes.writeUInt32LE(n)
  return digestFromBytes(bytes)
}

/** The hits of what the daemon does: its scores, its choice, its rounds. */
function hitsOf({ reads }: ZipfTrace, capacity: number): number {
  const chunks = new StoredChunks()
  const scores = new UseScores({ capacityBytes: () => capacity * chunkBytes })
  let hits = 0
  for (const read of reads) {
    const digest = digestOfNumber(read)
    const score = chunks.scoreOf(digest)
    if (score === undefined) {
      chunks.set(digest, 0)
      chunks.setBlocks(digest, chunkBytes / blockBytes)
      chunks.setScore(digest, scores.arrived(digest, chunkBytes))
    } else {
      hits++
      chunks.setScore(digest, scores.used(score))
    }
    if (chunks.size <= capacity * high) continue
    let excess = chunks.size - Math.floor(capacity * low)
    for (const row of coldest(() => chunks.stored(), excess * chunkBytes)) {
      if (excess-- <= 0) break
      const gone = chunks.digestOf(row)
      scores.evicted(gone, chunks.scoreOf(gone)!)
      chunks.delete(gone)
    }
  }
  return hits
}

function lruHits({ reads }: ZipfTrace, capacity: number): number {
  const kept = new Set<number>()
  let hits = 0
  for (const chunk of reads) {
    if (kept.delete(chunk)) hits++
    else if (kept.size >= capacity) kept.delete(kept.values().next().value!)
    kept.add(chunk)
  }
  return hits
}

/** Rows are of the size of the whole, so that its order is taken as it is. */
test('the chunks that are worth least are chosen, the least first, as many as the bytes need', () => {
  const random = createRandom(5)
  const chunks = Array.from({ length: 5_000 }, (_, row) => ({
    row,
    blocks: 1 + random.below(64),
    score: random.next() * 9,
  }))
  const order = chunks.toSorted((a, b) => a.score - b.score).map(({ row }) => row)
  for (const blocks of [1, 100, 10_000, 1e9]) {
    const rows = coldest(() => chunks, blocks * blockBytes)
    assert.deepEqual(rows, order.slice(0, rows.length))
    const taken = rows.reduce((sum, row) => sum + chunks[row]!.blocks, 0)
    assert.ok(taken >= blocks || rows.length === chunks.length)
  }
})

// With 2 GiB for what 200 images read, which is 3.5 GiB, all of this is easier; LRU is beyond 5 points here.
for (const [skew, drift] of [
  [0.8, 0],
  [0.8, 0.02],
  [1, 0],
  [1, 0.02],
] as const)
  test(`with room for two fifths of what is read, the hit rate is within 5 points of Belady's (skew ${skew}, drift ${drift})`, () => {
    const trace = zipfTrace(createRandom(1 + skew * 10 + drift * 1_000), { images: 200, mounts: 1500, skew, drift })
    const capacity = Math.floor(trace.distinct * 0.4)
    const share = hitsOf(trace, capacity) / trace.reads.length
    const best = beladyHits(trace, capacity) / trace.reads.length
    assert.ok(best > 0.8 && share <= best, `${share} of at best ${best}`)
    assert.ok(best - share < 0.05, `${share} of at best ${best}`)
    const lru = lruHits(trace, capacity) / trace.reads.length
    assert.ok(share > lru + 0.005, `${share}, and LRU ${lru}`)
  })
