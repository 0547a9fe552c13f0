import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MemberRecord, SignedMemberRecord } from '../../../../protocol/member-record.ts'
import { RosterDigest } from '../../../../node/peers/roster/roster-digest.ts'
import { knownEntry, Roster } from '../../../../node/peers/roster/roster.ts'
import { createRandom } from '../../../support/random.ts'
import { recordOf } from './fake-members.ts'

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

/** A record, and the same signed. */
async function signed(peer: string, sequence: number): Promise<[MemberRecord, SignedMemberRecord]> {
  const addresses = ['/ip4/10.0.0.1/tcp/1']
  const record = { region: 'test', peer, name: peer, addresses, sequence, hasLeft: false }
  return [record, await recordOf(peer, { sequence, addresses })]
}

test('lists have the same digest where they have the same records, in whatever order and after whatever these came', async () => {
  const random = createRandom(4)
  const roster = rosterOf('me', [])
  const own = await recordOf('me', { sequence: 7 })
  roster.takeOwn(7, own)
  const now = new Map<string, number>()
  for (let step = 1; step <= 300; step++) {
    const id = `m${random.below(20)}`
    const what = random.below(4)
    if (what === 0) {
      roster.bury(id)
      now.delete(id)
    } else if (what === 1) roster.suspect(id, step)
    else {
      const [record, bytes] = await signed(id, step)
      roster.take(record, bytes, id)
      if (random.next() < 0.5) roster.met({ id, name: id, addresses: [] })
      now.set(id, step)
    }
  }
  const other = rosterOf('me', [])
  for (const [id, sequence] of [...now].toReversed()) other.take(...(await signed(id, sequence)), 'teller')
  assert.notDeepEqual(other.digest(), roster.digest(), 'its own record counts')
  other.takeOwn(7, own)
  assert.deepEqual(other.digest(), roster.digest())
})

test('a roster that begins with known members is as one that has met them, and changes nothing of what others share', async () => {
  const records = await Promise.all(['a', 'b', 'me'].map(async (id) => await signed(id, 5)))
  const met = rosterOf('me', [])
  met.takeOwn(5, records[2]![1])
  for (const [record, bytes] of records.slice(0, 2)) met.take(record, bytes, record.peer)
  const entries = new Map(records.map(([record, bytes]) => [record.peer, knownEntry(record, bytes)]))
  const digest = new RosterDigest()
  for (const entry of entries.values()) digest.toggle(entry)
  const before = digest.bytes()
  const of = (): Roster =>
    new Roster(
      { id: 'me', name: 'me', addresses: [] },
      { now: () => 0, known: { entries: new Map(entries), ids: ['a', 'b', 'me'], digest } },
    )
  const roster = of()
  assert.deepEqual(
    [roster.ids(), roster.size, roster.get('a'), roster.signedRecord('me'), roster.digest()],
    [met.ids(), met.size, met.get('a'), met.signedRecord('me'), met.digest()],
  )
  roster.suspect('a', 5)
  roster.bury('b')
  roster.take(...(await signed('c', 1)), 'a')
  assert.deepEqual([...of().ids()], ['a', 'b', 'me'])
  assert.equal(of().doubtOf('a'), undefined)
  assert.deepEqual(digest.bytes(), before)
})
