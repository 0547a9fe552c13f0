import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Roster } from '../../../../node/peers/roster/roster.ts'

const rosterOf = (own: string, ids: readonly string[]): Roster => {
  const roster = new Roster({ id: own, name: own, addresses: [] }, { now: () => 0 })
  for (const id of ids) if (id !== own) roster.met({ id, name: id, addresses: [] })
  return roster
}

test('neighbours are few, each is the neighbour of its neighbours, and all hosts are connected through them', () => {
  const ids = Array.from({ length: 200 }, (_, i) => `host-${i}`)
  const neighbours = new Map(ids.map((id) => [id, rosterOf(id, ids).neighbours()]))
  const reached = new Set(['host-0'])
  for (const id of reached) {
    const near = neighbours.get(id)!
    assert.ok(near.size >= 4 && near.size <= 8)
    for (const other of near) {
      assert.ok(neighbours.get(other)!.has(id))
      reached.add(other)
    }
  }
  assert.equal(reached.size, 200)
})

test('the ids are the same array until a member comes or goes', () => {
  const roster = rosterOf('me', ['a', 'b'])
  const before = roster.ids()
  let changes = 0
  roster.onChange(() => changes++)
  roster.met({ id: 'a', name: 'again', addresses: [] })
  assert.equal(roster.ids(), before)
  roster.bury('a')
  assert.deepEqual([roster.ids(), changes, roster.size], [['b', 'me'], 1, 2])
})

test('members that are alike agree on who is, each member is alike to some, and with no bits all are', () => {
  const ids = Array.from({ length: 200 }, (_, i) => `m${i}`)
  const rosterOf = (own: string): Roster => {
    const roster = new Roster({ id: own, name: own, addresses: [] }, { now: () => 0 })
    for (const id of ids) if (id !== own) roster.met({ id, name: id, addresses: [] })
    return roster
  }
  const groups = new Map(ids.map((id) => [id, rosterOf(id).alike(3)]))
  for (const [id, group] of groups) for (const other of group) assert.deepEqual(groups.get(other), group, id)
  const distinct = new Set([...groups.values()].map((group) => group.join()))
  assert.equal(distinct.size, 8)
  assert.equal(rosterOf('m0').alike(0).length, 200)
})
