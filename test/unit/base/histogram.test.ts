import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Histogram } from '../../../node/base/histogram.ts'

test('a value is counted in every bucket whose bound it does not exceed', () => {
  const histogram = new Histogram([1, 2, 5])
  for (const value of [0, 1, 1.5, 2, 4, 100]) histogram.observe(value)
  assert.deepEqual(histogram.cumulative(), [2, 4, 5])
  assert.equal(histogram.count, 6)
  assert.equal(histogram.sum, 108.5)
})
