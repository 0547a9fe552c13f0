import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import { FakeRegion, settled } from './fake-region.ts'

const { signal } = new AbortController()
const table = digestOf(Buffer.from('segment'))

test('this host and its members are responsible for keys; peers that have not said hello are not', () => {
  const region = new FakeRegion()
  region.join('a')
  region.join('b')
  region.membership.peerOf({ toString: () => 'stranger' } as never)
  assert.deepEqual(region.membership.byResponsibility('key').toSorted(), ['a', 'b', 'me'])
  region.leave('a')
  assert.deepEqual(region.membership.byResponsibility('key').toSorted(), ['b', 'me'])
})

test('a silent member is responsible for nothing until it answers, or for half a minute', () => {
  const region = new FakeRegion()
  const silent = region.join('a')
  region.join('b')
  const order = region.membership.byResponsibility('key')
  silent.standing.fellSilent()
  const others = order.filter((id) => id !== 'a')
  assert.deepEqual(region.membership.byResponsibility('key'), others)
  silent.standing.answered()
  assert.deepEqual(region.membership.byResponsibility('key'), order)
  silent.standing.fellSilent()
  region.nowMs += 29_999
  assert.deepEqual(region.membership.byResponsibility('key'), others)
  region.nowMs += 1
  assert.deepEqual(region.membership.byResponsibility('key'), order)
  assert.equal(region.membership.members().length, 2, 'it stays a member')
})

test('a host without bootstrap peers does not wait for a region', async () => {
  const region = new FakeRegion()
  await region.membership.whenRegionKnown({ signal })
  assert.equal(region.nowMs, 0)
})

test('a region is known when no member has joined for a second', async () => {
  const region = new FakeRegion({ hasBootstrap: true })
  const joins = new Map([
    [100, 'a'],
    [600, 'b'],
  ])
  region.onSleep = () => {
    const id = joins.get(region.nowMs)
    if (id !== undefined) region.join(id)
  }
  await region.membership.whenRegionKnown({ signal })
  assert.equal(region.nowMs, 1600)
  await region.membership.whenRegionKnown({ signal })
  assert.equal(region.nowMs, 1600, 'from then on nobody waits')
})

test('a host waits for its region for two seconds at most', async () => {
  const alone = new FakeRegion({ hasBootstrap: true })
  await alone.membership.whenRegionKnown({ signal })
  assert.equal(alone.nowMs, 2000)
  const busy = new FakeRegion({ hasBootstrap: true })
  busy.onSleep = () => void busy.join(`peer-${busy.nowMs}`)
  await busy.membership.whenRegionKnown({ signal })
  assert.equal(busy.nowMs, 2000)
})

test('waiting for the region ends with the signal', async () => {
  const region = new FakeRegion({ hasBootstrap: true })
  const abort = new AbortController()
  region.onSleep = () => abort.abort()
  await assert.rejects(region.membership.whenRegionKnown({ signal: abort.signal }), { name: 'AbortError' })
})

test('a host is alone when members or bootstrap peers are expected and none is connected', () => {
  assert.equal(new FakeRegion().membership.isAlone(), false)
  assert.equal(new FakeRegion({ hasBootstrap: true }).membership.isAlone(), true)
  const region = new FakeRegion()
  region.join('a')
  assert.equal(region.membership.isAlone(), false)
  region.leave('a')
  assert.equal(region.membership.isAlone(), true)
})

test('a peer hears who this host is and what it holds before it hears of changes', async () => {
  const region = new FakeRegion()
  const peer = region.join('a')
  const held = new Bitmap(10)
  region.membership.broadcast({ type: 'delta', table, added: [1], removed: [] })
  const introduced = region.membership.introduce(peer, () => [{ table, held }])
  region.membership.broadcast({ type: 'delta', table, added: [2], removed: [] })
  await introduced
  region.membership.broadcast({ type: 'delta', table, added: [3], removed: [] })
  held.set(3)
  await settled()
  assert.deepEqual(region.sent.get('a'), [
    { type: 'hello', region: 'test', name: 'me', addresses: [] },
    { type: 'have', table, held: new Bitmap(10) },
    { type: 'delta', table, added: [3], removed: [] },
  ])
})

test('members that join together are named to all in one message', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const region = new FakeRegion()
  for (const id of ['a', 'b']) await region.membership.introduce(region.join(id), () => [])
  t.mock.timers.tick(500)
  await settled()
  for (const id of ['a', 'b'])
    assert.deepEqual(
      region.sent.get(id)!.filter(({ type }) => type === 'members'),
      [
        {
          type: 'members',
          members: ['a', 'b'].map((peer) => ({ peer, addresses: [`/ip4/10.0.0.1/tcp/1/p2p/${peer}`] })),
        },
      ],
    )
  assert.deepEqual(region.learned, ['a', 'b'], 'this host stays connected to them')
})

test('a peer of another region is banned and is no member', () => {
  const region = new FakeRegion()
  const peer = region.join('a', { region: 'other' })
  assert.deepEqual([region.banned, region.hungUp, region.membership.members()], [['a'], ['a'], []])
  assert.throws(
    () => region.membership.connectedPeer(peer.id),
    (error) => isP2pfsError(error, 'unavailable'),
  )
})

test('a peer that breaks the protocol is banned and cut off', () => {
  const region = new FakeRegion()
  region.membership.ban(region.join('a'), new P2pfsError('invalid', 'lie'))
  assert.deepEqual([region.banned, region.hungUp, region.membership.peers()], [['a'], ['a'], []])
})

test('a peer that does not take its messages is cut off, and no other is', async () => {
  const region = new FakeRegion({ stuck: ['a'] })
  for (const id of ['a', 'b']) await region.membership.introduce(region.join(id), () => [])
  for (let i = 0; i < 5000; i++) {
    region.membership.broadcast({ type: 'delta', table, added: [1], removed: [] })
    if (i % 1000 === 0) await settled()
  }
  assert.deepEqual([region.hungUp, region.banned], [['a'], []])
  assert.deepEqual(
    region.membership.members().map(({ id }) => id),
    ['b'],
  )
})
