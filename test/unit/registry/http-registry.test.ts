import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, type ErrorCode } from '../../../protocol/errors.ts'
import { silentLog } from '../../../node/base/log.ts'
import type { Credentials } from '../../../node/registry/credentials.ts'
import { HttpRegistry } from '../../../node/registry/http-registry.ts'
import { ImageSource } from '../../../node/registry/image-source.ts'
import { OciLayout } from '../../../node/registry/oci-layout.ts'
import { parseReference, type Reference } from '../../../node/registry/reference.ts'
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { startDockerRegistry } from '../../lab/registry/docker-registry.ts'

const { signal } = new AbortController()
const layer = createRandom(5).bytes(300_000)
const config = JSON.stringify({
  architecture: 'amd64',
  os: 'linux',
  rootfs: { type: 'layers', diff_ids: [digestOf(Buffer.from('tar'))] },
})
const descriptor = (mediaType: string, bytes: Buffer): object => ({
  mediaType,
  digest: digestOf(bytes),
  size: bytes.length,
})
const manifest = JSON.stringify({
  schemaVersion: 2,
  mediaType: 'application/vnd.oci.image.manifest.v1+json',
  config: descriptor('application/vnd.oci.image.config.v1+json', Buffer.from(config)),
  layers: [descriptor('application/vnd.oci.image.layer.v1.tar+gzip', layer)],
})
const layerDescriptor = { digest: digestOf(layer), mediaType: '', sizeBytes: layer.length }

/** Waits for nothing, and remembers how long it would have waited. */
class FakeClock {
  readonly slept: number[] = []
  nowMs = 1_000_000
  now = (): number => this.nowMs
  random = (): number => 0.5
  sleep = async (ms: number): Promise<void> => {
    this.slept.push(ms)
    this.nowMs += ms
  }
}

function client(
  host: string,
  credentials?: Credentials,
): { source: ImageSource; registry: HttpRegistry; clock: FakeClock } {
  const clock = new FakeClock()
  const registry = new HttpRegistry(
    { log: silentLog, clock, credentials: { find: async () => credentials } },
    { insecureRegistries: [host], userAgent: 'test' },
  )
  return { source: new ImageSource({ registry, layout: new OciLayout() }), registry, clock }
}

async function readAll(bytes: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  for await (const piece of bytes) pieces.push(piece)
  return Buffer.concat(pieces)
}

const fails = (code: ErrorCode, pattern: RegExp) => (error: unknown) =>
  isP2pfsError(error, code) && pattern.test(error.message)

