import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Turns } from '../../../../node/peers/bulk/turns.ts'

const member = (source: string, name: string): { source: string; name: string } => ({ source, name })

test('sources take turns, and so do the members of a source', () => {
  const turns = new Turns<ReturnType<typeof member>>()
  const crowd = ['a1', 'a2', 'a3'].map((name) => member('a', name))
  const others = [member('b', 'b1'), member('c', 'c1')]
  for (const one of [...crowd, ...others]) turns.add(one)
  const order: string[] = []
  for (let i = 0; i < 9; i++) {
    const next = turns.next()!
    order.push(next.name)
    turns.add(next)
  }
  assert.deepEqual(order, ['a1', 'b1', 'c1', 'a2', 'b1', 'c1', 'a3', 'b1', 'c1'])
})

test('a member has one turn, however often it is added, and none when it was deleted', () => {
  const turns = new Turns<ReturnType<typeof member>>()
  const [first, second] = [member('a', 'first'), member('a', 'second')]
  assert.ok(turns.isEmpty)
  for (const one of [first, first, second]) turns.add(one)
  turns.delete(second)
  assert.equal(turns.next(), first)
  assert.ok(turns.isEmpty)
  assert.equal(turns.next(), undefined)
  turns.delete(first)
})
