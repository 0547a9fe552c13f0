import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { test } from 'node:test'
import {
  encodeReachAnswer,
  encodeReachRequest,
  parseReachAnswer,
  parseReachRequest,
} from '../../../protocol/messages/reach.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { TestPeer, until } from './test-peer.ts'

const signal = new AbortController().signal

test("a member says which ports of the asker it reaches, at the asker's own address, and what time it has", async (t) => {
  const member = await TestPeer.start(t, 'member')
  const asker = await TestPeer.start(t, 'asker', { bootstrap: [member.address] })
  await until('they have met', () => [member, asker].every(({ network }) => network.membership.peers().length === 1))
  const open = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1')
  const closed = createServer().listen(0, '127.0.0.1')
  await Promise.all([once(open, 'listening'), once(closed, 'listening')])
  t.after(() => open.close())
  const [openPort, closedPort] = [open, closed].map((server) => (server.address() as AddressInfo).port)
  closed.close()
  await once(closed, 'close')
  const before = Date.now()
  const ports = [closedPort!, openPort!]
  const { reached, address, timeMs, tookMs } = await asker.network.reach.ask(member.network.peerId, ports, { signal })
  assert.deepEqual([reached, address], [[false, true], '127.0.0.1'])
  assert.ok(timeMs >= before && timeMs <= Date.now() && tookMs > 0)
})

test('only a few ports can be asked for, and an answer is about them all', () => {
  const isInvalid = (error: unknown): boolean => isP2pfsError(error, 'invalid')
  assert.deepEqual(parseReachRequest(encodeReachRequest([1, 65_535])), [1, 65_535])
  for (const ports of [[], [1, 2, 3, 4, 5], [0], [65_536], [1.5], ['1' as unknown as number]])
    assert.throws(() => parseReachRequest(encodeReachRequest(ports)), isInvalid, String(ports))
  const answer = { timeMs: 5, address: '::1', reached: [true, false] }
  assert.deepEqual(parseReachAnswer(encodeReachAnswer(answer), 2), answer)
  assert.throws(() => parseReachAnswer(encodeReachAnswer(answer), 1), isInvalid)
})
