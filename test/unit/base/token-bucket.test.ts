import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NumberSet } from '../../../node/base/number-set.ts'
import { TokenBucket } from '../../../node/base/token-bucket.ts'
import { createRandom } from '../../support/random.ts'

test('a bucket lets a burst through, and then so many a second', () => {
  let nowMs = 0
  const bucket = new TokenBucket({ perSecond: 10, burst: 3, now: () => nowMs })
  const taken = (): number => {
    let count = 0
    while (bucket.tryTake()) count++
    return count
  }
  assert.equal(taken(), 3)
  nowMs += 200
  assert.equal(taken(), 2)
  nowMs += 10_000
  assert.equal(taken(), 3, 'never more than the burst')
  bucket.giveBack()
  assert.equal(taken(), 1)
})

test('what is taken ahead is waited for, by all that come later', () => {
  let nowMs = 0
  const bucket = new TokenBucket({ perSecond: 10, burst: 3, now: () => nowMs })
  assert.deepEqual([bucket.take(3), bucket.take(), bucket.take()], [0, 100, 200])
  nowMs += 200
  assert.deepEqual([bucket.take(0), bucket.take()], [0, 100])
})

test('a set of numbers is the set of those that were added and not deleted, in order', () => {
  const random = createRandom(5)
  const set = new NumberSet()
  const expected = new Set<number>()
  for (let i = 0; i < 5000; i++) {
    const number = random.below(2000)
    if (random.below(3) === 0) {
      set.delete(number)
      expected.delete(number)
    } else {
      set.add(number)
      expected.add(number)
    }
  }
  const numbers: number[] = []
  for (let at = set.next(0); at !== undefined; at = set.next(at + 1)) numbers.push(at)
  assert.deepEqual(
    numbers,
    [...expected].toSorted((a, b) => a - b),
  )
  assert.deepEqual(
    [set.size, set.has(5000), set.next(5000), new NumberSet().next(0)],
    [expected.size, false, undefined, undefined],
  )
})
