import assert from 'node:assert/strict'
import { test } from 'node:test'
import { recentMs, WholeReads } from '../../../node/layers/whole-reads.ts'
import { digestOf } from '../../../protocol/digest.ts'

const table = digestOf(Buffer.from('table'))

test('a read of a whole layer is told of while it runs and for a while after, with its reason', async () => {
  let nowMs = 0
  const reads = new WholeReads({ now: () => nowMs })
  assert.equal(reads.of(table), undefined)
  await reads.during(table, 'no-ranges', async () => {
    nowMs += 2 * recentMs
    assert.equal(reads.of(table)?.reason, 'no-ranges')
    reads.overcome(table)
    assert.equal(reads.of(table)?.reason, 'no-ranges', 'it still runs')
  })
  nowMs += recentMs - 1
  assert.equal(reads.of(table)?.reason, 'no-ranges')
  nowMs += 1
  assert.equal(reads.of(table), undefined)
})

test('a read that has failed is told of too, until the layer is read at random again', async () => {
  const reads = new WholeReads()
  await assert.rejects(reads.during(table, 'no-map', async () => await Promise.reject(new Error('broken off'))))
  assert.equal(reads.of(table)?.reason, 'no-map')
  reads.overcome(table)
  assert.equal(reads.of(table), undefined)
})
