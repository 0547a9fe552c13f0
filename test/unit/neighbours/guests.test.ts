import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { formatRegionKey } from '../../../protocol/region-key.ts'
import { silentLog } from '../../../node/base/log.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { NeighbourRegion } from '../../../node/neighbours/neighbour-region.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { makeSegment, TestPeer, until } from '../peers/test-peer.ts'

const segment = makeSegment(4)
const wanted = (index: number) => ({
  digest: segment.table.digestAt(index),
  lengthBytes: segment.table.lengthAt(index),
  table: segment.table.id,
  index,
})
const options = () => ({ signal: AbortSignal.timeout(10_000), urgency: new Urgency(true) })

async function guestOf(t: TestContext, bootstrap: string[], keyFile?: string): Promise<NeighbourRegion> {
  const guest = await NeighbourRegion.open(
    { log: silentLog },
    {
      region: 'b',
      bootstrap,
      keyFile,
      identityFile: join(temporaryDirectory(t), 'guest.key'),
      own: { region: 'a', name: 'guest' },
    },
  )
  t.after(async () => await guest[Symbol.asyncDispose]())
  return guest
}

function keyFile(t: TestContext, byte: number): string {
  const file = join(temporaryDirectory(t), 'key')
  writeFileSync(file, formatRegionKey(new Uint8Array(32).fill(byte)), { mode: 0o600 })
  return file
}

test('a guest is given chunks, and is no member', async (t) => {
  const b = await TestPeer.start(t, 'b', { region: 'b' })
  b.hold(segment, [0, 1])
  const guest = await guestOf(t, [b.address])
  await until('the guest is connected', () => guest.isReady(segment.table.id))
  assert.deepEqual(Buffer.from(await guest.fetch(wanted(0), options())), segment.chunks[0])
  assert.deepEqual(b.network.membership.members(), [])
  assert.equal(b.network.membership.connected()[Symbol.iterator]().next().done, true)
  assert.equal(b.network.guests().chunksSent, 1)
  assert.equal(guest.status().chunksReceived, 1)
})

test('a guest finds the member that holds a chunk through another one', async (t) => {
  const first = await TestPeer.start(t, 'first', { region: 'b' })
  const holder = await TestPeer.start(t, 'holder', { region: 'b', bootstrap: [first.address] })
  holder.hold(segment, [2])
  await until('they have met', () => first.network.membership.members().length === 1)
  const guest = await guestOf(t, [first.address])
  await until('the guest is connected', () => guest.isReady(segment.table.id))
  await assert.rejects(guest.fetch(wanted(2), options()), { code: 'missing' })
  await until('the holder is connected', () => guest.status().members.includes(holder.network.peerId))
  assert.deepEqual(Buffer.from(await guest.fetch(wanted(2), options())), segment.chunks[2])
})

test('a guest needs the key of guests: neither no key, nor the key of the region as a guest, nor another one', async (t) => {
  const regionKeyFile = keyFile(t, 1)
  const guestKeyFile = keyFile(t, 2)
  const b = await TestPeer.start(t, 'b', { region: 'b', regionKeyFile, guestKeyFile })
  const strangers = await Promise.all(
    [undefined, regionKeyFile, keyFile(t, 3)].map(async (f) => await guestOf(t, [b.address], f)),
  )
  for (const stranger of strangers) stranger.isReady(segment.table.id)
  await until('all are turned away', () => b.network.strangers.turnedAway >= 3)
  for (const stranger of strangers) assert.deepEqual(stranger.status().members, [])
  const guest = await guestOf(t, [b.address], guestKeyFile)
  await until('the guest is connected', () => guest.isReady(segment.table.id))
})

test('a region with a key takes no guests where it has no key for them', async (t) => {
  const regionKeyFile = keyFile(t, 1)
  const b = await TestPeer.start(t, 'b', { region: 'b', regionKeyFile })
  const guest = await guestOf(t, [b.address], regionKeyFile)
  guest.isReady(segment.table.id)
  await until('it is turned away', () => b.network.strangers.turnedAway >= 1)
  assert.deepEqual(guest.status().members, [])
})

test('the key of guests makes nobody a member', async (t) => {
  const guestKeyFile = keyFile(t, 2)
  const b = await TestPeer.start(t, 'b', { region: 'b', regionKeyFile: keyFile(t, 1), guestKeyFile })
  await TestPeer.start(t, 'intruder', { region: 'b', regionKeyFile: guestKeyFile, bootstrap: [b.address] })
  await until('it is turned away', () => b.network.strangers.turnedAway >= 1)
  assert.deepEqual(b.network.membership.members(), [])
})

test('a member that sends wrong bytes is left', async (t) => {
  const b = await TestPeer.start(t, 'b', { region: 'b' })
  b.chunks.set(segment.table.digestAt(0), segment.chunks[1]!)
  const guest = await guestOf(t, [b.address])
  await until('the guest is connected', () => guest.isReady(segment.table.id))
  await assert.rejects(guest.fetch(wanted(0), options()), { code: 'missing' })
  assert.deepEqual(guest.status().members, [])
  assert.equal(guest.status().chunksReceived, 0)
})