/** A server of our own; `handle` answers everything. */
async function serve(
  t: TestContext,
  handle: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<string> {
  const server = createServer(handle)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Answers what the image has; anything else is 404. */
function answer(request: IncomingMessage, response: ServerResponse): void {
  const name = request.url?.split('/').at(-1) ?? ''
  const body =
    name === 'latest' || name === digestOf(Buffer.from(manifest))
      ? manifest
      : name === digestOf(Buffer.from(config))
        ? config
        : name === layerDescriptor.digest
          ? layer
          : undefined
  if (body === undefined) response.writeHead(404).end()
  else response.end(body)
}

/** Debian's docker-registry on loopback, with the image in it. */
async function startRegistry(t: TestContext, users?: string): Promise<string> {
  const host = await startDockerRegistry(t, users)
  const base = `http://${host}/v2/lab/app`
  const headers: Record<string, string> =
    users === undefined ? {} : { authorization: `Basic ${Buffer.from('user:secret').toString('base64')}` }
  for (const blob of [layer, Buffer.from(config)]) {
    const { headers: started } = await fetch(`${base}/blobs/uploads/`, { method: 'POST', headers })
    const location = new URL(started.get('location') ?? '', base)
    location.searchParams.set('digest', digestOf(blob))
    const put = await fetch(location, {
      method: 'PUT',
      headers: { ...headers, 'content-type': 'application/octet-stream' },
      body: Uint8Array.from(blob),
    })
    assert.equal(put.status, 201)
  }
  const put = await fetch(`${base}/manifests/latest`, {
    method: 'PUT',
    headers: { ...headers, 'content-type': 'application/vnd.oci.image.manifest.v1+json' },
    body: manifest,
  })
  assert.equal(put.status, 201)
  return host
}

async function assertImage(source: ImageSource, reference: Reference): Promise<void> {
  const image = await source.resolve(reference, 'linux/amd64', { signal })
  assert.equal(image.manifest, manifest)
  assert.equal(image.config, config)
  assert.equal(image.manifestDigest, digestOf(Buffer.from(manifest)))
  assert.deepEqual(await readAll(source.openLayer(reference, image.layers[0]!, { signal })), layer)
}

test('reads an image from a real registry, by tag and by digest', async (t) => {
  const host = await startRegistry(t)
  const { source } = client(host)
  await assertImage(source, parseReference(`${host}/lab/app`))
  await assertImage(source, parseReference(`${host}/lab/app@${digestOf(Buffer.from(manifest))}`))
  await assert.rejects(
    source.resolve(parseReference(`${host}/lab/app:2`), 'linux/amd64', { signal }),
    fails('missing', /has no manifests\/2 of lab\/app/),
  )
})

test('logs in to a real registry with basic authentication, and says so where it cannot', async (t) => {
  // htpasswd -B of user:secret
  const host = await startRegistry(t, 'user:$2y$05$FuMLR6MJGBT9iOo36BoOpOZf9r0B4TZkLD.mIFP7LkJKOkk0j4ZZ.\n')
  const reference = parseReference(`${host}/lab/app`)
  await assertImage(client(host, { username: 'user', password: 'secret', identityToken: undefined }).source, reference)
  await assert.rejects(
    client(host).source.resolve(reference, 'linux/amd64', { signal }),
    fails('denied', /docker login/),
  )
  const wrong = client(host, { username: 'user', password: 'wrong', identityToken: undefined })
  await assert.rejects(wrong.source.resolve(reference, 'linux/amd64', { signal }), fails('denied', /docker login/))
})

test('fetches a bearer token for the repository, keeps it, and renews it when it ends', async (t) => {
  const asked: string[] = []
  let valid = ''
  const host = await serve(t, (request, response) => {
    const url = new URL(request.url ?? '', 'http://x')
    if (url.pathname === '/token') {
      asked.push(
        `${url.searchParams.get('service')} ${url.searchParams.get('scope')} ${request.headers.authorization ?? ''}`,
      )
      valid = `token-${asked.length}`
      response.end(JSON.stringify({ token: valid, expires_in: 60 }))
    } else if (request.headers.authorization === `Bearer ${valid}`) answer(request, response)
    else
      response
        .writeHead(401, {
          'www-authenticate': `Bearer realm="http://${request.headers.host}/token",service="s",scope="repository:lab/app:pull"`,
        })
        .end()
  })
  const { source, clock } = client(host, { username: 'u', password: 'p', identityToken: undefined })
  const reference = parseReference(`${host}/lab/app`)
  await assertImage(source, reference)
  assert.deepEqual(asked, [`s repository:lab/app:pull Basic ${Buffer.from('u:p').toString('base64')}`])
  clock.nowMs += 3_600_000
  await assertImage(source, reference)
  valid = 'revoked'
  await assertImage(source, reference)
  assert.equal(asked.length, 3)
})

test('follows redirects, and keeps credentials from the host that they lead to', async (t) => {
  const seen: (string | undefined)[] = []
  const storage = await serve(t, (request, response) => {
    seen.push(request.headers.authorization)
    answer(request, response)
  })
  const host = await serve(t, (request, response) => {
    if (request.headers.authorization === undefined)
      response.writeHead(401, { 'www-authenticate': 'Basic realm="r"' }).end()
    else if (request.url?.includes('/blobs/') === true)
      response.writeHead(307, { location: `http://${storage}${request.url}` }).end()
    else answer(request, response)
  })
  await assertImage(
    client(host, { username: 'u', password: 'p', identityToken: undefined }).source,
    parseReference(`${host}/lab/app`),
  )
  assert.deepEqual(seen, [undefined, undefined])
  const loop = await serve(
    t,
    (request, response) => void response.writeHead(302, { location: request.url ?? '/' }).end(),
  )
  await assert.rejects(
    client(loop).source.resolve(parseReference(`${loop}/a`), 'linux/amd64', { signal }),
    fails('unavailable', /redirects without end/),
  )
})

test('tries again what may pass, as late as it is asked to, and nothing else', async (t) => {
  let count = 0
  const answers = [503, 429, 200]
  const host = await serve(t, (request, response) => {
    const status = answers[count++] ?? 200
    if (status === 200) answer(request, response)
    else response.writeHead(status, status === 429 ? { 'retry-after': '7' } : {}).end()
  })
  const { registry, clock } = client(host)
  await registry.manifest(parseReference(`${host}/a`), { signal })
  assert.deepEqual(clock.slept, [150, 7000])
  for (const [status, code] of [
    [400, 'invalid'],
    [403, 'denied'],
    [404, 'missing'],
  ] as const) {
    let asked = 0
    const refusing = await serve(t, (_request, response) => {
      asked++
      response.writeHead(status).end()
    })
    await assert.rejects(
      client(refusing).registry.manifest(parseReference(`${refusing}/a`), { signal }),
      fails(code, /./),
    )
    assert.equal(asked, 1)
  }
  const down = client('127.0.0.1:1')
  await assert.rejects(
    down.registry.manifest(parseReference('127.0.0.1:1/a'), { signal }),
    fails('unavailable', /cannot reach 127\.0\.0\.1:1/),
  )
  assert.equal(down.clock.slept.length, 4)
})

test('takes a blob up where the connection broke, with or without ranges', async (t) => {
  for (const ranges of [true, false]) {
    let count = 0
    const host = await serve(t, (request, response) => {
      const from = ranges ? Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0) : 0
      response.writeHead(from > 0 ? 206 : 200, {
        'content-length': layer.length - from,
        ...(from > 0 ? { 'content-range': `bytes ${from}-${layer.length - 1}/${layer.length}` } : {}),
      })
      const end = Math.min(layer.length, 100_000 * ++count)
      response.write(layer.subarray(from, end), () => {
        if (end < layer.length) response.destroy()
        else response.end()
      })
    })
    const bytes = client(host).registry.blob(parseReference(`${host}/a`), layerDescriptor, { signal })
    assert.deepEqual(await readAll(bytes), layer)
    assert.ok(count >= 3)
  }
})

test('corrupt, short and long blobs are invalid, or unavailable where they may come whole next time', async (t) => {
  const corrupt = Buffer.from(layer)
  corrupt[1000]! ^= 1
  for (const [bytes, code] of [
    [corrupt, 'invalid'],
    [Buffer.concat([layer, Buffer.from('x')]), 'invalid'],
    [layer.subarray(0, -1), 'unavailable'],
  ] as const) {
    const host = await serve(t, (_request, response) => void response.end(bytes))
    await assert.rejects(
      readAll(client(host).registry.blob(parseReference(`${host}/a`), layerDescriptor, { signal })),
      fails(code, /blob/),
    )
  }
})

test('a manifest that does not match the digest it was asked by is invalid', async (t) => {
  const host = await serve(t, (_request, response) => void response.end(`${manifest} `))
  await assert.rejects(
    client(host).source.resolve(parseReference(`${host}/a@${digestOf(Buffer.from(manifest))}`), 'linux/amd64', {
      signal,
    }),
    fails('invalid', /does not match/),
  )
})

test('chooses from an index by platform, and says what there is', async (t) => {
  const entry = (os: string, architecture: string, variant?: string): object => ({
    ...descriptor('application/vnd.oci.image.manifest.v1+json', Buffer.from(manifest)),
    platform: { os, architecture, ...(variant === undefined ? {} : { variant }) },
  })
  const index = JSON.stringify({
    schemaVersion: 2,
    manifests: [entry('unknown', 'unknown'), entry('linux', 'amd64'), entry('linux', 'arm64', 'v8')],
  })
  const host = await serve(t, (request, response) =>
    request.url?.endsWith('/latest') === true ? void response.end(index) : answer(request, response),
  )
  const reference = parseReference(`${host}/a`)
  const { source } = client(host)
  assert.equal((await source.resolve(reference, 'linux/amd64', { signal })).manifest, manifest)
  // The entry is found; but the image in it says that it is for something else.
  for (const platform of ['linux/arm64', 'linux/arm64/v8'])
    await assert.rejects(source.resolve(reference, platform, { signal }), fails('missing', /is for linux\/amd64/))
  await assert.rejects(
    source.resolve(reference, 'linux/s390x', { signal }),
    fails('missing', /linux\/amd64, linux\/arm64\/v8/),
  )
})

test('an OCI layout on disk is as good as a registry', async (t) => {
  const directory = temporaryDirectory(t)
  mkdirSync(join(directory, 'blobs/sha256'), { recursive: true })
  for (const bytes of [layer, Buffer.from(config), Buffer.from(manifest)])
    writeFileSync(join(directory, 'blobs/sha256', digestOf(bytes).slice(7)), bytes)
  const named = {
    ...descriptor('application/vnd.oci.image.manifest.v1+json', Buffer.from(manifest)),
    annotations: { 'org.opencontainers.image.ref.name': 'v1' },
  }
  writeFileSync(join(directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [named] }))
  const { source } = client('unused')
  await assertImage(source, parseReference(`oci:${directory}:v1`))
  await assertImage(source, parseReference(`oci:${directory}`))
  await assert.rejects(
    source.resolve(parseReference(`oci:${directory}:v2`), 'linux/amd64', { signal }),
    fails('missing', /has no image v2; it has v1/),
  )
  await assert.rejects(
    source.resolve(parseReference(`oci:${directory}/nowhere`), 'linux/amd64', { signal }),
    fails('missing', /no OCI layout/),
  )
  const reference = parseReference(`oci:${directory}`)
  const wrong: Digest = layerDescriptor.digest
  writeFileSync(join(directory, 'blobs/sha256', wrong.slice(7)), Buffer.alloc(layer.length))
  await assert.rejects(
    readAll(source.openLayer(reference, layerDescriptor, { signal })),
    fails('invalid', /does not match its digest/),
  )
})
