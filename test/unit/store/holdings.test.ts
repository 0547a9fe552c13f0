import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Holdings } from '../../../node/store/holdings.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestFromBytes, type Digest } from '../../../protocol/digest.ts'
import { createRandom } from '../../support/random.ts'

interface Model {
  table: ChunkTable
  held: Set<number>
  isProvisional: boolean
}

/** The places of a digest in all segments of the model, as text. */
function placesOf(model: Map<Digest, Model>, digest: Digest, isHeld: boolean): string[] {
  const places: string[] = []
  for (const { table, held } of model.values())
    for (let index = 0; index < table.count; index++)
      if (table.digestAt(index) === digest && held.has(index) === isHeld) places.push(`${table.id} ${index}`)
  return places.toSorted()
}

const textOf = (places: readonly { table: Digest; index: number }[]): string[] =>
  places.map(({ table, index }) => `${table} ${index}`).toSorted()

for (const seed of [1, 2, 3, 4])
  test(`holdings are what maps of all places say, while segments and chunks come and go (seed ${seed})`, () => {
    const random = createRandom(seed)
    // Few, so that segments share chunks, and have some of them several times.
    const pool = Array.from({ length: 300 }, () => random.bytes(32))
    const model = new Map<Digest, Model>()
    const here = new Set<Digest>()
    const holdings = new Holdings()
    for (let step = 0; step < 1_500; step++) {
      const action = random.next()
      if (action < 0.15) {
        const count = random.below(40)
        const digests = Buffer.concat(Array.from({ length: count }, () => pool[random.below(pool.length)]!))
        const lengths = Array.from({ length: count }, () => (1 + random.below(64)) * 4096)
        const table = new ChunkTable(lengths, digests)
        const provisional = random.next() < 0.7
        const bitmap = holdings.addTable(table, (index) => here.has(table.digestAt(index)), { provisional })
        const known = model.get(table.id)
        assert.equal(bitmap === undefined, known !== undefined)
        if (known !== undefined && !provisional) known.isProvisional = false
        if (known === undefined) {
          const held = new Set(Array.from({ length: count }, (_, i) => i).filter((i) => here.has(table.digestAt(i))))
          model.set(table.id, { table, held, isProvisional: provisional })
        }
      } else if (action < 0.25 && model.size > 0) {
        const { table, held, isProvisional } = [...model.values()][random.below(model.size)]!
        const marked = holdings.dropProvisional(table.id)
        assert.deepEqual(marked, isProvisional ? [...held].toSorted((a, b) => a - b) : undefined)
        if (isProvisional) model.delete(table.id)
      } else {
        const digest = digestFromBytes(pool[random.below(pool.length)]!)
        const isAdded = action < 0.7
        const expected = placesOf(model, digest, !isAdded)
        assert.deepEqual(textOf(isAdded ? holdings.add(digest) : holdings.remove(digest)), expected)
        if (isAdded) here.add(digest)
        else here.delete(digest)
        for (const { table, held } of model.values())
          for (let i = 0; i < table.count; i++) {
            if (table.digestAt(i) !== digest) continue
            if (isAdded) held.add(i)
            else held.delete(i)
          }
      }
      const digest = digestFromBytes(pool[random.below(pool.length)]!)
      const all = [...placesOf(model, digest, true), ...placesOf(model, digest, false)]
      assert.equal(holdings.isReferenced(digest), all.length > 0)
      const place = holdings.placeOf(digest)
      if (all.length === 0) assert.equal(place, undefined)
      else assert.ok(all.includes(`${place!.table} ${place!.index}`))
    }
    for (const { table, held } of model.values()) {
      assert.equal(holdings.isWhole(table.id), held.size === table.count)
      assert.equal(
        holdings.localBytes([table]),
        [...held].reduce((bytes, index) => bytes + table.lengthAt(index), 0),
      )
    }
  })

test('a segment whose chunks are all the same is added and dropped in no time to speak of', () => {
  const count = 200_000
  const table = new ChunkTable(new Float64Array(count).fill(4096), new Uint8Array(count * 32))
  const holdings = new Holdings()
  holdings.addTable(table, () => false, { provisional: true })
  assert.equal(holdings.add(table.digestAt(0)).length, count)
  assert.equal(holdings.isWhole(table.id), true)
  assert.equal(holdings.dropProvisional(table.id)?.length, count)
  assert.equal(holdings.isReferenced(table.digestAt(0)), false)
})

test('a tracked chunk takes at most 20 bytes beside its table', () => {
  const random = createRandom(5)
  const count = 100_000
  const table = new ChunkTable(new Float64Array(count).fill(4096), random.bytes(count * 32))
  // Making it takes buffers, which are garbage then.
  assert.ok(table.id)
  const before = process.memoryUsage().arrayBuffers
  const holdings = new Holdings()
  holdings.addTable(table, () => false)
  const each = (process.memoryUsage().arrayBuffers - before) / count
  assert.ok(each < 20, `${each} bytes`)
  assert.equal(holdings.placeOf(table.digestAt(count - 1))?.index, count - 1)
})
