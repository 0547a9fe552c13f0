import assert from 'node:assert/strict'
import { once } from 'node:events'
import { statSync } from 'node:fs'
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { createLog, silentLog, type Log } from '../../../node/base/log.ts'
import { asUsage, isUsage } from '../../../node/control/usage.ts'
import type { Problem, Progress } from '../../../node/control/api.ts'
import { call, createClient } from '../../../node/control/client.ts'
import type { PlainAnswers } from '../../../node/control/plain-answers.ts'
import type { OperationName, RequestOf } from '../../../node/control/operations.ts'
import { ControlServer, type ControlServerOptions } from '../../../node/control/server.ts'
import { errorCodes, isP2pfsError, P2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { FakeOperations } from './fake-operations.ts'

type Started = FakeOperations & { socket: string; server: ControlServer }

async function startServer(
  t: TestContext,
  limits: ControlServerOptions['limits'] = {},
  log: Log = silentLog,
): Promise<Started> {
  const socket = join(temporaryDirectory(t), 'control.sock')
  const fake = new FakeOperations()
  const server = new ControlServer({ operations: fake.operations, log }, { socket, limits })
  await server.start()
  t.after(async () => await server.stop())
  return Object.assign(fake, { socket, server })
}

interface Answer {
  status: number
  headers: IncomingHttpHeaders
  text: string
}

/** As a program does that knows HTTP and not p2pfs. */
async function send(
  { socket }: Pick<Started, 'socket'>,
  method: string,
  path: string,
  { body, accept }: { body?: string | object; accept?: string } = {},
): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const headers = accept === undefined ? {} : { accept }
    const sent = httpRequest({ socketPath: socket, method, path, headers, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (piece: string) => (text += piece))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }))
    })
    sent.on('error', reject)
    sent.end(typeof body === 'object' ? JSON.stringify(body) : body)
  })
}

/** Sends bytes as they are. @returns all that comes until the server ends the connection */
async function sendRaw({ socket }: Pick<Started, 'socket'>, bytes: string | Buffer): Promise<string> {
  const stream = connect({ path: socket })
  stream.write(bytes)
  let text = ''
  for await (const piece of stream.setEncoding('utf8') as AsyncIterable<string>) text += piece
  return text
}

/** Checks that it is a problem, whole and in agreement with its status. */
function problemIn({ status, headers, text }: Answer): Problem {
  assert.equal(headers['content-type'], 'application/problem+json')
  const problem = JSON.parse(text) as Problem
  const { isUsage: _usage, ...always } = problem
  assert.deepEqual(Object.keys(always).toSorted(), ['code', 'detail', 'status', 'title'])
  assert.equal(problem.status, status)
  return problem
}

/** An operation that goes on until it is aborted. */
const untilAborted: FakeOperations['answer'] = async ({ options }) =>
  await new Promise((_, reject) => {
    options!.signal.addEventListener('abort', () => reject(options!.signal.reason as Error))
  })

test('every request reaches its operation, parsed', async (t) => {
  const fake = await startServer(t)
  const client = createClient({ socket: fake.socket })
  const image = { image: 'debian' }
  const directory = { directory: '/mnt' }
  const requests: { [Name in OperationName]: [RequestOf<Name>, object?] } = {
    status: [{}],
    listMounts: [{}],
    mount: [
      { ...image, ...directory },
      { ...image, ...directory, as: 'drive', writable: false, pull: 'auto' },
    ],
    umount: [directory],
    reset: [directory],
    placeSeed: [{ ...image, copies: 2, hot: true }],
    listSeeds: [{}],
    cancelSeed: [{ id: 'ab/c' }],
    seed: [image],
    import: [{ source: '/dir', name: 'app' }],
    push: [{ ...image, target: 'host/app:1' }],
    export: [{ ...image, file: '/f' }],
    inspect: [image],
    verify: [image],
    doctor: [image],
    limits: [{}],
    changeLimits: [{ set: { upload: '2Mbit' }, reset: true }],
    listImages: [{}],
    removeImage: [{ ...image, format: 'erofs' }],
    pin: [{ ...image, ttlMs: 1000 }],
    unpin: [image],
    gc: [{ dryRun: true }],
  }
  for (const [name, [request, parsed = request]] of Object.entries(requests)) {
    assert.deepEqual(await client[name as OperationName](request as never), parsed, name)
    const { operation, request: got } = fake.calls.at(-1)!
    assert.deepEqual([operation, got], [name, parsed])
  }
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
  assert.deepEqual(await call('seed', { image: 'x' }, { socket: fake.socket, onProgress }), { done: true })
  assert.deepEqual(seen.at(-1), { step: 'import', doneBytes: 1000, totalBytes: 1000 })
  assert.ok(seen.length < 100, `${seen.length} lines`)
})

