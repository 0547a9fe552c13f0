import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { Bandwidth } from '../../../node/base/bandwidth.ts'
import type { Credentials } from '../../../node/registry/credentials.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { createClient, fails, readAll, signal, type Client } from '../../support/registry/fault-client.ts'
import { serve } from '../../support/registry/serve.ts'
import {
  answer,
  assertImage,
  config,
  describe,
  layer,
  layerDescriptor,
  manifest,
  types,
} from '../../support/registry/small-image.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

function client(t: TestContext, host: string, credentials?: Credentials): Client {
  return createClient(t, host, { credentials: { find: async () => credentials } })
}

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
  const { source, clock } = client(t, host, { username: 'u', password: 'p', identityToken: undefined })
  const reference = parseReference(`${host}/lab/app`)
  await assertImage(source, reference)
  assert.deepEqual(asked, [`s repository:lab/app:pull Basic ${Buffer.from('u:p').toString('base64')}`])
  clock.nowMs += 3_600_000
  await assertImage(source, reference)
  valid = 'revoked'
  await assertImage(source, reference)
  assert.equal(asked.length, 3)
})

test('small answers do not wait behind layers for a limit on bandwidth; layers keep to all of them', async (t) => {
  const small = /\/token|\/manifests\/|\/referrers\//
  let asked = ''
  const taken: { asked: string; isUrgent: boolean }[] = []
  const host = await serve(t, (request, response) => {
    asked = request.url ?? ''
    if (asked.startsWith('/token')) response.end(JSON.stringify({ token: 'x' }))
    else if (request.headers.authorization !== 'Bearer x')
      response
        .writeHead(401, { 'www-authenticate': `Bearer realm="http://${request.headers.host}/token",service="s"` })
        .end()
    else if (asked.includes('/referrers/'))
      response.end(JSON.stringify({ schemaVersion: 2, mediaType: types.index, manifests: [] }))
    else answer(request, response)
  })
  const bandwidth: Pick<Bandwidth, 'take'> = {
    take: async (_bytes, { urgency: { isUrgent } }) => {
      taken.push({ asked, isUrgent })
      await Promise.resolve()
    },
  }
  const { registry, source, reference } = createClient(t, host, { bandwidths: [bandwidth, bandwidth] })
  await assertImage(source, reference)
  await registry.referrers(reference, layerDescriptor.digest, undefined, { signal })
  assert.equal(taken.length % 2, 0)
  for (const { asked: url, isUrgent } of taken) assert.equal(isUrgent, small.test(url), url)
  for (const kind of ['/token', '/manifests/', '/referrers/', '/blobs/'])
    assert.ok(
      taken.some(({ asked: url }) => url.includes(kind)),
      kind,
    )
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
    client(t, host, { username: 'u', password: 'p', identityToken: undefined }).source,
    parseReference(`${host}/lab/app`),
  )
  assert.deepEqual(seen, [undefined, undefined])
  const loop = await serve(
    t,
    (request, response) => void response.writeHead(302, { location: request.url ?? '/' }).end(),
  )
  await assert.rejects(
    client(t, loop).source.resolve(parseReference(`${loop}/a`), 'linux/amd64', { signal }),
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
  const { registry, clock } = client(t, host)
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
      client(t, refusing).registry.manifest(parseReference(`${refusing}/a`), { signal }),
      fails(code, /./),
    )
    assert.equal(asked, 1)
  }
  const down = client(t, '127.0.0.1:1')
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
    const bytes = client(t, host).registry.blob(parseReference(`${host}/a`), layerDescriptor, { signal })
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
      readAll(client(t, host).registry.blob(parseReference(`${host}/a`), layerDescriptor, { signal })),
      fails(code, /blob/),
    )
  }
})

test('a manifest that does not match the digest it was asked by is invalid', async (t) => {
  const host = await serve(t, (_request, response) => void response.end(`${manifest} `))
  await assert.rejects(
    client(t, host).source.resolve(parseReference(`${host}/a@${digestOf(Buffer.from(manifest))}`), 'linux/amd64', {
      signal,
    }),
    fails('invalid', /does not match/),
  )
})

test('an OCI layout on disk is as good as a registry', async (t) => {
  const directory = temporaryDirectory(t)
  mkdirSync(join(directory, 'blobs/sha256'), { recursive: true })
  for (const bytes of [layer, Buffer.from(config), Buffer.from(manifest)])
    writeFileSync(join(directory, 'blobs/sha256', digestOf(bytes).slice(7)), bytes)
  const named = {
    ...describe(manifest, types.manifest),
    annotations: { 'org.opencontainers.image.ref.name': 'v1' },
  }
  writeFileSync(join(directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [named] }))
  const { source } = client(t, 'unused')
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
