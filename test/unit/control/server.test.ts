import assert from 'node:assert/strict'
import { once } from 'node:events'
import { statSync } from 'node:fs'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { silentLog } from '../../../node/base/log.ts'
import type { Progress } from '../../../node/control/api.ts'
import { call } from '../../../node/control/client.ts'
import type { PlainAnswers } from '../../../node/control/plain-answers.ts'
import { ControlServer } from '../../../node/control/server.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { FakeOperations } from './fake-operations.ts'

async function startServer(t: TestContext): Promise<FakeOperations & { socket: string; server: ControlServer }> {
  const socket = join(temporaryDirectory(t), 'control.sock')
  const fake = new FakeOperations()
  const server = new ControlServer({ operations: fake.operations, log: silentLog }, { socket })
  await server.start()
  t.after(async () => await server.stop())
  return Object.assign(fake, { socket, server })
}

test('every request reaches its operation, parsed', async (t) => {
  const fake = await startServer(t)
  const image = { image: 'debian' }
  const directory = { directory: '/mnt' }
  const requests: [string, object, object][] = [
    ['seed', image, image],
    ['mount', { ...image, ...directory }, { ...image, ...directory, as: 'drive', writable: false, pull: 'auto' }],
    ['umount', directory, directory],
    ['reset', directory, directory],
    ['import', { source: '/dir', name: 'app' }, { source: '/dir', name: 'app' }],
    ['export', { ...image, file: '/f' }, { ...image, file: '/f' }],
    ['inspect', image, image],
    ['verify', image, image],
  ]
  for (const [operation, body, request] of requests) {
    assert.deepEqual(await call('POST', `/${operation}`, body, { socket: fake.socket }), request)
    const { operation: called, request: parsed } = fake.calls.at(-1)!
    assert.deepEqual([called, parsed], [operation, request])
  }
  assert.deepEqual(await call('GET', '/status', undefined, { socket: fake.socket }), {})
  assert.equal(fake.calls.at(-1)?.operation, 'status')
})

test('only the user of the daemon can open the socket', async (t) => {
  const { socket } = await startServer(t)
  assert.equal(statSync(socket).mode & 0o777, 0o600)
})

test('progress comes before the result, and the last progress always comes', async (t) => {
  const fake = await startServer(t)
  fake.answer = async ({ options }) => {
    for (let doneBytes = 0; doneBytes <= 1000; doneBytes++)
      options!.onProgress({ step: 'import', doneBytes, totalBytes: 1000 })
    return { done: true }
  }
  const seen: Progress['progress'][] = []
  const onProgress = (progress: Progress['progress']): void => void seen.push(progress)
  assert.deepEqual(await call('POST', '/seed', { image: 'x' }, { socket: fake.socket, onProgress }), { done: true })
  assert.deepEqual(seen.at(-1), { step: 'import', doneBytes: 1000, totalBytes: 1000 })
  assert.ok(seen.length < 100, `${seen.length} lines`)
})

test('an error reaches the caller with its code; an unexpected error is unavailable', async (t) => {
  const fake = await startServer(t)
  const seed = async (): Promise<unknown> => await call('POST', '/seed', { image: 'x' }, { socket: fake.socket })
  fake.answer = async () => await Promise.reject(new P2pfsError('missing', 'no such image'))
  await assert.rejects(seed, (error) => isP2pfsError(error, 'missing') && error.message === 'no such image')
  fake.answer = async () => await Promise.reject(new TypeError('a mistake'))
  await assert.rejects(seed, (error) => isP2pfsError(error, 'unavailable'))
})

test('a request that does not parse, is too long or does not exist is invalid, and calls nothing', async (t) => {
  const fake = await startServer(t)
  const send = async (path: string, body: object): Promise<unknown> =>
    await call('POST', path, body, { socket: fake.socket })
  await assert.rejects(send('/seed', {}), (error) => isP2pfsError(error, 'invalid'))
  await assert.rejects(send('/seed', ['debian']), (error) => isP2pfsError(error, 'invalid'))
  await assert.rejects(send('/seed', { image: 'x'.repeat(70_000) }), (error) => isP2pfsError(error, 'invalid'))
  await assert.rejects(send('/explode', {}), (error) => isP2pfsError(error, 'invalid'))
  assert.deepEqual(fake.calls, [])
})

test('an operation is aborted when its caller goes away', async (t) => {
  const fake = await startServer(t)
  const aborted = Promise.withResolvers<unknown>()
  fake.answer = async ({ options }) =>
    await new Promise((_, reject) => {
      options!.signal.addEventListener('abort', () => {
        aborted.resolve(options!.signal.reason)
        reject(options!.signal.reason as Error)
      })
      stream.destroy()
    })
  const stream = connect({ path: fake.socket })
  await once(stream, 'connect')
  stream.write('POST /seed HTTP/1.0\r\ncontent-length: 13\r\n\r\n{"image":"x"}')
  assert.ok(isP2pfsError(await aborted.promise, 'closed'))
})

test('a server that stops aborts what is running, and answers it first', async (t) => {
  const fake = await startServer(t)
  fake.answer = async ({ options }) =>
    await new Promise((_, reject) => {
      options!.signal.addEventListener('abort', () => reject(options!.signal.reason as Error))
      void fake.server.stop()
    })
  await assert.rejects(
    call('POST', '/reset', { directory: '/mnt' }, { socket: fake.socket }),
    (error) => isP2pfsError(error, 'closed') && /daemon is stopping/.test(error.message),
  )
})

test('what is not of the API is answered as it is, under its own status', async (t) => {
  const socketPath = join(temporaryDirectory(t), 'control.sock')
  const plain: PlainAnswers = {
    answer: async (path) =>
      await Promise.resolve(path === '/readyz' ? { status: 503, type: 'text/plain', body: 'not yet' } : undefined),
  }
  const server = new ControlServer(
    { operations: new FakeOperations().operations, plain, log: silentLog },
    { socket: socketPath },
  )
  await server.start()
  t.after(async () => await server.stop())
  const request = httpRequest({ socketPath, path: '/readyz', agent: false }).end()
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  response.setEncoding('utf8')
  const [body] = (await once(response, 'data')) as [string]
  assert.deepEqual([response.statusCode, response.headers['content-type'], body], [503, 'text/plain', 'not yet'])
  assert.deepEqual(await call('GET', '/status', undefined, { socket: socketPath }), {})
})
