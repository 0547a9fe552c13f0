import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { Problem } from '../../../node/control/api.ts'
import { call, createClient } from '../../../node/control/client.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

/** A daemon that dies: the connection ends without an outcome. */
const dies = 'dies'
const problem = (code: Problem['code'], detail: string, status = 503): Problem => ({ status, title: '', code, detail })
/** The last line of an answer that has begun. */
const lastLine = (object: object): string =>
  `HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n${JSON.stringify(object)}\n`
const result = (object: object): string => lastLine({ result: object })
const stops = lastLine({ error: problem('closed', 'the daemon is stopping') })
/** An answer to a request that has not begun. */
const refusal = (object: Problem): string =>
  `HTTP/1.1 ${object.status} Oh\r\ncontent-type: application/problem+json\r\n\r\n${JSON.stringify(object)}\n`
const answers = {
  missing: refusal(problem('missing', 'nothing is mounted', 404)),
  stopping: refusal(problem('closed', '')),
}

/** A control socket whose n-th request gets the n-th answer. */
async function startDaemons(t: TestContext, ...texts: string[]): Promise<{ socket: string; requests: string[] }> {
  const socket = join(temporaryDirectory(t), 'control.sock')
  const requests: string[] = []
  const server = createServer((connection: Socket) => {
    connection.on('error', () => undefined)
    connection.once('data', (bytes) => {
      const text = texts[requests.length]
      requests.push(bytes.toString().split('\r\n')[0]!)
      if (text === dies) return connection.destroy()
      return connection.end(text ?? '')
    })
  })
  server.listen(socket)
  await once(server, 'listening')
  t.after(() => server.close())
  return { socket, requests }
}

const mount = { image: 'x', directory: '/mnt' }

for (const [what, end] of [
  ['dies', dies],
  ['stops', stops],
] as const) {
  test(`a request whose daemon ${what} is sent again to the next one`, async (t) => {
    const { socket, requests } = await startDaemons(t, end, end, result({ chunks: 7 }))
    assert.deepEqual(await call('mount', mount, { socket }), { chunks: 7 })
    assert.deepEqual(requests, Array(3).fill('POST /v1/mounts HTTP/1.0'))
  })

  test(`a reset or an import whose daemon ${what} is not sent again`, async (t) => {
    for (const name of ['reset', 'import'] as const) {
      const { socket, requests } = await startDaemons(t, end)
      await assert.rejects(call(name, { directory: '/mnt', source: '/x', name: 'x' }, { socket }), (error) =>
        isP2pfsError(error, 'unavailable', 'closed'),
      )
      assert.equal(requests.length, 1)
    }
  })
}

test('a request that a stopping daemon has not begun is sent again, whatever it is', async (t) => {
  const { socket, requests } = await startDaemons(t, answers.stopping, result({ rootfs: '/mnt' }))
  assert.deepEqual(await call('reset', { directory: '/mnt' }, { socket }), { rootfs: '/mnt' })
  assert.equal(requests.length, 2)
})

test('an unmount that the last daemon made, but did not report, is done', async (t) => {
  const { socket } = await startDaemons(t, dies, answers.missing, answers.missing, answers.stopping, answers.missing)
  const umount = async (): Promise<object> => await call('umount', { directory: '/mnt' }, { socket })
  assert.deepEqual(await umount(), {})
  await assert.rejects(umount, (error) => isP2pfsError(error, 'missing'))
  await assert.rejects(umount, (error) => isP2pfsError(error, 'missing'), 'the first daemon has not begun')
})

test('a mount that the last daemon may have made is a conflict that says so', async (t) => {
  const { socket } = await startDaemons(t, dies, refusal(problem('conflict', '/mnt is a mount already', 409)))
  await assert.rejects(
    call('mount', mount, { socket }),
    (error) => isP2pfsError(error, 'conflict') && /already \(the daemon was replaced meanwhile/.test(error.message),
  )
})

test('an error is not retried', async (t) => {
  for (const text of [refusal(problem('busy', 'later')), lastLine({ error: problem('busy', 'later') })]) {
    const { socket, requests } = await startDaemons(t, text)
    await assert.rejects(
      call('seed', mount, { socket }),
      (error) => isP2pfsError(error, 'busy') && error.message === 'later',
    )
    assert.equal(requests.length, 1)
  }
})

test('a code that a later daemon has is unavailable', async (t) => {
  const { socket } = await startDaemons(t, refusal({ ...problem('busy', 'why'), code: 'tired' as 'busy' }))
  await assert.rejects(call('status', {}, { socket }), (error) => isP2pfsError(error, 'unavailable'))
})

test('fields go to path, query and body, and nothing else does', async (t) => {
  const { socket, requests } = await startDaemons(t, result({}), result({}), result({}))
  const client = createClient({ socket })
  await client.cancelSeed({ id: 'a/b c' })
  await client.umount({ directory: '/mnt/a&b=ü' })
  await client.status()
  assert.deepEqual(requests, [
    'DELETE /v1/seeds/a%2Fb%20c HTTP/1.0',
    'DELETE /v1/mounts?directory=%2Fmnt%2Fa%26b%3D%C3%BC HTTP/1.0',
    'GET /v1/status HTTP/1.0',
  ])
})

test('a request ends when its signal does, also while it waits for a daemon', async (t) => {
  const socket = join(temporaryDirectory(t), 'control.sock')
  const aborted = new AbortController()
  const client = createClient({ socket })
  const waiting = client.status({}, { signal: aborted.signal })
  aborted.abort(new Error('enough'))
  await assert.rejects(waiting, /enough/)
  const server = createServer((connection) => connection.on('error', () => undefined))
  server.listen(socket)
  await once(server, 'listening')
  t.after(() => server.close())
  const second = new AbortController()
  server.once('connection', (connection) => {
    connection.once('data', () => second.abort(new Error('enough')))
    connection.once('close', () => server.close())
  })
  await assert.rejects(client.seed(mount, { signal: second.signal }), /enough/)
  await once(server, 'close')
})

test('a client waits for a daemon that is not there yet', async (t) => {
  const { socket } = await startDaemons(t, result({ mounts: [] }))
  const later = `${socket}.later`
  const waiting = createClient({ socket: later }).listMounts()
  const second = createServer((connection) => {
    connection.once('data', () => connection.end(result({ mounts: [] })))
  })
  second.listen(later)
  t.after(() => second.close())
  assert.deepEqual(await waiting, { mounts: [] })
})

test('a daemon that is not there is told from one that has ended', async (t) => {
  const { socket } = await startDaemons(t)
  const refusalAt = async (path: string): Promise<string> =>
    await call('status', {}, { socket: path }).then(
      () => 'an answer',
      (error: unknown) => (isP2pfsError(error, 'unavailable') ? error.message : 'another error'),
    )
  assert.match(await refusalAt(`${socket}.none`), /no daemon at .*: start it with p2pfs daemon/)
  assert.match(await refusalAt(import.meta.filename), /no daemon at .*client\.test\.ts: /)
})
