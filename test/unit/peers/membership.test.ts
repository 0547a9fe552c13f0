import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeRegionMessage,
  fittingHello,
  maxAddresses,
  maxTextLength,
  parseRegionMessage,
  type RegionMessage,
} from '../../../protocol/messages/region.ts'
import { limits } from '../../../node/peers/limits.ts'
import { recordOf } from './roster/fake-members.ts'
import { FakeRegion, libp2pId, settled } from './fake-region.ts'

const { signal } = new AbortController()

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

test('the first of those who are responsible are found without the others, as members come, go and fall silent', () => {
  const region = new FakeRegion()
  const check = (): void => {
    const order = region.membership.byResponsibility('key')
    assert.deepEqual(region.membership.firstByResponsibility('key', 2), order.slice(0, 2))
    const except = new Set(order.slice(0, 1))
    assert.deepEqual(region.membership.firstByResponsibility('key', 2, { except }), order.slice(1, 3))
  }
  for (const id of ['a', 'b', 'c', 'd']) {
    region.join(id)
    check()
  }
  region.join('e').standing.fellSilent()
  check()
  region.leave('a')
  check()
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

const silent = (): undefined => undefined

test('a peer hears who this host is before it hears anything else', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const region = new FakeRegion()
  const messages: RegionMessage[] = [{ type: 'answered' }]
  await region.membership.introduce(region.join('a'), () => messages.shift())
  await settled()
  const [first, ...rest] = region.sent.get('a')!
  assert.deepEqual(first, { type: 'hello', region: 'test', name: 'me', addresses: [] })
  assert.deepEqual(rest.map(({ type }) => type).toSorted(), ['answered', 'digest', 'news'])
})

test('a peer hears nothing but the hello of this host before it says hello itself', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const region = new FakeRegion()
  region.join('member')
  const messages: RegionMessage[] = [{ type: 'answered' }]
  await region.membership.introduce(region.membership.peerOf(libp2pId('a')), () => messages.shift())
  t.mock.timers.tick(500)
  await settled()
  const types = (): string[] => region.sent.get('a')!.map(({ type }) => type)
  assert.deepEqual(types(), ['hello'])
  region.join('a')
  t.mock.timers.tick(500)
  await settled()
  assert.deepEqual(
    types()
      .filter((type) => type !== 'news')
      .toSorted(),
    ['answered', 'digest', 'hello'],
  )
})

test('what is known late of an old connection does not close the new one of the same peer', () => {
  const region = new FakeRegion()
  const old = region.join('a')
  region.leave('a')
  const current = region.join('a')
  region.membership.drop(old)
  assert.equal(
    region.membership.welcome(old, { type: 'hello', region: 'other', name: 'a', addresses: [] }),
    false,
    'it counts for nothing',
  )
  assert.deepEqual([region.hungUp, region.membership.members()], [[], [current]])
  region.membership.ban(old, new P2pfsError('invalid', 'lie'))
  assert.deepEqual([region.hungUp, region.membership.members()], [['a'], []], 'but a ban is a ban')
})

test('a name that is too long is cut, addresses that are too long or too many are left out, and no hello is refused', () => {
  const long = fittingHello({
    region: 'r',
    name: `${'n'.repeat(maxTextLength - 1)}\u{1F600}`,
    addresses: ['x'.repeat(maxTextLength + 1), ...Array.from({ length: 40 }, (_, i) => `/ip4/10.0.0.${i}/tcp/1`)],
  })
  assert.deepEqual(parseRegionMessage(encodeRegionMessage(long)), {
    type: 'hello',
    region: 'r',
    name: 'n'.repeat(maxTextLength - 1),
    addresses: Array.from({ length: maxAddresses }, (_, i) => `/ip4/10.0.0.${i}/tcp/1`),
  })
})

test('a region whose name is too long for a hello is refused', () => {
  assert.throws(
    () => new FakeRegion({ region: 'r'.repeat(maxTextLength + 1) }),
    (error) => isP2pfsError(error, 'invalid'),
  )
})

