import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TestPeer, until } from '../test-peer.ts'

const { signal } = new AbortController()

test('real hosts beyond the bound know all members, are connected on demand, and see who leaves', async (t) => {
  const count = 12
  const first = await TestPeer.start(t, 'h0', { fullMesh: 3 })
  const peers = [first]
  for (let i = 1; i < count; i++)
    peers.push(await TestPeer.start(t, `h${i}`, { fullMesh: 3, bootstrap: [first.address] }))
  const rosterSizes = (): number[] => peers.map(({ network }) => network.membership.roster.size)
  await until('all know all', () => rosterSizes().every((size) => size === count), { timeoutMs: 60_000 })
  const key = peers.map(({ network }) => String(network.membership.byResponsibility('key')))
  assert.equal(new Set(key).size, 1, 'all agree who is responsible')
  for (const { network } of peers) {
    const { membership } = network
    const [far] = membership.byResponsibility('far').filter((id) => id !== network.peerId)
    assert.equal((await membership.reach(far!, { signal })).id, far)
  }
  const gone = peers.pop()!
  await gone.network.stop()
  await until('it is gone everywhere', () => rosterSizes().every((size) => size === count - 1), { timeoutMs: 60_000 })
})
