import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AdmittedConnections } from '../../../../node/peers/admission/admitted-connections.ts'
import { PendingHandshakes } from '../../../../node/peers/admission/pending-handshakes.ts'
import { limits } from '../../../../node/peers/limits.ts'
import { sourceOf } from '../../../../node/peers/admission/source.ts'

test('handshakes of one source are bounded: the oldest is dropped', () => {
  const pending = new PendingHandshakes({ now: () => 0 })
  const dropped: number[] = []
  for (let i = 0; i < limits.handshakes.perSource + 3; i++) pending.add({ source: 'a', drop: () => dropped.push(i) })
  pending.add({ source: 'b', drop: () => dropped.push(-1) })
  assert.deepEqual(dropped, [0, 1, 2])
  assert.equal(pending.count, limits.handshakes.perSource + 1)
  assert.equal(pending.dropped, 3)
})

test('handshakes of all sources are bounded: the oldest is dropped', () => {
  const pending = new PendingHandshakes({ now: () => 0 })
  const dropped: number[] = []
  for (let i = 0; i < limits.handshakes.inAll + 2; i++)
    pending.add({ source: `source ${i}`, drop: () => dropped.push(i) })
  assert.deepEqual(dropped, [0, 1])
  assert.equal(pending.count, limits.handshakes.inAll)
})

test('a handshake that is over leaves its place', () => {
  const pending = new PendingHandshakes({ now: () => 0 })
  for (let i = 0; i < 3 * limits.handshakes.inAll; i++)
    pending.add({ source: 'a', drop: () => assert.fail('dropped') })()
  assert.equal(pending.count, 0)
})

test('admitted connections of one source are bounded', () => {
  const admitted = new AdmittedConnections(limits.connections)
  const leaves = Array.from({ length: limits.connections.perSource }, () => admitted.add('a'))
  assert.ok(leaves.every((leave) => leave !== undefined))
  assert.equal(admitted.add('a'), undefined)
  assert.notEqual(admitted.add('b'), undefined)
  leaves[0]!()
  assert.notEqual(admitted.add('a'), undefined)
  assert.equal(admitted.add('a'), undefined)
})

test('a source is an IPv4 address, or the /64 of an IPv6 address', () => {
  assert.equal(sourceOf('10.0.0.1'), '10.0.0.1')
  assert.equal(sourceOf('::ffff:10.0.0.1'), '10.0.0.1')
  assert.equal(sourceOf('2001:db8:0:7::1'), '2001:db8:0:7::/64')
  assert.equal(sourceOf('2001:DB8::7:0:0:0:1'), '2001:db8:0:7::/64')
  assert.equal(sourceOf('2001:0db8:0000:0007:ffff:ffff:ffff:ffff'), '2001:db8:0:7::/64')
  assert.equal(sourceOf('fe80::1%eth0'), 'fe80:0:0:0::/64')
  assert.equal(sourceOf('::1'), '0:0:0:0::/64')
})

test('a handshake that takes too long is dropped', () => {
  let now = 0
  const pending = new PendingHandshakes({ now: () => now })
  const dropped: string[] = []
  const add = (name: string): void => void pending.add({ source: name, drop: () => dropped.push(name) })
  add('a')
  now = 2_000
  add('b')
  now = 2_999
  pending.sweep()
  assert.deepEqual(dropped, [])
  now = 3_000
  pending.sweep()
  assert.deepEqual(dropped, ['a'])
  now = 5_000
  pending.sweep()
  assert.deepEqual(dropped, ['a', 'b'])
  assert.equal(pending.count, 0)
})
