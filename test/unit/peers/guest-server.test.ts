import assert from 'node:assert/strict'
import { test } from 'node:test'
import { generateKeyPair } from '@libp2p/crypto/keys'
import type { Connection } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { Bandwidth } from '../../../node/base/bandwidth.ts'
import { silentLog } from '../../../node/base/log.ts'
import { BanList } from '../../../node/peers/ban-list.ts'
import { GuestServer } from '../../../node/peers/guest/server.ts'
import { limits } from '../../../node/peers/limits.ts'
import { FakeClock } from '../../support/fake-clock.ts'

test('guests are bounded: one more is closed, and a place is free when one leaves', async () => {
  const nobody = async (): Promise<undefined> => await Promise.resolve(undefined)
  const clock = new FakeClock()
  const server = new GuestServer({
    served: { chunk: nobody, rootfsManifest: nobody, bootProfile: nobody },
    membership: { members: () => [], roster: { get: () => undefined } },
    location: { isSmall: true, find: async () => await Promise.resolve({ members: [], isAnswered: false }) },
    bans: new BanList(),
    unsent: { usedBytes: 0 },
    bandwidth: new Bandwidth({ clock }),
    log: silentLog,
    signal: new AbortController().signal,
    clock,
  })
  const remotePeer = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
  const remoteAddr = multiaddr('/ip4/10.1.0.1/tcp/4100')
  const meet = (): EventTarget & { isClosed: boolean } => {
    const connection = Object.assign(new EventTarget(), { remotePeer, remoteAddr, isClosed: false })
    const abort = (): void => void (connection.isClosed = true)
    server.meet(Object.assign(connection, { abort }) as unknown as Connection)
    return connection
  }
  const guests = Array.from({ length: limits.guests.inAll }, meet)
  assert.ok(guests.every(({ isClosed }) => !isClosed))
  assert.ok(meet().isClosed)
  assert.equal(server.count, limits.guests.inAll)
  guests[0]!.dispatchEvent(new Event('close'))
  assert.ok(!meet().isClosed)
})
