import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ShareBudget } from '../../../node/base/share-budget.ts'

test('a budget lets a share of all through, and a few besides; it does not save up more than those', () => {
  const budget = new ShareBudget({ share: 0.25, burst: 4 })
  const take = (): number => {
    let taken = 0
    while (budget.take()) taken++
    return taken
  }
  assert.equal(take(), 4)
  for (let i = 0; i < 8; i++) budget.count()
  assert.equal(take(), 2)
  for (let i = 0; i < 1_000; i++) budget.count()
  assert.equal(take(), 4)
})
