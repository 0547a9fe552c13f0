import assert from 'node:assert/strict'
import { test } from 'node:test'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { PlaceRequest } from '../../../protocol/messages/seed.ts'
import type { FoundProfile } from '../../../node/boot/profiles.ts'
import { Pins } from '../../../node/seeds/pins.ts'
import { seedLimits } from '../../../node/seeds/seed-limits.ts'
import { settled } from '../../support/fake-clock.ts'
import { makeTable } from './seed-fakes.ts'

import { gibibyte, Host, metadata, data, refused, request } from './placement-host.ts'

test('a placement ends when every chunk is here and hashed: what was here is read, and damaged chunks come anew', async () => {
  const host = new Host()
  for (const i of [0, 1, 2]) host.chunks.add(data.digestAt(i))
  host.damaged.add(data.digestAt(1))
  assert.deepEqual(await host.place(), { held: 8, verified: 8, total: 8 })
  assert.equal(host.fetched.length, 6)
  assert.equal(host.hashed, 3)
  // Asked again, it knows.
  await host.place()
  assert.equal(host.hashed, 3)
  // A chunk that the disk has lost meanwhile comes again.
  host.chunks.delete(data.digestAt(5))
  assert.deepEqual(await host.place(), { held: 8, verified: 8, total: 8 })
  assert.equal(host.fetched.length, 7)
})

test('hot, only metadata and boot profile are placed', async () => {
  const host = new Host()
  assert.deepEqual(await host.place({ extent: 'hot' }), { held: 2, verified: 2, total: 2 })
  const chunks = [data.digestAt(4), metadata.digestAt(0), makeTable('other', 1).digestAt(0)]
  host.profile = { profile: { chunks }, source: 'peer' } as unknown as FoundProfile
  assert.deepEqual(await host.place({ extent: 'hot' }), { held: 3, verified: 3, total: 3 })
  assert.ok(host.chunks.has(data.digestAt(4)))
  assert.deepEqual(await host.place({ extent: 'full' }), { held: 8, verified: 8, total: 8 })
  assert.equal(host.pins.list()[0]!.extent, 'full')
})

test('for a member the registry is read only where the operator has named it, for the operator always', async () => {
  for (const [peer, isNamed, source] of [
    ['x', false, 'members'],
    ['x', true, 'any'],
    ['own', false, 'any'],
  ] as const) {
    const host = new Host()
    host.isNamed = isNamed
    await host.place({}, peer)
    assert.deepEqual([...new Set(host.fetched)], [source])
  }
})

test('seeds of members are refused where the operator wants none; his own are not', async () => {
  const host = new Host({ isForPeers: false })
  await assert.rejects(host.place(), refused('denied'))
  assert.equal(host.fetched.length, 0)
  await host.place({}, 'own')
})

test('an image that this host believes nobody about is not placed, and not pinned', async () => {
  const host = new Host()
  host.found = undefined
  await assert.rejects(host.place(), refused('missing'))
  assert.deepEqual(host.pins.list(), [])
})

