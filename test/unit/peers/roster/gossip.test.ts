import assert from 'node:assert/strict'
import { test } from 'node:test'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { isMemberRecordSigned, signMemberRecord } from '../../../../protocol/member-record.ts'
import { silentLog } from '../../../../node/base/log.ts'
import { limits } from '../../../../node/peers/limits.ts'
import { Gossip } from '../../../../node/peers/roster/gossip.ts'
import { Roster } from '../../../../node/peers/roster/roster.ts'
import { FakeMembers, recordOf } from './fake-members.ts'

const recordsHeard = (members: FakeMembers): number =>
  [...members.hosts.values()]
    .flatMap(({ received }) => received.splice(0))
    .reduce((sum, { message }) => sum + (message.type === 'news' ? message.records.length : 0), 0)

test('every host learns of every other over few connections', async (t) => {
  const members = new FakeMembers(t)
  await members.ring(60)
  assert.deepEqual([...members.sizes()], [60])
})

test('a host that joins is known to all within two seconds, and each passes that on once', async (t) => {
  const members = new FakeMembers(t)
  await members.ring(40)
  recordsHeard(members)
  const links = [...members.hosts.values()].reduce((sum, host) => sum + host.links.size, 0)
  members.add('new')
  members.link('new', 'h7')
  await members.pass(4_000)
  assert.deepEqual([...members.sizes()], [41])
  const newcomer = members.at('new').received.flatMap(({ message }) => (message.type === 'news' ? message.records : []))
  assert.ok(newcomer.length <= 42, 'it gets the list once')
  assert.ok(recordsHeard(members) - newcomer.length <= links + 4, 'no more than one a link and direction')
})

test('a host that leaves is gone everywhere within two seconds', async (t) => {
  const members = new FakeMembers(t)
  await members.ring(40)
  await members.at('h5').gossip.leave()
  members.at('h5').isDead = true
  await members.pass(2_000)
  members.hosts.delete('h5')
  assert.deepEqual([...members.sizes()], [39])
})

test('a host that dies is gone everywhere within seconds, and old records of it count for nothing', async (t) => {
  const members = new FakeMembers(t)
  await members.ring(40)
  const old = members.at('h5').roster.signedRecord('h5')!
  members.kill('h5')
  await members.pass(limits.roster.suspectMs + 3_000)
  assert.deepEqual([...members.sizes()], [39])
  members.at('h9').gossip.update('h10', { type: 'news', records: [old], suspects: [] })
  await members.pass(2_000)
  assert.deepEqual([...members.sizes()], [39])
})

test('a host whose connections break but one refutes that it is dead', async (t) => {
  const members = new FakeMembers(t)
  await members.ring(40)
  members.cut('h6', 'h7')
  await members.pass(2 * limits.roster.suspectMs)
  assert.deepEqual([...members.sizes()], [40])
})

test('who calls all others dead, again and again, brings nobody down', async (t) => {
  const members = new FakeMembers(t)
  const ids = await members.ring(40)
  for (let i = 0; i < 40; i++) {
    const suspects = ids.map((peer) => ({ peer, sequence: members.at(peer).roster.sequenceOf(peer)! }))
    members.deliver('h1', 'h2', { type: 'news', records: [], suspects })
    await members.pass(500)
    assert.deepEqual([...members.sizes()], [40])
  }
  assert.ok(recordsHeard(members) < 40 * 30 * 100, 'and costs a bounded number of records')
})

test('two parts of a region that was apart find each other again', async (t) => {
  const members = new FakeMembers(t)
  const ids = await members.ring(40)
  const isLeft = (id: string): boolean => ids.indexOf(id) < 20
  const broken = ids.flatMap((a) =>
    [...members.at(a).links].filter((b) => isLeft(a) && !isLeft(b)).map((b) => [a, b] as const),
  )
  for (const [a, b] of broken) members.cut(a, b)
  // Those with no neighbour here are missed by who stands next to them now.
  for (const id of ids) for (const other of ids) if (isLeft(id) !== isLeft(other)) members.at(id).gossip.lost(other)
  await members.pass(15_000)
  assert.deepEqual([...members.sizes()], [20])
  members.link(...broken[0]!)
  await members.pass(15_000)
  assert.deepEqual([...members.sizes()], [40])
})

