import assert from 'node:assert/strict'
import { createConnection, createServer } from 'node:net'
import { once } from 'node:events'
import { test } from 'node:test'
import { isP2pfsError } from '../../../../protocol/errors.ts'
import { BulkListeners } from '../../../../node/peers/bulk/bulk-listeners.ts'
import { parseBulkListen } from '../../../../node/peers/bulk/bulk-listen.ts'

test('bulk connections are accepted at all addresses that libp2p listens on, at the port after the first', () => {
  const listen = ['/ip4/10.0.0.1/tcp/4100', '/ip4/10.1.0.1/tcp/5100', '/ip6/fd00::1/tcp/4100', '/ip4/10.0.0.1/tcp/9']
  assert.deepEqual(parseBulkListen(undefined, listen), {
    hosts: ['10.0.0.1', '10.1.0.1', 'fd00::1'],
    port: 4101,
    orAny: true,
  })
  const everywhere = ['/ip4/10.0.0.1/tcp/4100', '/ip4/0.0.0.0/tcp/4100', '/ip6/fd00::1/tcp/4100']
  assert.deepEqual(parseBulkListen(undefined, everywhere).hosts, ['0.0.0.0', 'fd00::1'])
  assert.deepEqual(parseBulkListen(undefined, []), { hosts: ['127.0.0.1'], port: 0, orAny: true })
  assert.deepEqual(parseBulkListen('/ip4/10.0.0.9/tcp/4444', listen), {
    hosts: ['10.0.0.9'],
    port: 4444,
    orAny: false,
  })
  assert.throws(
    () => parseBulkListen('10.0.0.9:4444', listen),
    (error) => isP2pfsError(error, 'invalid'),
  )
})

test('one port serves all addresses; another one does where it is in use at any of them, unless it was named', async (t) => {
  const taken = createServer().listen(0, '127.0.0.2')
  t.after(() => taken.close())
  await once(taken, 'listening')
  const { port } = taken.address() as { port: number }
  const hosts = ['127.0.0.1', '127.0.0.2', '127.0.0.3']
  using listeners = new BulkListeners((socket) => socket.end('hello'))
  await assert.rejects(listeners.open({ hosts, port, orAny: false }), { code: 'EADDRINUSE' })
  const chosen = await listeners.open({ hosts, port, orAny: true })
  assert.notEqual(chosen, port)
  for (const host of hosts) {
    const [heard] = (await once(createConnection({ host, port: chosen }), 'data')) as [Buffer]
    assert.equal(heard.toString(), 'hello')
  }
  await assert.rejects(listeners.open({ hosts: ['192.0.2.1'], port: 0, orAny: true }), { code: 'EADDRNOTAVAIL' })
})
