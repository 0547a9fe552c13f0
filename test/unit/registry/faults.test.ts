import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { performance } from 'node:perf_hooks'
import type { FaultRegistry } from '../../support/registry/fault-registry.ts'
import type { Fault } from '../../support/registry/faults.ts'
import { mediaTypes } from '../../../node/registry/image-manifest.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { isP2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import { createRandom } from '../../support/random.ts'
import {
  createClient,
  descriptor,
  fails,
  FakeClock,
  impatient,
  layer,
  signal,
  startRegistry,
} from '../../support/registry/fault-client.ts'

const blobs = /\/blobs\//

/**
 * Faults that a read gets over, with the number of pauses that it takes for a range; the same ones for the whole blob.
 */
const survived: [string, Fault][] = [
  ['latency', { latencyMs: 50 }],
  ['a slow link', { rateBytesPerSecond: 20_000_000 }],
  ['ranges that are ignored', { ranges: 'ignore' }],
  ['another range, that begins earlier', { shiftRangeBytes: -1000 }],
  ['another range, that begins later', { shiftRangeBytes: 1000 }],
  ['416 once', { status: 416, times: 1 }],
  ['500 twice', { status: 500, times: 2 }],
  ['502, 503 and so on in a burst', { status: 503, times: 3 }],
  ['429 with seconds', { status: 429, retryAfter: 3, times: 2 }],
  ['408', { status: 408, times: 1 }],
  ['a reset in mid-body', { resetAfterBytes: 20_000, times: 3 }],
  ['a reset before the body', { resetAfterBytes: 0, times: 2 }],
  ['a connection that is closed in mid-body', { closeAfterBytes: 20_000, times: 3 }],
  ['a body that ends early without a word', { truncateAfterBytes: 20_000, times: 3 }],
  ['a body that stalls', { stallAfterBytes: 20_000, times: 2 }],
  ['ranges that are ignored, and resets', { ranges: 'ignore', resetAfterBytes: 1_500_000, times: 2 }],
  ['a request that is never answered', { drop: true, times: 1 }],
]

for (const [what, fault] of survived) {
  test(`${what}: whole blobs and ranges come, right`, async (t) => {
    const server = await startRegistry(t)
    const isSlow = fault.drop !== undefined || fault.stallAfterBytes !== undefined
    const { blob, range } = createClient(t, server.authority, isSlow ? { timeouts: impatient } : {})
    server.faults.add({ path: blobs, ...fault })
    assert.deepEqual(await blob(), layer)
    server.faults.clear()
    const random = createRandom(1)
    for (let i = 0; i < (isSlow ? 1 : 3); i++) {
      server.faults.clear()
      server.faults.add({ path: blobs, ...fault })
      const start = random.below(layer.length - 200_000)
      const end = start + 100_000 + random.below(100_000)
      assert.deepEqual(await range(start, end), layer.subarray(start, end))
    }
    if (isSlow) return
    server.faults.clear()
    server.faults.add({ path: blobs, ...fault })
    assert.deepEqual(await range(layer.length - 50_000, layer.length), layer.subarray(-50_000))
  })
}

test('seeded mixtures of faults: whatever comes is right, or an error with a code', async (t) => {
  const seed = 20_261_121
  t.diagnostic(`seed ${seed}`)
  const random = createRandom(seed)
  const server = await startRegistry(t, {
    access: { kind: 'bearer', tokenLifeMs: 60_000 },
    redirectBlobs: { lifeMs: 60_000 },
  })
  const { blob, range } = createClient(t, server.authority)
  const kinds = survived
    .map(([, fault]) => fault)
    .filter((fault) => fault.drop === undefined && fault.stallAfterBytes === undefined)
  for (let i = 0; i < 40; i++) {
    server.faults.clear()
    for (let n = random.below(3); n >= 0; n--)
      server.faults.add({ ...kinds[random.below(kinds.length)]!, times: 1 + random.below(2), after: random.below(3) })
    const start = random.below(layer.length)
    const end = start + random.below(layer.length - start + 1)
    try {
      if (i % 4 === 0) assert.ok((await blob()).equals(layer))
      else assert.ok((await range(start, end)).equals(layer.subarray(start, end)), `${start} to ${end}`)
    } catch (error) {
      if (!isP2pfsError(error, 'unavailable', 'timeout', 'busy')) throw error
    }
  }
})