test('progress is for those who accept it; others get one object, with the status that it has', async (t) => {
  const fake = await startServer(t)
  const image = { body: { image: 'x' } }
  const stream = { ...image, accept: 'application/json;q=0.1, application/x-ndjson' }
  fake.answer = async ({ options }) => {
    options!.onProgress({ step: 'import', doneBytes: 1, totalBytes: 1 })
    return { done: true }
  }
  const plain = await send(fake, 'POST', '/v1/images/seed', image)
  assert.deepEqual(
    [plain.status, plain.headers['content-type'], plain.text],
    [200, 'application/json', '{"done":true}\n'],
  )
  const lines = await send(fake, 'POST', '/v1/images/seed', stream)
  assert.deepEqual([lines.status, lines.headers['content-type']], [200, 'application/x-ndjson'])
  const progress = { step: 'import', doneBytes: 1, totalBytes: 1 }
  assert.equal(lines.text, `${JSON.stringify({ progress })}\n{"result":{"done":true}}\n`)
  fake.answer = async () => await Promise.reject(new P2pfsError('conflict', 'in use'))
  const failed = await send(fake, 'POST', '/v1/images/seed', stream)
  assert.equal(failed.status, 200)
  assert.deepEqual(JSON.parse(failed.text), {
    error: { status: 409, title: 'Conflict', code: 'conflict', detail: 'in use' },
  })
  const unread = await send(fake, 'POST', '/v1/images/seed', { ...stream, body: {} })
  assert.equal(problemIn(unread).status, 400, 'what has not begun has its own status')
})

const statuses: Record<ErrorCode, number> = {
  invalid: 400,
  denied: 403,
  missing: 404,
  conflict: 409,
  unsupported: 501,
  busy: 503,
  unavailable: 503,
  closed: 503,
  timeout: 504,
}

test('a request that its caller got wrong is no warning; one that this host or the registry fails is', async (t) => {
  const lines: { level: string; status: number }[] = []
  const log = createLog('info', (line) => lines.push(JSON.parse(line) as (typeof lines)[number]))
  const server = await startServer(t, {}, log)
  for (const code of ['invalid', 'missing', 'denied', 'conflict', 'unavailable', 'timeout'] as const) {
    server.answer = async () => await Promise.reject(new P2pfsError(code, 'no'))
    await send(server, 'GET', '/v1/status')
  }
  assert.deepEqual(
    lines.map(({ level, status }) => `${status} ${level}`),
    ['400 info', '404 info', '403 info', '409 info', '503 warn', '504 warn'],
  )
})

for (const code of errorCodes) {
  test(`${code} is ${statuses[code]}, with its message for a person`, async (t) => {
    const fake = await startServer(t)
    fake.answer = async () => await Promise.reject(new P2pfsError(code, 'what to do'))
    const answer = await send(fake, 'GET', '/v1/status')
    const { title, ...problem } = problemIn(answer)
    assert.deepEqual(problem, { status: statuses[code], code, detail: 'what to do' })
    assert.notEqual(title, '')
    assert.equal(answer.headers['retry-after'], statuses[code] === 503 ? '1' : undefined)
    await assert.rejects(call('import', { source: '/x', name: 'x' }, { socket: fake.socket }), (error) =>
      isP2pfsError(error, code),
    )
  })
}

test('a registry that wants credentials is 401, and one that says when to come back is quoted', async (t) => {
  const fake = await startServer(t)
  fake.answer = async () =>
    await Promise.reject(new P2pfsError('denied', 'log in', { registry: 'eu.example:5000', status: 401 }))
  const denied = await send(fake, 'POST', '/v1/mounts', { body: { image: 'x', directory: '/mnt' } })
  assert.deepEqual([problemIn(denied).status, problemIn(denied).code], [401, 'denied'])
  assert.equal(denied.headers['www-authenticate'], 'Registry realm="eu.example:5000"')
  fake.answer = async () => await Promise.reject(new P2pfsError('busy', 'slower', { retryAfterMs: 4_100 }))
  assert.equal((await send(fake, 'GET', '/v1/status')).headers['retry-after'], '5')
})

test('an unexpected error is 500, which another try does not mend', async (t) => {
  const fake = await startServer(t)
  fake.answer = async () => await Promise.reject(new TypeError('a mistake'))
  const answer = await send(fake, 'GET', '/v1/status')
  assert.deepEqual([problemIn(answer).status, answer.headers['retry-after']], [500, undefined])
})

