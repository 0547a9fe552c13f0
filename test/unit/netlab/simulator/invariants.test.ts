import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Digest } from '../../../../protocol/digest.ts'
import { limits } from '../../../../node/peers/limits.ts'
import { Invariants } from '../../../../netlab/simulator/invariants.ts'
import type { SimulatedNode } from '../../../../netlab/simulator/simulated-node.ts'

const bounds = { readMs: 3000, copies: 1.05 }
const chunk = (number: number): Digest => `sha256:${String(number).padStart(64, '0')}` as Digest

function read(invariants: Invariants, chunks: readonly number[]): void {
  chunks.forEach((number, i) => invariants.registryRead({ host: i, digest: chunk(number), bytes: 100, atMs: i }))
}

test('one copy of everything is right', () => {
  const invariants = new Invariants(bounds, { mayFail: false, ownBytes: 1000 })
  read(invariants, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  assert.equal(invariants.count, 0)
})

test('chunks that the registry sends again are found where nothing has failed, with the hosts that read them', () => {
  const invariants = new Invariants(bounds, { mayFail: false, ownBytes: 1000 })
  read(invariants, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 4])
  assert.equal(invariants.count, 1)
  assert.match(invariants.told[0]!.what, /more than once.*first by host 3/)
  assert.equal(invariants.told[0]!.host, 10)
  assert.deepEqual(invariants.again, { chunks: 1, bytes: 100 })
})

test('they are counted only where hosts fail', () => {
  const invariants = new Invariants(bounds, { mayFail: true, ownBytes: 1000 })
  read(invariants, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 4, 5, 6])
  assert.equal(invariants.count, 0)
  assert.equal(invariants.again.chunks, 3)
})

test('a read above its bound is found', () => {
  const invariants = new Invariants(bounds, { mayFail: true, ownBytes: 1000 })
  invariants.read(4, 3000, 5000)
  assert.equal(invariants.count, 0)
  invariants.read(4, 3001, 6000)
  assert.equal(invariants.count, 1)
  assert.deepEqual([invariants.told[0]!.host, invariants.told[0]!.atMs], [4, 6000])
})

test('state above its bound is found', () => {
  const invariants = new Invariants(bounds, { mayFail: false, ownBytes: 1000 })
  const node = (connections: number, queuedBytes: number, members = 1, registrations = 0): SimulatedNode =>
    ({
      host: { index: 9, getConnections: () => Array.from({ length: connections }, () => ({ streams: [] })) },
      peers: {
        membership: { queuedBytes, roster: { size: members }, connected: () => [{ holdings: { size: 3 } }] },
        location: { sizes: { registrations } },
      },
    }) as unknown as SimulatedNode
  const { connections, sendQueue, roster, location } = limits
  invariants.state(node(connections.inAll, sendQueue.inAll, roster.inAll, location.registrations), 1)
  assert.equal(invariants.count, 0)
  invariants.state(node(connections.inAll + 1, 0), 2)
  invariants.state(node(1, sendQueue.inAll + 1), 3)
  invariants.state(node(1, 0, roster.inAll + 1), 4)
  invariants.state(node(1, 0, 1, location.registrations + 1), 5)
  assert.deepEqual(
    invariants.told.map(({ what }) => what.replace(/: .*/, '')),
    ['connections', 'bytes of region messages that wait', 'members in the list', 'registrations'],
  )
  assert.deepEqual([invariants.most.members, invariants.most.bitmaps], [roster.inAll + 1, 3])
})
