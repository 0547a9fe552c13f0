import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { HttpClient } from '../../../node/registry/http-client.ts'
import { RegistryTraffic } from '../../../node/registry/registry-traffic.ts'
import { P2pfsError } from '../../../protocol/errors.ts'

const failed = { isGivenUp: false, waitedMs: 30_000 }

test('answers count by their status, requests without an answer by the code of the error', () => {
  const traffic = new RegistryTraffic()
  traffic.answered('a', 200)
  traffic.answered('a', 200)
  traffic.answered('a', 404)
  traffic.failed('a', new P2pfsError('timeout', 'no answer'), failed)
  assert.deepEqual(Object.fromEntries(traffic.outcomes), { 200: 2, 404: 1, timeout: 1 })
})

test('a server cannot make up statuses without end', () => {
  const traffic = new RegistryTraffic()
  for (let status = 100; status < 1000; status++) traffic.answered('a', status)
  assert.ok(traffic.outcomes.size < 50, `${traffic.outcomes.size}`)
  assert.ok(traffic.outcomes.get('other')! > 800)
})

test('a request that somebody gave up is no failure; it tells of silence where he had waited long', () => {
  const traffic = new RegistryTraffic()
  for (const waitedMs of [10, 1_000]) {
    traffic.failed('a', new P2pfsError('closed', 'another source has delivered'), { isGivenUp: true, waitedMs })
    traffic.failed('a', new DOMException('aborted', 'AbortError'), { isGivenUp: true, waitedMs })
  }
  assert.equal(traffic.silent, 0)
  traffic.failed('a', new P2pfsError('timeout', 'nobody has delivered it'), { isGivenUp: true, waitedMs: 2_000 })
  assert.equal(traffic.outcomes.size, 0)
  assert.equal(traffic.silent, 1)
})

test('a server is silent until it answers, or has not been asked for long', () => {
  let now = 0
  const traffic = new RegistryTraffic({ now: () => now })
  const silence = new P2pfsError('timeout', 'no answer')
  traffic.failed('a', silence, failed)
  traffic.failed('b', silence, failed)
  traffic.failed('c', new P2pfsError('denied', 'its certificate'), failed)
  assert.equal(traffic.silent, 2)
  traffic.answered('a', 503)
  assert.equal(traffic.silent, 1)
  now += 300_000
  assert.equal(traffic.silent, 0)
})

test('a client counts what becomes of its requests', async (t) => {
  const server = createServer((request, response) => response.writeHead(request.url === '/' ? 200 : 404).end())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const traffic = new RegistryTraffic()
  const client = new HttpClient({}, { userAgent: 'test', traffic, environment: {} })
  t.after(async () => await client.close())
  const get = async (path: string): Promise<number> => {
    const { signal } = new AbortController()
    const url = new URL(path, `http://127.0.0.1:${port}`)
    return (await client.text(url, { method: 'GET', headers: {}, subject: path, signal })).status
  }
  assert.deepEqual([await get('/'), await get('/none')], [200, 404])
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  await assert.rejects(get('/'))
  assert.deepEqual([...traffic.outcomes.keys()].slice(0, 2), ['200', '404'])
  assert.equal(traffic.silent, 1)
})