test('made-up members do not push out those that were there, and one teller can fill no more than his part', async (t) => {
  const members = new FakeMembers(t)
  const ids = await members.ring(10)
  const { gossip, roster } = members.at('h0')
  const { inAll, perTeller } = limits.roster
  for (const teller of ['h1', 'h9']) {
    for (let at = 0; at < inAll + 2_000; at += 500) {
      const records = await Promise.all(
        Array.from({ length: 500 }, async (_, i) => await recordOf(`${teller} made up ${at + i}`)),
      )
      gossip.update(teller, { type: 'news', records, suspects: [] })
      members.nowMs += 500
      if (teller === 'h1') assert.ok(roster.size <= perTeller + ids.length)
    }
  }
  assert.equal(roster.size, inAll)
  assert.deepEqual(
    ids.filter((id) => roster.get(id) === undefined),
    [],
  )
  roster.met({ id: 'honest', name: 'honest', addresses: [] })
  assert.ok(roster.get('honest'), 'a member that connects has room')
})

test('updates of one member are taken at a bounded pace', async (t) => {
  const members = new FakeMembers(t)
  await members.ring(10)
  const { gossip, roster } = members.at('h0')
  let taken = 0
  for (let i = 0; i < 100; i++) {
    const sequence = 10_000_000 + i
    gossip.update('h1', { type: 'news', records: [await recordOf('h4', { sequence })], suspects: [] })
    if (roster.sequenceOf('h4') === sequence) taken++
  }
  assert.equal(taken, limits.roster.updates.burst + 1)
})

test('a record that its member has not signed breaks the protocol, and is not taken', async (t) => {
  const members = new FakeMembers(t, { isSigned: isMemberRecordSigned })
  const { gossip, roster } = members.add('a')
  const key = await generateKeyPair('Ed25519')
  const peer = peerIdFromPrivateKey(key).toString()
  const record = { region: 'test', peer, name: 'n', addresses: [], sequence: 5, hasLeft: false }
  const good = await signMemberRecord(record, async (bytes) => await key.sign(bytes))
  const forged = await signMemberRecord({ ...record, sequence: 6 }, async () => await Promise.resolve(good.signature))
  assert.throws(() => gossip.update('b', { type: 'news', records: [forged], suspects: [] }), { code: 'invalid' })
  assert.equal(roster.get(peer), undefined)
  gossip.update('b', { type: 'news', records: [good], suspects: [] })
  assert.deepEqual(roster.get(peer), { id: peer, name: 'n', addresses: [] })
})

test('a record of another region counts for nothing', async (t) => {
  const members = new FakeMembers(t)
  const { gossip, roster } = members.add('a')
  const record = { region: 'other', peer: 'x', name: 'n', addresses: [], sequence: 5, hasLeft: false }
  const signed = await signMemberRecord(record, async () => await Promise.resolve(new Uint8Array(64)))
  gossip.update('b', { type: 'news', records: [signed], suspects: [] })
  assert.equal(roster.size, 1)
})

test('where nothing changes, hosts say nothing but a digest a minute', async (t) => {
  const members = new FakeMembers(t)
  await members.ring(40)
  for (const host of members.hosts.values()) {
    host.received.length = 0
    host.gossip.start()
  }
  await members.pass(120_000)
  const heard = [...members.hosts.values()].flatMap(({ received }) => received)
  assert.ok(heard.length > 0)
  assert.ok(heard.length <= 40 * 2 * 2, `${heard.length} messages`)
  for (const { message } of heard) {
    if (message.type === 'digest') continue
    assert.deepEqual(message.type === 'listing' && message.members, [])
  }
})

test('a record of itself that a host has from the begin stands, unless the host is another one now', async (t) => {
  const { signal } = new FakeMembers(t).stopping
  const addresses = ['/ip4/10.0.0.1/tcp/1']
  for (const isSame of [true, false]) {
    const roster = new Roster({ id: 'me', name: 'me', addresses: [] }, { now: () => 0 })
    roster.takeOwn(5, await recordOf('me', { sequence: 5, addresses }))
    const gossip = new Gossip({
      roster,
      signing: { sign: async () => await Promise.resolve(new Uint8Array(64)), isSigned: () => true },
      connected: () => undefined,
      neighbours: () => [],
      describe: () => ({ region: 'test', name: isSame ? 'me' : 'another', addresses }),
      log: silentLog,
      signal,
      now: () => 0,
    })
    await gossip.met('a', undefined)
    assert.equal(roster.sequenceOf('me') === 5, isSame)
  }
})