test('seeds of members cannot fill the disk: not what is free, not more than their share, not while one runs', async () => {
  const size = 8 * 4096
  const floor = { freeShare: 0.1, freeBytes: gibibyte }
  const tight = new Host({ limits: floor })
  tight.freeBytes = gibibyte + size - 1
  await assert.rejects(tight.place(), refused('busy'))
  assert.deepEqual([tight.fetched, tight.pins.list()], [[], []])
  assert.equal(tight.lookups, 1)
  tight.freeBytes = gibibyte + size
  await tight.place()
  // Nor is anything looked up, and kept, where there is no room.
  tight.freeBytes = gibibyte - 1
  await assert.rejects(tight.place(), refused('busy'))
  assert.equal(tight.lookups, 2)

  // One may have a quarter of the disk pinned, all together a half; 32 KiB are an eighth of it.
  const shared = new Host({ limits: { freeShare: 0 } })
  shared.sizeBytes = 8 * size
  const job = (n: number): Partial<PlaceRequest> => ({ job: `${n}`.padStart(32, '0') })
  await shared.place(job(1), 'x')
  await shared.place(job(2), 'x')
  await assert.rejects(shared.place(job(3), 'x'), refused('busy'))
  await shared.place(job(4), 'y')
  await shared.place(job(5), 'y')
  await assert.rejects(shared.place(job(6), 'z'), refused('busy'))
  await shared.place(job(7), 'own')

  // Others fill the disk while it comes.
  const filling = new Host({ limits: floor })
  filling.deliver = async () => await new Promise(() => undefined)
  const placed = filling.place()
  await settled()
  filling.freeBytes = gibibyte - 1
  const failed = assert.rejects(placed, refused('busy'))
  await filling.clock.pass(seedLimits.roomIntervalMs)
  await failed
  assert.deepEqual([filling.fetched, filling.pins.list()], [[], []])
})

test('members wait for each other’s seeds, and the operator for none; requests are bounded', async () => {
  const host = new Host({ limits: { placementsAtOnce: 2, waiting: 5, waitingPerPeer: 2, requestsPerMinutePerPeer: 4 } })
  const end = Promise.withResolvers<void>()
  let running = 0
  host.deliver = async () => {
    running++
    await end.promise
  }
  const job = (n: number): Partial<PlaceRequest> => ({ job: `${n}`.padStart(32, '0') })
  const all = [host.place(job(1), 'x'), host.place(job(2), 'x')]
  await assert.rejects(host.place(job(3), 'x'), refused('busy'))
  await settled()
  const ofOne = running
  all.push(host.place(job(4), 'y'), host.place(job(5), 'z'))
  await settled()
  // x has one at a time, z waits for x or y.
  assert.equal(running, 2 * ofOne)
  all.push(host.place(job(6), 'own'))
  await settled()
  assert.equal(running, 3 * ofOne)
  all.push(host.place(job(7), 'v'))
  await assert.rejects(host.place(job(8), 'w'), refused('busy'))
  end.resolve()
  await Promise.all(all)
  await host.place(job(9), 'x')
  await assert.rejects(host.place(job(9), 'x'), refused('busy'))
})

test('an image for a member that does not come is given up, and is not pinned', async () => {
  const host = new Host({ limits: { stallMs: 10_000, roomIntervalMs: 1_000 } })
  host.deliver = async () => await new Promise(() => undefined)
  const placed = host.place()
  const failed = assert.rejects(placed, refused('unavailable'))
  await host.clock.pass(12_000)
  await failed
  assert.deepEqual(host.pins.list(), [])
})

test('a placement waits for chunks that no member has yet, as long as others come', async () => {
  const host = new Host()
  let asked = 0
  host.deliver = async () => {
    // The first of eight requests is answered; the holders of the others come later.
    if (asked++ < 1 || host.clock.now() >= startedAtMs + 8_000) return
    throw new P2pfsError('missing', 'no source delivers the chunk')
  }
  const startedAtMs = host.clock.now()
  const placed = host.place()
  await host.clock.pass(9_000)
  assert.deepEqual(await placed, { held: 8, verified: 8, total: 8 })
})

test('pins outlive the process and end with their time; a member ends no pin of the operator', async () => {
  const host = new Host()
  await host.place({}, 'own')
  await host.place({ untilMs: 5 }, 'x')
  await host.place({ job: '1'.repeat(32), untilMs: 500 }, 'x')
  const pins = new Pins({ own: 'own', catalog: host.catalog })
  await pins.open()
  await pins.release(request.job, 'x')
  assert.deepEqual(
    pins.list().map(({ peer, untilMs }) => [peer, untilMs]),
    [
      ['own', 1_000_000],
      ['x', 500],
    ],
  )
  await pins.expire(500)
  await pins.release(request.job, 'own')
  assert.deepEqual([pins.list(), host.catalog.records.size], [[], 0])
})
