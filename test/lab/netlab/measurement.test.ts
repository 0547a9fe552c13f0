import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatMeasurements, measurement, spread } from '../../../netlab/bench/measurement.ts'

test('takes the median and the range', () => {
  assert.deepEqual(spread([5, 1, 9]), { median: 5, min: 1, max: 9, runs: 3 })
  assert.equal(spread([4, 1, 2, 9]).median, 3)
})

test('a ratio above 1 is better, for times and for rates', () => {
  assert.equal(measurement('', 's', [2], { name: '', values: [6] }).ratio, 3)
  assert.equal(measurement('', 'MB/s', [2], { name: '', values: [6] }).ratio, 1 / 3)
  assert.equal(measurement('', 'ms', [2]).ratio, undefined)
})

test('prints the ratio first', () => {
  const table = formatMeasurements([measurement('import', 's', [2, 3, 4], { name: 'pull', values: [6, 7, 8] })])
  assert.match(table, /^ratio .*\n2\.33x {2}import {3}3\.00 s \(2\.00 to 4\.00\) +pull: 7\.00 s \(6\.00 to 8\.00\)$/)
})
