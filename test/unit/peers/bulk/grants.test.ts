import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bulkLimits } from '../../../../node/peers/bulk/bulk-limits.ts'
import { Grants } from '../../../../node/peers/bulk/grants.ts'

function grantOf(n: number): { id: Buffer; secret: Buffer; key: string } {
  const id = Buffer.alloc(16)
  id.writeUInt32LE(n)
  return { id, secret: Buffer.alloc(32, n), key: id.toString('hex') }
}

test('a grant is used once, within its time', () => {
  let now = 0
  const grants = new Grants({ now: () => now })
  grants.add('a', grantOf(1), 10)
  now = 9
  assert.equal(grants.use(grantOf(1).key)?.peer, 'a')
  assert.equal(grants.use(grantOf(1).key), undefined)
  grants.add('a', grantOf(2), 10)
  now = 19
  assert.equal(grants.use(grantOf(2).key), undefined)
  assert.equal(grants.count, 0)
})

test('the grants of one peer, and of all, are bounded: the oldest goes for a newer one', () => {
  const grants = new Grants({ now: () => 0 })
  for (let i = 0; i < bulkLimits.grants.perPeer + 1; i++) grants.add('a', grantOf(i), 10)
  assert.equal(grants.count, bulkLimits.grants.perPeer)
  assert.equal(grants.use(grantOf(0).key), undefined)
  for (let i = 0; i < bulkLimits.grants.inAll + 10; i++) grants.add(`peer ${i}`, grantOf(100 + i), 10)
  assert.equal(grants.count, bulkLimits.grants.inAll)
  assert.equal(grants.use(grantOf(100).key), undefined)
  assert.ok(grants.use(grantOf(100 + bulkLimits.grants.inAll + 9).key) !== undefined)
})
