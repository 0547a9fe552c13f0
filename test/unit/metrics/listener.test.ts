import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test, type TestContext } from 'node:test'
import { silentLog, type Log } from '../../../node/base/log.ts'
import type { PlainAnswers } from '../../../node/control/plain-answers.ts'
import { MetricsListener } from '../../../node/metrics/listener.ts'
import { ProbeAnswers } from '../../../node/metrics/probe-answers.ts'
import { Readiness } from '../../../node/metrics/readiness.ts'

interface Answer {
  status: number
  headers: IncomingHttpHeaders
  body: string
}

async function ask(port: number, path: string, options: { method?: string; host?: string } = {}): Promise<Answer> {
  const { method = 'GET', host = `127.0.0.1:${port}` } = options
  const request = httpRequest({ host: '127.0.0.1', port, path, method, headers: { host }, agent: false }).end()
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  let body = ''
  for await (const piece of response.setEncoding('utf8') as AsyncIterable<string>) body += piece
  return { status: response.statusCode ?? 0, headers: response.headers, body }
}

/** A listener on a free port. */
async function listen(
  t: TestContext,
  answers: PlainAnswers[],
  { host = '127.0.0.1', port = 0, log = silentLog }: { host?: string; port?: number; log?: Log } = {},
): Promise<MetricsListener> {
  const listener = new MetricsListener({ answers, log }, { host, port })
  t.after(async () => await listener[Symbol.asyncDispose]())
  await listener.start()
  return listener
}

function probes(): { readiness: Readiness; answers: ProbeAnswers } {
  const readiness = new Readiness()
  const metrics = { text: async () => await Promise.resolve('p2pfs_reads_waiting 0\n') }
  return { readiness, answers: new ProbeAnswers({ metrics, readiness }) }
}

test('a daemon that starts or stops is alive and not ready, and says why', async () => {
  const { readiness, answers } = probes()
  const ask = async (path: string): Promise<unknown> => {
    const answer = await answers.answer(path)
    return answer && [answer.status, answer.body]
  }
  assert.deepEqual(await ask('/livez'), [200, 'ok\n'])
  assert.deepEqual(await ask('/readyz'), [503, 'the daemon is starting\n'])
  readiness.begin()
  assert.deepEqual(await ask('/readyz'), [200, 'ok\n'])
  readiness.end()
  assert.deepEqual(await ask('/livez'), [200, 'ok\n'])
  assert.deepEqual(await ask('/readyz'), [503, 'the daemon is stopping; another may take over in a moment\n'])
})

test('metrics and probes are answered, other paths and methods are not', async (t) => {
  const { answers, readiness } = probes()
  readiness.begin()
  const port = (await listen(t, [answers])).port!
  const metrics = await ask(port, '/metrics')
  assert.deepEqual([metrics.status, metrics.body], [200, 'p2pfs_reads_waiting 0\n'])
  assert.equal(metrics.headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8')
  assert.equal((await ask(port, '/readyz?verbose')).status, 200)
  assert.equal((await ask(port, '/status')).status, 404)
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS'])
    assert.equal((await ask(port, '/metrics', { method })).status, 405)
  const head = await ask(port, '/metrics', { method: 'HEAD' })
  assert.deepEqual([head.status, head.body], [200, ''])
})

test('a browser that was led to loopback by the name of somebody else gets nothing', async (t) => {
  const port = (await listen(t, [probes().answers])).port!
  for (const host of ['evil.example', `evil.example:${port}`, '127.0.0.1.evil.example', '10.0.0.1'])
    assert.equal((await ask(port, '/livez', { host })).status, 421, host)
  for (const host of ['127.0.0.1', `localhost:${port}`, `[::1]:${port}`, 'LOCALHOST'])
    assert.equal((await ask(port, '/livez', { host })).status, 200, host)
})

test('a listener that others reach is asked by whatever name they have for the host, and says so in the log', async (t) => {
  const messages: string[] = []
  const log = { ...silentLog, info: (message: string) => void messages.push(message) }
  const port = (await listen(t, [probes().answers], { host: '0.0.0.0', log })).port!
  assert.equal((await ask(port, '/livez', { host: 'host-7.example:9464' })).status, 200)
  assert.deepEqual(messages, ['metrics and status page are open to the network'])
})

test('all answers forbid scripts, frames and readers of other origins', async (t) => {
  const port = (await listen(t, [probes().answers])).port!
  for (const path of ['/livez', '/none']) {
    const { headers } = await ask(port, path)
    assert.match(headers['content-security-policy'] as string, /^default-src 'none'; script-src 'self'; /)
    assert.doesNotMatch(headers['content-security-policy'] as string, /unsafe|https?:|\*/)
    assert.match(headers['content-security-policy'] as string, /frame-ancestors 'none'/)
    assert.equal(headers['x-content-type-options'], 'nosniff')
    assert.equal(headers['cross-origin-resource-policy'], 'same-origin')
    assert.equal(headers['access-control-allow-origin'], undefined)
  }
})

test('whoever asks often gets the same answer again, and a failure is not kept', async (t) => {
  let asked = 0
  const answers: PlainAnswers = {
    answer: async (path) => {
      asked++
      if (path === '/bad') throw new Error('secret detail')
      return await Promise.resolve({ status: 200, type: 'text/plain', body: String(asked) })
    },
  }
  const port = (await listen(t, [answers])).port!
  const bodies = await Promise.all(Array.from({ length: 20 }, async () => (await ask(port, '/a')).body))
  assert.ok(new Set(bodies).size < 20, bodies.join())
  const before = asked
  const { status, body } = await ask(port, '/bad')
  await ask(port, '/bad')
  assert.equal(asked, before + 2)
  assert.equal(status, 500)
  assert.doesNotMatch(body, /secret/)
})

test('an address that is in use does not keep the daemon from starting; the log says so', async (t) => {
  const other = createServer()
  other.listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.after(() => other.close())
  const { port } = other.address() as AddressInfo
  const errors: string[] = []
  const log = { ...silentLog, error: (message: string) => void errors.push(message) }
  const listener = await listen(t, [probes().answers], { port, log })
  assert.equal(listener.port, undefined)
  assert.deepEqual(errors, [
    'metrics and status page cannot be served; the daemon goes on without them, and tries again',
  ])
})