const refused: [Fault, ErrorCode, RegExp, number][] = [
  [{ status: 401 }, 'denied', /log in|offers no way/, 1],
  [{ status: 403 }, 'denied', /docker login 127\.0\.0\.1:\d+ as the daemon's user/, 1],
  [{ status: 404 }, 'missing', /check the name/, 1],
  [{ status: 400 }, 'invalid', /answers 400/, 1],
  [{ status: 503 }, 'unavailable', /answers 503; try again later/, 6],
  [{ status: 429, retryAfter: 3600 }, 'busy', /try again in 3600 s/, 1],
  [{ status: 429, retryAfter: new Date(Date.now() + 600_000) }, 'busy', /try again in [1-6]\d\d s/, 1],
]
for (const [fault, code, pattern, asked] of refused) {
  test(`${fault.status} ${typeof fault.retryAfter === 'number' ? 'with seconds' : fault.retryAfter === undefined ? '' : 'with a date'} is ${code}, after ${asked} requests`, async (t) => {
    const server = await startRegistry(t)
    const { range, blob } = createClient(t, server.authority)
    server.faults.add({ path: blobs, ...fault })
    await assert.rejects(range(0, 10), fails(code, pattern))
    assert.equal(server.front.log.length, asked)
    await assert.rejects(blob(), fails(code, pattern))
  })
}

test('waits as long as 429 asks for, in seconds or until a date, and nobody else asks meanwhile', async (t) => {
  const server = await startRegistry(t)
  const { range, clock } = createClient(t, server.authority)
  server.faults.add({ path: blobs, status: 429, retryAfter: 7, times: 1 })
  await range(0, 10)
  assert.deepEqual(clock.slept, [7000])
  clock.slept.length = 0
  server.faults.add({ path: blobs, status: 429, retryAfter: new Date(Date.now() + 20_000), times: 1 })
  await range(0, 10)
  assert.ok(clock.slept[0]! > 18_000 && clock.slept[0]! <= 20_000, `${clock.slept[0]}`)
})

test('gives up after a minute and a half in all, however many tries that were', async (t) => {
  const server = await startRegistry(t)
  const { range, registry, reference, clock } = createClient(t, server.authority)
  server.faults.add({ status: 503, retryAfter: 25 })
  for (const read of [async () => await range(0, 10), async () => await registry.manifest(reference, { signal })]) {
    clock.slept.length = 0
    await assert.rejects(read(), fails('unavailable', /answers 503; try again in 25 s/))
    assert.deepEqual(clock.slept, [25_000, 25_000, 25_000])
  }
})

test('a corrupt byte: a whole blob is refused; a range is for the caller to check', async (t) => {
  const server = await startRegistry(t)
  const { range, blob } = createClient(t, server.authority)
  server.faults.add({ path: blobs, corruptByteAt: 1000 })
  await assert.rejects(blob(), fails('invalid', /does not match its digest/))
  const got = await range(990, 1010)
  assert.notDeepEqual(got, layer.subarray(990, 1010))
  assert.equal(got.length, 20)
})

test('a reset goes on where it broke: no byte comes twice from a registry with ranges', async (t) => {
  const server = await startRegistry(t)
  const { range, blob } = createClient(t, server.authority)
  server.faults.add({ path: blobs, closeAfterBytes: 1_000_000, times: 2 })
  assert.deepEqual(await blob(), layer)
  assert.equal(
    server.front.log.reduce((sum, { bodyBytesSent }) => sum + bodyBytesSent, 0),
    layer.length,
  )
  assert.deepEqual(
    server.front.log.map(({ range: asked }) => asked),
    [undefined, `bytes=1000000-${layer.length - 1}`, `bytes=2000000-${layer.length - 1}`],
  )
  server.front.log.length = 0
  server.faults.add({ path: blobs, closeAfterBytes: 1000, times: 2 })
  await range(5000, 15_000)
  assert.deepEqual(
    server.front.log.map(({ range: asked }) => asked),
    ['bytes=5000-14999', 'bytes=6000-14999', 'bytes=7000-14999'],
  )
})

test('a range far into a blob of a registry without ranges is unsupported, and costs next to nothing', async (t) => {
  const server = await startRegistry(t)
  const large = Buffer.alloc(40 * 1024 * 1024, 'x')
  server.addBlob(large)
  const { registry, reference } = createClient(t, server.authority)
  const of = { digest: digestOf(large), mediaType: '', sizeBytes: large.length }
  server.faults.add({ ranges: 'ignore' })
  await assert.rejects(
    registry.range(reference, of, { start: 30 * 1024 * 1024, end: 30 * 1024 * 1024 + 1 }, { signal }),
    fails('unsupported', /serves no ranges/),
  )
  assert.ok(server.front.log[0]!.bodyBytesSent < large.length / 2)
  assert.equal((await registry.range(reference, of, { start: 1_000_000, end: 1_000_010 }, { signal })).length, 10)
})

test('ranges of a registry without ranges are unsupported when many have come in vain, until some minutes later', async (t) => {
  const server = await startRegistry(t)
  const large = Buffer.alloc(12 * 1024 * 1024, 'x')
  server.addBlob(large)
  const { registry, reference, clock } = createClient(t, server.authority)
  const of = { digest: digestOf(large), mediaType: '', sizeBytes: large.length }
  const range = async (): Promise<unknown> =>
    await registry.range(reference, of, { start: 10 * 1024 * 1024, end: 10 * 1024 * 1024 + 1 }, { signal })
  server.faults.add({ ranges: 'ignore' })
  await range()
  await range()
  await assert.rejects(range(), fails('unsupported', /serves no ranges/))
  clock.nowMs += 300_000
  await range()
})

test('ranges of one connection: the next finds it open', async (t) => {
  const server = await startRegistry(t)
  const { range } = createClient(t, server.authority, { limits: { connections: 1, requestsPerSecond: 1000 } })
  const sockets = new Set<unknown>()
  server.front.onConnection = (socket) => void sockets.add(socket)
  for (let i = 0; i < 20; i++) await range(i * 1000, i * 1000 + 500)
  assert.equal(sockets.size, 1)
})

test('signed URLs that have expired are asked for again; credentials stay away from them', async (t) => {
  const server = await startRegistry(t, {
    access: { kind: 'bearer', tokenLifeMs: 60_000 },
    redirectBlobs: { lifeMs: 60_000 },
  })
  const { range, blob } = createClient(t, server.authority)
  // The first one breaks off, and by then its URL is old.
  server.faults.add({ path: /signed/, closeAfterBytes: 500_000, times: 3 })
  assert.deepEqual(await blob(), layer)
  const registryRequests = server.front.log.filter((entry) => entry.server === 'registry' && entry.status === 307)
  assert.equal(registryRequests.length, 4)
  server.faults.clear()
  server.front.redirectBlobs = { lifeMs: -1 }
  server.faults.add({ path: /\/v2\/.*blobs/, method: 'GET', after: 1, times: 1, status: 503 })
  const renewing = range(0, 1000)
  await assert.rejects(renewing, fails('unavailable', /redirects to answers 403.*may have expired/))
  server.front.redirectBlobs = { lifeMs: 60_000 }
  assert.deepEqual(await range(0, 1000), layer.subarray(0, 1000))
  assert.ok(server.front.log.every((entry) => entry.server !== 'storage' || !entry.authorized))
})

test('one token for many ranges at once; renewed before its end, and long after; once after a 401', async (t) => {
  const server = await startRegistry(t, { access: { kind: 'bearer', tokenLifeMs: 3600_000, expiresInSeconds: 300 } })
  const { range, clock } = createClient(t, server.authority)
  const { tokenScopes } = server.front.access
  const many = async (): Promise<void> =>
    void (await Promise.all(Array.from({ length: 20 }, async (_, i) => await range(i, i + 10))))
  await many()
  assert.deepEqual(tokenScopes, ['repository:lab/app:pull'])
  clock.nowMs += 280_000
  await many()
  assert.equal(tokenScopes.length, 1)
  clock.nowMs += 15_000
  server.front.log.length = 0
  await many()
  assert.equal(tokenScopes.length, 2)
  assert.ok(
    server.front.log.every(({ status }) => status !== 401),
    'renewed before it was refused',
  )
  clock.nowMs += 30 * 24 * 3600_000
  await many()
  assert.equal(tokenScopes.length, 3)
  server.front.access.revokeTokens()
  await many()
  assert.equal(tokenScopes.length, 4)
})

test('a token that is refused at once is denied after one renewal', async (t) => {
  const server = await startRegistry(t, { access: { kind: 'bearer', tokenLifeMs: -1, expiresInSeconds: 300 } })
  const { range } = createClient(t, server.authority)
  await assert.rejects(range(0, 10), fails('denied', /docker login/))
  assert.equal(server.front.access.tokenScopes.length, 1)
})

test('a password that changes is taken up without a restart', async (t) => {
  const server = await startRegistry(t, { access: { kind: 'basic' }, users: [{ username: 'u', password: 'old' }] })
  let password = 'old'
  const { range } = createClient(t, server.authority, {
    credentials: { find: async () => ({ username: 'u', password, identityToken: undefined }) },
  })
  await range(0, 10)
  server.front.access.rules = { access: { kind: 'basic' }, users: [{ username: 'u', password: 'new' }] }
  await assert.rejects(range(0, 10), fails('denied', /docker login/))
  password = 'new'
  assert.deepEqual(await range(0, 10), layer.subarray(0, 10))
})

test('a registry that is down: connections refused, then again there', async (t) => {
  const server = await startRegistry(t)
  const { range, clock } = createClient(t, server.authority)
  await server.front.reject()
  await assert.rejects(range(0, 10), fails('unavailable', /cannot reach 127\.0\.0\.1:\d+: .*ECONNREFUSED/))
  assert.ok(clock.slept.length >= 4)
  await server.front.accept()
  assert.deepEqual(await range(0, 10), layer.subarray(0, 10))
})

test('a registry that accepts and never answers ends in a timeout', async (t) => {
  const server = await startRegistry(t)
  const { registry, reference } = createClient(t, server.authority, { timeouts: { headersMs: 100 } })
  server.faults.add({ drop: true })
  await assert.rejects(registry.manifest(reference, { signal }), fails('timeout', /does not answer within 0.1 s/))
})

test('a registry that stops in mid-body, each time, ends in a timeout', async (t) => {
  const server = await startRegistry(t)
  const { range } = createClient(t, server.authority, { timeouts: { idleMs: 100 } })
  server.faults.add({ stallAfterBytes: 1000 })
  await assert.rejects(range(0, 1_000_000), fails('timeout', /has stopped sending blobs\/.*nothing has come for 0.1 s/))
})

test('an abort ends a read at once, wherever it waits', async (t) => {
  const server = await startRegistry(t)
  const clock = new FakeClock()
  const pauses = Promise.withResolvers<void>()
  clock.sleep = async (_ms, aborted): Promise<void> => {
    pauses.resolve(undefined)
    await new Promise<never>((_resolve, reject) =>
      aborted.addEventListener('abort', () => reject(aborted.reason as Error), { once: true }),
    )
  }
  const { registry, reference } = createClient(t, server.authority, { clock })
  const reading = async (aborted: AbortSignal): Promise<Uint8Array> =>
    await registry.range(reference, descriptor, { start: 0, end: 100_000 }, { signal: aborted })
  for (const fault of [{ drop: true }, { stallAfterBytes: 10 }, { status: 503 }] satisfies Fault[]) {
    server.faults.clear()
    server.faults.add(fault)
    const abort = new AbortController()
    const begun = performance.now()
    const read = reading(abort.signal)
    setTimeout(() => abort.abort(new Error('enough')), 100)
    await assert.rejects(read, /enough/)
    assert.ok(performance.now() - begun < 10_000)
  }
  await pauses.promise
})

test('a client that is closed ends what is under way, and takes nothing more', async (t) => {
  const server = await startRegistry(t)
  const { registry, reference, range } = createClient(t, server.authority)
  server.faults.add({ drop: true, times: 1 })
  const dropped = range(0, 10)
  const limited = Promise.allSettled([dropped])
  while (server.front.log.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  await registry.close()
  await registry.close()
  await limited
  await assert.rejects(dropped, fails('closed', /closed/))
  await assert.rejects(registry.manifest(reference, { signal }), fails('closed', /closed/))
})

test('so many requests at once and no more; those that somebody waits for go first', async (t) => {
  const server: FaultRegistry = await startRegistry(t)
  let active = 0
  let most = 0
  server.faults.add({ latencyMs: 20 })
  const { range, registry, reference } = createClient(t, server.authority, {
    limits: { connections: 4, requestsPerSecond: 1000 },
  })
  server.front.onActive = (change) => {
    active += change
    most = Math.max(most, active)
  }
  await Promise.all(Array.from({ length: 40 }, async (_, i) => await range(i, i + 10)))
  assert.equal(most, 4)
  // Streams that nobody reads hold their connections; a range finds one.
  const streams = Array.from({ length: 8 }, () => registry.blob(reference, descriptor, { signal, verify: false }))
  const iterators = streams.map((stream) => stream[Symbol.asyncIterator]())
  const firsts = iterators.map(async (iterator) => await iterator.next())
  assert.deepEqual(await range(0, 10), layer.subarray(0, 10))
  await Promise.race(firsts)
  const rest = iterators.map(async (iterator, i) => {
    await firsts[i]
    await iterator.return?.(undefined)
  })
  await Promise.all(rest)
})

test('so many requests per second, retries among them', async (t) => {
  const server = await startRegistry(t)
  const { range, clock } = createClient(t, server.authority, { limits: { connections: 16, requestsPerSecond: 5 } })
  server.faults.add({ status: 503, times: 5, after: 5 })
  const begun = clock.nowMs
  for (let i = 0; i < 20; i++) await range(i, i + 10)
  assert.equal(server.front.log.length, 25)
  assert.ok(clock.nowMs - begun >= 3900, `${clock.nowMs - begun} ms for 25 requests, 5 of them at once`)
})

test('a manifest whose bytes are others, or too many, is refused', async (t) => {
  const server = await startRegistry(t)
  const { registry, reference } = createClient(t, server.authority)
  const { digest } = server.addManifest(
    'lab/app',
    'latest',
    '{"schemaVersion":2,"config":{},"layers":[]}',
    mediaTypes.ociManifest,
  )
  server.faults.add({ corruptByteAt: 3 })
  const by = { digest: digest as typeof descriptor.digest, mediaType: '', sizeBytes: 40 }
  await assert.rejects(registry.manifestByDigest(reference, by, { signal }), fails('invalid', /does not match/))
  server.faults.clear()
  server.addManifest('lab/app', 'latest', `"${'x'.repeat(5 * 1024 * 1024)}"`)
  await assert.rejects(registry.manifest(reference, { signal }), fails('invalid', /more than 4194304 bytes/))
})

test('who gives up does not wait for a connection that does not come about', async (t) => {
  const script =
    "const { createServer } = require('net'); const server = createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => console.log(server.address().port))"
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  const [port] = (await once(child.stdout, 'data')) as [Buffer]
  const authority = `127.0.0.1:${Number(port)}`
  // It accepts no more, and its queue is full: further connections are neither made nor refused.
  child.kill('SIGSTOP')
  const waiting = Array.from({ length: 4 }, () => connect(Number(port), '127.0.0.1').on('error', () => undefined))
  t.after(() => waiting.forEach((socket) => socket.destroy()))
  // All have knocked by then.
  await once(waiting[0]!, 'connect')
  const { registry, reference } = createClient(t, authority)
  const begun = performance.now()
  await assert.rejects(registry.manifest(reference, { signal: AbortSignal.timeout(300) }), { name: 'TimeoutError' })
  assert.ok(performance.now() - begun < 2_000, 'at once')
})
