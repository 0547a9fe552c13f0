import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { Outcome } from '../../../node/control/api.ts'
import { call } from '../../../node/control/client.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** A daemon that dies: the connection ends without an outcome. */
const dies = Symbol('dies')
const stops: Outcome<object> = { error: { code: 'closed', message: 'the daemon is stopping' } }

/** A control socket whose n-th request gets the n-th answer. */
async function startDaemons(
  t: TestContext,
  ...answers: (Outcome<object> | typeof dies)[]
): Promise<{ socket: string; requests: string[] }> {
  const socket = join(temporaryDirectory(t), 'control.sock')
  const requests: string[] = []
  const server = createServer((connection: Socket) => {
    connection.once('data', (bytes) => {
      const answer = answers[requests.length]
      requests.push(bytes.toString().split('\r\n')[0]!)
      if (answer === dies) return connection.destroy()
      return connection.end(`HTTP/1.1 200 OK\r\n\r\n${JSON.stringify(answer)}\n`)
    })
  })
  server.listen(socket)
  await once(server, 'listening')
  t.after(() => server.close())
  return { socket, requests }
}

for (const [what, end] of [
  ['dies', dies],
  ['stops', stops],
] as const) {
  test(`a request whose daemon ${what} is sent again to the next one`, async (t) => {
    const { socket, requests } = await startDaemons(t, end, end, { result: { chunks: 7 } })
    assert.deepEqual(await call('POST', '/mount', { image: 'x' }, { socket }), { chunks: 7 })
    assert.deepEqual(requests, Array(3).fill('POST /mount HTTP/1.0'))
  })

  test(`a reset or an import whose daemon ${what} is not sent again`, async (t) => {
    for (const path of ['/reset', '/import']) {
      const { socket, requests } = await startDaemons(t, end)
      await assert.rejects(call('POST', path, {}, { socket }), (error) => isP2pfsError(error, 'unavailable', 'closed'))
      assert.equal(requests.length, 1)
    }
  })
}

test('an unmount that the last daemon made, but did not report, is done', async (t) => {
  const missing: Outcome<object> = { error: { code: 'missing', message: 'nothing is mounted' } }
  const { socket } = await startDaemons(t, dies, missing, missing)
  assert.deepEqual(await call('POST', '/umount', { directory: '/mnt' }, { socket }), {})
  await assert.rejects(call('POST', '/umount', { directory: '/mnt' }, { socket }), (error) =>
    isP2pfsError(error, 'missing'),
  )
})

test('a mount that the last daemon may have made is a conflict that says so', async (t) => {
  const { socket } = await startDaemons(t, dies, { error: { code: 'conflict', message: '/mnt is a mount already' } })
  await assert.rejects(
    call('POST', '/mount', { image: 'x' }, { socket }),
    (error) => isP2pfsError(error, 'conflict') && /already \(the daemon was replaced meanwhile/.test(error.message),
  )
})

test('an error is not retried', async (t) => {
  const { socket, requests } = await startDaemons(t, { error: { code: 'busy', message: 'later' } })
  await assert.rejects(call('POST', '/seed', { image: 'x' }, { socket }), (error) => isP2pfsError(error, 'busy'))
  assert.equal(requests.length, 1)
})

test('a daemon that is not there is told from one that has ended', async (t) => {
  const { socket } = await startDaemons(t)
  const refusal = async (path: string): Promise<string> =>
    await call('GET', '/status', undefined, { socket: path }).then(
      () => 'an answer',
      (error: unknown) => (isP2pfsError(error, 'unavailable') ? error.message : 'another error'),
    )
  assert.match(await refusal(`${socket}.none`), /no daemon at .*: start it with p2pfs daemon/)
  assert.match(await refusal(import.meta.filename), /no daemon at .*client\.test\.ts: /)
})