test('a request that does not parse is 400, and calls nothing', async (t) => {
  const fake = await startServer(t)
  for (const body of [{}, ['debian'], '{', '7', '{"image": 7}', '\u0000'])
    assert.equal(problemIn(await send(fake, 'POST', '/v1/images/seed', { body })).code, 'invalid')
  for (const path of ['/v1/mounts', '/v1/mounts?directory=mnt', '/v1/seeds/%zz'])
    assert.equal(problemIn(await send(fake, 'DELETE', path)).status, 400, path)
  const latin = Buffer.from('POST /v1/images/seed HTTP/1.0\r\ncontent-length: 13\r\n\r\n{"image":"\xff"}', 'latin1')
  assert.match(await sendRaw(fake, latin), /^HTTP\/1\.1 400 [^]*not text in UTF-8/)
  assert.deepEqual(fake.calls, [])
})

test('an error of the request itself is told apart from one of the image', async (t) => {
  const fake = await startServer(t)
  const seed = async (body: object): Promise<unknown> =>
    await call('seed', body as { image: string }, { socket: fake.socket })
  fake.answer = async () => await Promise.reject(new P2pfsError('invalid', 'layer is malformed'))
  await assert.rejects(seed({ image: 'x' }), (error) => isP2pfsError(error, 'invalid') && !isUsage(error))
  fake.answer = async () =>
    asUsage(() => {
      throw new P2pfsError('invalid', 'no reference', { at: 1 })
    })
  await assert.rejects(seed({ image: 'x' }), (error) => isUsage(error) && (error as Error).message === 'no reference')
  await assert.rejects(seed({}), (error) => isUsage(error))
})

test('a path that there is not is 404, and says where they are', async (t) => {
  const fake = await startServer(t)
  for (const path of ['/', '/v1', '/v1/', '/v1/explode', '/v1/mounts/', '/v1/seeds/a/b', '/v1/statusx', '//status'])
    assert.match(problemIn(await send(fake, 'GET', path)).detail, /no such path: .*openapi\.json/, path)
  for (const path of ['/status', '/seed', '/mount'])
    assert.equal(problemIn(await send(fake, 'POST', path, { body: '{}' })).status, 404, path)
  for (const path of ['/v2/status', '/v0', '/v10/mounts?x=1'])
    assert.match(problemIn(await send(fake, 'GET', path)).detail, /this daemon speaks v1 of the API, not v\d+$/, path)
  assert.deepEqual(fake.calls, [])
})

test('a method that a path does not take is 405, with those that it takes', async (t) => {
  const fake = await startServer(t)
  for (const [method, path, allow] of [
    ['PUT', '/v1/mounts', 'GET, HEAD, POST, DELETE'],
    ['GET', '/v1/images/seed', 'POST'],
    ['OPTIONS', '/v1/status', 'GET, HEAD'],
    ['POST', '/v1/seeds/abc', 'DELETE'],
    ['DELETE', '/v1/openapi.json', 'GET, HEAD'],
  ] as const) {
    const answer = await send(fake, method, path)
    assert.deepEqual([problemIn(answer).status, answer.headers.allow], [405, allow], `${method} ${path}`)
  }
  const head = await send(fake, 'HEAD', '/v1/status')
  assert.deepEqual([head.status, head.text], [200, ''])
})

test('a request that is too long is 413, and the next one is served', async (t) => {
  const fake = await startServer(t)
  const long = (size: number): string =>
    `POST /v1/images/seed HTTP/1.1\r\ncontent-length: ${size}\r\n\r\n${'x'.repeat(size)}`
  for (const size of [65_537, 500_000])
    assert.match(await sendRaw(fake, long(size)), /^HTTP\/1\.1 413 [^]*"status":413/, `${size} bytes`)
  // Not read to its end: the sender may find the connection closed.
  await sendRaw(fake, long(3_000_000)).catch(() => '')
  const fits = { body: { image: 'x'.repeat(65_000) } }
  assert.equal((await send(fake, 'POST', '/v1/images/seed', fits)).status, 200)
  assert.equal(fake.calls.length, 1)
})

test('what is no HTTP gets an answer that is, and the connection ends', async (t) => {
  const fake = await startServer(t)
  for (const [bytes, status] of [
    ['{"image": "debian"}\r\n\r\n', 400],
    ['GET /v1/status HTTP/9.9\r\n\r\n', 400],
    ['GET /v1/status HTTP/1.1\r\nno colon\r\n\r\n', 400],
    ['POST /v1/images/seed HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}', 400],
    [`GET /v1/status HTTP/1.1\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`, 431],
    ['GET http:// HTTP/1.0\r\n\r\n', 400],
  ] as const) {
    const text = await sendRaw(fake, bytes)
    assert.ok(text.startsWith(`HTTP/1.1 ${status} `), `${bytes.slice(0, 40)}: ${text}`)
    const { status: said } = JSON.parse(text.slice(text.indexOf('\r\n\r\n') + 4)) as Problem
    assert.equal(said, status)
  }
  assert.deepEqual(fake.calls, [])
  assert.equal((await send(fake, 'GET', '/v1/status')).status, 200)
})