test('a peer that does not say hello is cut off after ten seconds, and none that does', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const region = new FakeRegion()
  region.membership.peerOf({ toString: () => 'stranger' } as never)
  region.join('a')
  t.mock.timers.tick(limits.hello.deadlineMs - 1)
  assert.deepEqual(region.hungUp, [])
  t.mock.timers.tick(1)
  assert.deepEqual([region.hungUp, region.banned], [['stranger'], []])
})

test('a request of a peer waits two seconds for its hello, and few wait at once', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const region = new FakeRegion()
  const late = region.membership.peerOf({ toString: () => 'late' } as never)
  const waiting = Array.from({ length: limits.streams.beforeHello }, async () => await late.whenMember())
  await assert.rejects(late.whenMember(), (error) => isP2pfsError(error, 'unavailable'))
  region.join('late')
  await Promise.all(waiting)
  await late.whenMember()
  const silentPeer = region.membership.peerOf({ toString: () => 'silent' } as never)
  const refused = assert.rejects(silentPeer.whenMember(), (error) => isP2pfsError(error, 'unavailable'))
  t.mock.timers.tick(limits.hello.requestWaitMs)
  await refused
})

test('a peer of another region is no member and is not dialled for a while, but may come back as one of this region', () => {
  const region = new FakeRegion()
  const peer = region.join('a', { region: 'other' })
  assert.deepEqual([region.avoided, region.hungUp, region.membership.members()], [['a'], ['a'], []])
  assert.throws(
    () => region.membership.connectedPeer(peer.id),
    (error) => isP2pfsError(error, 'unavailable'),
  )
  region.join('a')
  assert.deepEqual([region.banned, region.membership.members().length], [[], 1])
})

test('a peer that breaks the protocol is banned and cut off', () => {
  const region = new FakeRegion()
  region.membership.ban(region.join('a'), new P2pfsError('invalid', 'lie'))
  assert.deepEqual([region.banned, region.hungUp, region.membership.peers()], [['a'], ['a'], []])
})

test('a peer that takes no message for half a minute is cut off, and no other is', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const region = new FakeRegion({ stuck: ['a'] })
  for (const id of ['a', 'b']) await region.membership.introduce(region.join(id), silent)
  await settled()
  t.mock.timers.tick(limits.unread.regionMs - 1)
  assert.deepEqual(region.hungUp, [])
  t.mock.timers.tick(1)
  assert.deepEqual([region.hungUp, region.banned], [['a'], []])
  assert.deepEqual(
    region.membership.members().map(({ id }) => id),
    ['b'],
  )
})

test('in a small region everybody is dialled; in a larger one the neighbours are, and what is kept', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const region = new FakeRegion({ fullMesh: 16 })
  const told = async (from: number, to: number): Promise<void> => {
    const records = await Promise.all(Array.from({ length: to - from }, async (_, i) => await recordOf(`m${from + i}`)))
    region.membership.hear(region.join('teller'), { type: 'news', records, suspects: [] })
    t.mock.timers.tick(100)
  }
  const dialled = (): string[] => [...new Set(region.heard.splice(0).map(({ peer }) => peer))]
  await told(0, 14)
  assert.equal(region.membership.roster.size, 16)
  assert.equal(dialled().length, 14)
  await told(14, 200)
  const { cohort, near } = { cohort: region.membership.cohort(), near: region.membership.roster.neighbours() }
  assert.ok(cohort.includes('me') && cohort.length > 1 && cohort.length <= 24, `a cohort of ${cohort.length}`)
  const inReach = new Set([...cohort, ...near])
  assert.deepEqual(
    dialled().filter((id) => !inReach.has(id)),
    [],
  )
  assert.equal(region.membership.byResponsibility('key').length, 202, 'all are responsible')
  assert.equal(dialled().length, 0)
  const isWanted = (): number => region.membership.roster.ids().filter((id) => region.isWanted(id)).length
  const few = isWanted()
  assert.ok(few <= 8 + cohort.length)
  const far = region.membership.roster.ids().find((id) => id !== 'me' && !region.isWanted(id))!
  const kept = region.membership.keep(far)
  assert.equal(isWanted(), few + 1)
  kept[Symbol.dispose]()
  assert.equal(isWanted(), few)
})

