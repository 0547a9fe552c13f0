import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SharedMap } from '../../../../netlab/simulator/shared-map.ts'
import { createRandom } from '../../../support/random.ts'

test('a shared map is as a map of its own, whatever is done to it, and the map that it shares stays as it is', () => {
  const random = createRandom(11)
  const shared = new Map(Array.from({ length: 20 }, (_, i) => [`k${i}`, i]))
  const map = new SharedMap(shared)
  const own = new Map(shared)
  for (let step = 0; step < 2000; step++) {
    const key = `k${random.below(30)}`
    if (random.next() < 0.5) {
      map.set(key, step)
      own.set(key, step)
    } else assert.equal(map.delete(key), own.delete(key))
    assert.deepEqual([map.size, map.has(key), map.get(key)], [own.size, own.has(key), own.get(key)])
    assert.deepEqual(new Map(map), own)
  }
  assert.deepEqual(new Set(map.keys()), new Set(own.keys()))
  assert.deepEqual(new Set(map.values()), new Set(own.values()))
  assert.equal(shared.size, 20)
})