test('a caller that sends no end of a head or a body is not waited for', async (t) => {
  const fake = await startServer(t, { headTimeoutMs: 20, requestTimeoutMs: 40, timeoutCheckMs: 10 })
  for (const bytes of ['', 'GET /v1/sta', 'POST /v1/images/seed HTTP/1.1\r\ncontent-length: 10\r\n\r\n{'])
    assert.match(await sendRaw(fake, bytes), /^HTTP\/1\.1 408 [^]*"code":"invalid"/, bytes)
  assert.deepEqual(fake.calls, [])
})

test('connections beyond the bound are closed, and the others served', async (t) => {
  const fake = await startServer(t, { maxConnections: 2 })
  const held = [1, 2].map(() => connect({ path: fake.socket }))
  await Promise.all(held.map(async (stream) => await once(stream, 'connect')))
  await assert.rejects(send(fake, 'GET', '/v1/status'), /socket hang up|ECONNRESET|EPIPE/)
  for (const stream of held) stream.destroy()
  assert.deepEqual(await call('status', {}, { socket: fake.socket }), {})
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
  stream.write('POST /v1/images/seed HTTP/1.0\r\ncontent-length: 13\r\n\r\n{"image":"x"}')
  assert.ok(isP2pfsError(await aborted.promise, 'closed'))
})

test('a server that stops lets what is short come to its end, and closes what is kept open', async (t) => {
  for (const version of ['1.0', '1.1']) {
    const fake = await startServer(t, { drainMs: 60_000 })
    fake.answer = async () => {
      void fake.server.stop()
      await new Promise((resolve) => setImmediate(resolve))
      return { done: true }
    }
    assert.match(await sendRaw(fake, `GET /v1/status HTTP/${version}\r\n\r\n`), /200 OK[^]*{"done":true}\n$/)
    await fake.server.stop()
  }
})

test('a server that stops answers who has connected before', async (t) => {
  const fake = await startServer(t, { drainMs: 60_000 })
  const stream = connect({ path: fake.socket })
  await once(stream, 'connect')
  const other = send(fake, 'GET', '/v1/status')
  await other
  const stopped = fake.server.stop()
  stream.write('GET /v1/status HTTP/1.1\r\n\r\n')
  let text = ''
  for await (const piece of stream.setEncoding('utf8') as AsyncIterable<string>) text += piece
  assert.match(text, /200 OK/)
  await stopped
})

test('a server that stops aborts what is not done in time, and answers it first', async (t) => {
  const fake = await startServer(t, { drainMs: 1 })
  fake.answer = async (call) => {
    void fake.server.stop()
    return await untilAborted(call)
  }
  await assert.rejects(
    call('reset', { directory: '/mnt' }, { socket: fake.socket }),
    (error) => isP2pfsError(error, 'closed') && /daemon is stopping/.test(error.message),
  )
  const plain = await startServer(t, { drainMs: 1 })
  plain.answer = async (call) => {
    void plain.server.stop()
    return await untilAborted(call).catch((cause: unknown) => {
      throw new DOMException('aborted', { name: 'AbortError', cause })
    })
  }
  const answer = await send(plain, 'POST', '/v1/mounts/reset', { body: { directory: '/mnt' } })
  assert.deepEqual([problemIn(answer).code, answer.headers['retry-after']], ['closed', '1'])
})

test('what is not of the API is answered as it is, under its own status', async (t) => {
  const socket = join(temporaryDirectory(t), 'control.sock')
  const plain: PlainAnswers = {
    answer: async (path) =>
      await Promise.resolve(path === '/readyz' ? { status: 503, type: 'text/plain', body: 'not yet' } : undefined),
  }
  const server = new ControlServer({ operations: new FakeOperations().operations, plain, log: silentLog }, { socket })
  await server.start()
  t.after(async () => await server.stop())
  const { status, headers, text } = await send({ socket }, 'GET', '/readyz?verbose')
  assert.deepEqual([status, headers['content-type'], text], [503, 'text/plain', 'not yet'])
  assert.equal(problemIn(await send({ socket }, 'POST', '/readyz')).status, 404)
  assert.deepEqual(await call('status', {}, { socket }), {})
})