test('the parts of a larger region lie in each other: all members, eighths, and its cohort in the last', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const region = new FakeRegion({ fullMesh: 8 })
  const { membership } = region
  assert.deepEqual([membership.cohortLevel, membership.part(0)], [0, ['me']])
  const records = await Promise.all(Array.from({ length: 150 }, async (_, i) => await recordOf(`m${i}`)))
  membership.hear(region.join('teller'), { type: 'news', records, suspects: [] })
  // 152 members in cohorts of 3 to 6 on average: five bits.
  assert.equal(membership.cohortLevel, 2)
  const [all, eighth, cohort] = [membership.part(0), membership.part(1), membership.cohort()]
  assert.deepEqual(all, membership.roster.ids())
  const sharesBits = (id: string, bits: number): boolean =>
    membership.roster.hashOf(id).bucket >>> (8 - bits) === membership.roster.hashOf('me').bucket >>> (8 - bits)
  assert.deepEqual(
    eighth,
    all.filter((id) => sharesBits(id, 3)),
  )
  assert.deepEqual(
    cohort,
    eighth.filter((id) => sharesBits(id, 5)),
  )
})

const { idle, idleMs, inUse } = limits.roster.onDemand

test('200 connections that nothing needs are closed down to the bound, those first that were used least lately', () => {
  const region = new FakeRegion({ fullMesh: 16 })
  for (let i = 0; i < 200; i++) {
    region.nowMs += 1000
    region.join(`m${i}`)
  }
  const connected = region.membership.members().map(({ id }) => id)
  const most = idle + 8 + region.membership.cohort().length
  assert.ok(connected.length <= most, `${connected.length} are connected`)
  assert.ok(connected.includes('m199'))
  assert.ok(region.membership.roster.size >= 193, 'who is only not connected is a member still')
})

test('connections over which something passed just now stay beyond the bound, up to another', () => {
  const region = new FakeRegion({ fullMesh: 16 })
  const join = (from: number, to: number): void => {
    for (let i = from; i < to; i++) region.join(`m${i}`)
  }
  join(0, idle + 50)
  assert.ok(region.membership.members().length >= idle + 50)
  region.nowMs += idleMs - 1
  region.membership.connectedPeer('m0')
  region.nowMs += 1
  region.join('one more')
  const left = region.membership.members().map(({ id }) => id)
  const wanted = 8 + region.membership.cohort().length
  assert.ok(left.length <= idle + wanted, `${left.length} are left`)
  assert.ok(left.includes('m0'))
  join(1000, 1400)
  const many = region.membership.members().length
  assert.ok(many > idle + wanted && many <= idle + inUse + 8 + region.membership.cohort().length, `${many} in all`)
})

test('a member is connected on demand, once for all who ask, and who is no member is not', async () => {
  const region = new FakeRegion()
  let dials = 0
  region.reach = async (peer) => {
    dials++
    region.join(peer)
    return await Promise.resolve(libp2pId(peer))
  }
  region.membership.hear(region.join('a'), { type: 'news', records: [await recordOf('b')], suspects: [] })
  const reached = await Promise.all([1, 2].map(async () => await region.membership.reach('b', { signal })))
  assert.deepEqual([reached.map(({ id }) => id), dials], [['b', 'b'], 1])
  await assert.rejects(region.membership.reach('nobody', { signal }), (error) => isP2pfsError(error, 'unavailable'))
})

test('a neighbour that stays away is suspected, and dead when it does not refute that', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
  const region = new FakeRegion({ fullMesh: 16 })
  const records = await Promise.all(Array.from({ length: 40 }, async (_, i) => await recordOf(`m${i}`)))
  region.membership.hear(region.join('a'), { type: 'news', records, suspects: [] })
  region.membership.start()
  const near = region.membership.roster.neighbours()
  for (let i = 0; i < 40; i++) {
    region.nowMs += 500
    t.mock.timers.tick(500)
  }
  assert.deepEqual(
    [...near].filter((id) => id !== 'a' && region.membership.roster.get(id) !== undefined),
    [],
  )
})
