import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LatencyEstimate } from '../../../node/base/latency-estimate.ts'

const bounds = { firstMs: 300, minMs: 50, maxMs: 1_000 }

test('a latency is estimated as given until there are samples, and then as what 95 of 100 keep to', () => {
  const estimate = new LatencyEstimate(bounds)
  for (let i = 0; i < 7; i++) estimate.add(100)
  assert.equal(estimate.p95Ms, 300)
  for (let i = 0; i < 128; i++) estimate.add(i % 32 === 0 ? 900 : 100)
  assert.equal(estimate.p95Ms, 100)
  for (let i = 0; i < 128; i++) estimate.add(i % 16 === 0 ? 900 : 100)
  assert.equal(estimate.p95Ms, 900)
})

test('an estimate stays within its bounds, and forgets what was long ago', () => {
  const estimate = new LatencyEstimate(bounds)
  for (let i = 0; i < 128; i++) estimate.add(30_000)
  assert.equal(estimate.p95Ms, 1_000)
  for (let i = 0; i < 128; i++) estimate.add(1)
  assert.equal(estimate.p95Ms, 50)
})
