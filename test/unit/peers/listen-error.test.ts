import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { test } from 'node:test'
import { createLibp2p } from 'libp2p'
import { tcp } from '@libp2p/tcp'
import { exitStatusOf } from '../../../node/base/exit-status.ts'
import { listenError } from '../../../node/peers/listen-error.ts'
import { isP2pfsError, type P2pfsError } from '../../../protocol/errors.ts'

/** The error for addresses that a real libp2p host has failed to listen on. */
async function errorOf(...listen: string[]): Promise<P2pfsError> {
  const host = await createLibp2p({ start: false, addresses: { listen }, transports: [tcp()] })
  try {
    await host.start()
  } catch (error) {
    return listenError(listen, error)
  } finally {
    await host.stop()
  }
  throw new Error('it listens')
}

test('a port in use is said in one line, with what to do, and another try may help', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.after(() => taken.close())
  const { port } = taken.address() as AddressInfo
  const error = await errorOf(`/ip4/127.0.0.1/tcp/${port}`)
  assert.equal(
    error.message,
    `cannot listen on /ip4/127.0.0.1/tcp/${port}: the port is in use: see by whom with ss -ltnp sport = :${port}, ` +
      'and end that, or choose another --listen',
  )
  assert.equal(error.cause, undefined, 'the log has no stack of libp2p')
  assert.ok(isP2pfsError(error, 'unavailable'))
  assert.equal(exitStatusOf(error), 75)
})

test('an address that is not here, and one that is not of TCP, are said in one line', async () => {
  const absent = await errorOf('/ip4/192.0.2.1/tcp/1')
  assert.match(absent.message, /^cannot listen on \/ip4\/192.0.2.1\/tcp\/1: this host has no such address now; .*$/)
  assert.equal(exitStatusOf(absent), 75)
  const other = await errorOf('/ip4/127.0.0.1/tcp/0/ws')
  assert.match(other.message, /^cannot listen on .*\/ws: peers are reached over TCP alone, as \/ip4.*$/)
  assert.equal(exitStatusOf(other), 78)
})
