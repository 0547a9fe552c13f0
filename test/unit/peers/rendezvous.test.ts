import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Rendezvous, rendezvous } from '../../../node/peers/rendezvous.ts'
import { createRandom } from '../../support/random.ts'

const members = Array.from({ length: 10 }, (_, i) => `member-${i}`)
const keys = Array.from({ length: 5000 }, (_, i) => `key-${i}`)
const first = (key: string, among: readonly string[]): string => rendezvous(key, among)[0]!

test('every host has the same order, whatever the order in which it met the members', () => {
  const random = createRandom(5)
  const shuffled = members
    .map((member) => ({ member, rank: random.below(1e6) }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ member }) => member)
  for (const key of keys.slice(0, 100)) assert.deepEqual(rendezvous(key, shuffled), rendezvous(key, members))
  assert.deepEqual(rendezvous('key', members).toSorted(), members)
  assert.deepEqual(rendezvous('key', []), [])
  // Hosts of other versions must agree too.
  assert.deepEqual(rendezvous('key-0', members.slice(0, 4)), ['member-3', 'member-1', 'member-0', 'member-2'])
})

test('members have an equal share of the keys, in every place of the order', () => {
  for (const place of [0, 1, 9]) {
    const shares = new Map<string, number>()
    for (const key of keys) {
      const member = rendezvous(key, members)[place]!
      shares.set(member, (shares.get(member) ?? 0) + 1)
    }
    // A fair draw has a standard deviation of 21: five of them are 106.
    for (const [member, share] of shares)
      assert.ok(Math.abs(share - 500) < 106, `${member} is at place ${place} for ${share} of 5000 keys`)
    assert.equal(shares.size, 10)
  }
})

test('when a member leaves, its keys go to the next in order, and no other key moves', () => {
  const [left, ...rest] = members
  let handedOver = 0
  for (const key of keys) {
    const [was, next] = rendezvous(key, members)
    if (was === left) handedOver++
    assert.equal(first(key, rest), was === left ? next : was)
  }
  assert.ok(handedOver > 300)
})

test('the first of a key are those that are first in its order, without those that do not count', () => {
  const table = new Rendezvous(members)
  const isEven = (id: string): boolean => Number(id.slice(-1)) % 2 === 0
  for (const key of keys.slice(0, 200)) {
    const order = table.order(key)
    for (const count of [0, 1, 2, 10, 20]) {
      assert.deepEqual(table.first(key, count), order.slice(0, count))
      assert.deepEqual(table.first(key, count, isEven), order.filter(isEven).slice(0, count))
    }
  }
})
