import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { request } from 'undici'
import { FaultProxy } from '../../../netlab/registry/fault-proxy.ts'
import { FaultRegistry, type FaultRegistryOptions } from '../../support/registry/fault-registry.ts'
import type { Fault } from '../../support/registry/faults.ts'
import { oddImage } from '../../../netlab/images/images.ts'
import { LabAuthority } from '../../../netlab/registry/lab-certificates.ts'
import { run } from '../../../netlab/hosts/process.ts'
import { startDockerRegistry } from '../registry/docker-registry.ts'
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const blob = createRandom(3).bytes(200_000)

async function startRegistry(
  t: TestContext,
  options: FaultRegistryOptions = {},
): Promise<{ registry: FaultRegistry; url: string; path: string }> {
  const registry = await FaultRegistry.start(options)
  t.after(async () => await registry[Symbol.asyncDispose]())
  const path = `/v2/lab/app/blobs/${registry.addBlob(blob).digest}`
  return { registry, url: `${registry.front.origin}${path}`, path }
}

async function get(
  url: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; headers: Record<string, string | string[] | undefined>; body: Buffer }> {
  const response = await request(url, { headers })
  return {
    status: response.statusCode,
    headers: response.headers,
    body: Buffer.from(await response.body.arrayBuffer()),
  }
}

/** The length of the body as far as it comes, and the error that ends it. */
async function partial(url: string, bodyTimeout = 10_000): Promise<{ length: number; error: string | undefined }> {
  const response = await request(url, { bodyTimeout })
  let length = 0
  try {
    for await (const piece of response.body) length += (piece as Buffer).length
  } catch (error) {
    return { length, error: (error as NodeJS.ErrnoException).code }
  }
  return { length, error: undefined }
}

const skopeo = async (...args: string[]): Promise<void> =>
  void (await run('skopeo', ['--insecure-policy', 'copy', '--quiet', '--preserve-digests', ...args]))

test('skopeo pushes an image and pulls it, with tokens, redirects and TLS of a private CA', async (t) => {
  const { layoutDirectory, tag } = await oddImage()
  const directory = temporaryDirectory(t)
  const authority = await LabAuthority.create(join(directory, 'certificates'))
  const { registry } = await startRegistry(t, {
    tls: await authority.issue(['127.0.0.1', 'localhost']),
    access: { kind: 'bearer', tokenLifeMs: 60_000 },
    users: [{ username: 'lab', password: 'secret' }],
    redirectBlobs: { lifeMs: 60_000 },
  })
  const certificates = join(directory, 'certificates')
  // skopeo takes a certificate directory as Docker does. It must find only the CA there.
  const trusted = join(directory, 'trusted')
  mkdirSync(trusted)
  await run('cp', [join(certificates, 'ca.crt'), trusted])
  await skopeo(
    '--dest-creds=lab:secret',
    `--dest-cert-dir=${trusted}`,
    `oci:${layoutDirectory}:${tag}`,
    `docker://${registry.authority}/lab/odd:1`,
  )
  await skopeo(
    '--src-creds=lab:secret',
    `--src-cert-dir=${trusted}`,
    `docker://${registry.authority}/lab/odd:1`,
    `oci:${directory}/copy:odd`,
  )
  const original = await run('skopeo', ['inspect', '--raw', `oci:${layoutDirectory}:${tag}`])
  const copied = await run('skopeo', ['inspect', '--raw', `oci:${directory}/copy:odd`])
  assert.equal(copied.stdout.toString(), original.stdout.toString())
  assert.equal(registry.manifest('lab/odd', '1'), original.stdout.toString())
  assert.ok(registry.front.log.some(({ server }) => server === 'storage'))
})

test('serves the images of an OCI layout', async (t) => {
  const { layoutDirectory, tag } = await oddImage()
  const { registry } = await startRegistry(t)
  await registry.addLayout('lab/odd', layoutDirectory)
  const copy = join(temporaryDirectory(t), 'copy')
  await skopeo('--src-tls-verify=false', `docker://${registry.authority}/lab/odd:${tag}`, `oci:${copy}:odd`)
  const { body } = await get(`${registry.front.origin}/v2/lab/odd/tags/list`)
  const { name, tags } = JSON.parse(body.toString()) as { name: string; tags: string[] }
  assert.equal(name, 'lab/odd')
  assert.ok(tags.includes(tag))
})

test('skopeo pushes and pulls through a proxy before a real registry, and the proxy has faults', async (t) => {
  const { layoutDirectory, tag } = await oddImage()
  const proxy = await FaultProxy.start(await startDockerRegistry(t), { redirectBlobs: { lifeMs: 60_000 } })
  t.after(async () => await proxy[Symbol.asyncDispose]())
  const { authority, faults, origin } = proxy.front
  await skopeo('--dest-tls-verify=false', `oci:${layoutDirectory}:${tag}`, `docker://${authority}/lab/odd:1`)
  await skopeo('--src-tls-verify=false', `docker://${authority}/lab/odd:1`, `oci:${temporaryDirectory(t)}/copy:odd`)
  const manifest = JSON.parse(
    (
      await get(`${origin}/v2/lab/odd/manifests/1`, { accept: 'application/vnd.oci.image.manifest.v1+json' })
    ).body.toString(),
  ) as { layers: { digest: string; size: number }[] }
  const layer = manifest.layers[0]!
  const { headers } = await get(`${origin}/v2/lab/odd/blobs/${layer.digest}`)
  const signed = String(headers['location'])
  assert.equal((await get(signed, { range: 'bytes=10-19' })).body.length, 10)
  faults.add({ path: /blobs/, ranges: 'ignore', times: 1 })
  assert.equal((await get(signed, { range: 'bytes=10-19' })).body.length, layer.size)
  faults.add({ path: /blobs/, truncateAfterBytes: 1000, times: 1 })
  assert.deepEqual(await partial(signed), { length: 1000, error: undefined })
  faults.add({ path: /manifests/, status: 503, retryAfter: 3, times: 1 })
  const refused = await get(`${origin}/v2/lab/odd/manifests/1`)
  assert.deepEqual([refused.status, refused.headers['retry-after']], [503, '3'])
})

test('answers requests of one range, of several, from the end, and beyond the end', async (t) => {
  const { registry, url, path } = await startRegistry(t)
  const single = await get(url, { range: 'bytes=100-199' })
  assert.deepEqual(
    [single.status, single.headers['content-range'], single.body],
    [206, 'bytes 100-199/200000', blob.subarray(100, 200)],
  )
  assert.deepEqual((await get(url, { range: 'bytes=-5' })).body, blob.subarray(-5))
  assert.deepEqual((await get(url, { range: 'bytes=199990-300000' })).body, blob.subarray(199_990))
  const none = await get(url, { range: 'bytes=200000-' })
  assert.deepEqual([none.status, none.headers['content-range']], [416, 'bytes */200000'])
  const several = await get(url, { range: 'bytes=0-9,20-29' })
  assert.match(String(several.headers['content-type']), /^multipart\/byteranges/)
  assert.ok(several.body.includes(blob.subarray(20, 30)))
  registry.faults.add({ ranges: 'refuse-multi', times: 1 })
  assert.equal((await get(url, { range: 'bytes=0-9,20-29' })).status, 416)
  registry.faults.add({ ranges: 'ignore-multi' })
  assert.equal((await get(url, { range: 'bytes=0-9,20-29' })).status, 200)
  assert.equal((await get(url, { range: 'bytes=0-9' })).status, 206)
  registry.faults.add({ ranges: 'ignore' })
  assert.deepEqual((await get(url, { range: 'bytes=0-9' })).body, blob)
  assert.deepEqual(registry.front.log[0], {
    method: 'GET',
    path,
    range: 'bytes=100-199',
    authorized: false,
    server: 'registry',
    status: 206,
    bodyBytesSent: 100,
  })
})

test('a fault affects matching requests only, from a given one on, a given number of times', async (t) => {
  const { registry, url } = await startRegistry(t)
  registry.faults.add({ path: /blobs/, after: 1, times: 2, status: 429, retryAfter: new Date(0) })
  const statuses: number[] = []
  for (let i = 0; i < 4; i++) statuses.push((await get(url)).status)
  assert.deepEqual(statuses, [200, 429, 429, 200])
  const remove = registry.faults.add({ method: 'HEAD', status: 500 })
  assert.equal((await get(url)).status, 200)
  assert.equal((await request(url, { method: 'HEAD' })).statusCode, 500)
  remove()
  assert.equal((await request(url, { method: 'HEAD' })).statusCode, 200)
})

const bodies: [string, Fault, (got: { length: number; error: string | undefined }) => boolean][] = [
  ['reset', { resetAfterBytes: 50_000 }, ({ length, error }) => length <= 50_000 && error !== undefined],
  ['closed', { closeAfterBytes: 50_000 }, ({ length, error }) => length <= 50_000 && error !== undefined],
  ['truncated', { truncateAfterBytes: 50_000 }, ({ length, error }) => length === 50_000 && error === undefined],
  [
    'stalled',
    { stallAfterBytes: 50_000 },
    ({ length, error }) => length === 50_000 && error === 'UND_ERR_BODY_TIMEOUT',
  ],
  [
    'slow, and whole',
    { rateBytesPerSecond: 2_000_000 },
    ({ length, error }) => length === blob.length && error === undefined,
  ],
]
for (const [what, fault, expected] of bodies) {
  test(`a body that is ${what}`, async (t) => {
    const { registry, url } = await startRegistry(t)
    registry.faults.add(fault)
    const got = await partial(url, 200)
    assert.ok(expected(got), JSON.stringify(got))
  })
}

test('a corrupt byte is the same byte of the blob in every range', async (t) => {
  const { registry, url } = await startRegistry(t)
  registry.faults.add({ corruptByteAt: 1000 })
  const wrong = Buffer.from(blob)
  wrong[1000]! ^= 1
  assert.deepEqual((await get(url)).body, wrong)
  assert.deepEqual((await get(url, { range: 'bytes=990-1009' })).body, wrong.subarray(990, 1010))
  assert.deepEqual((await get(url, { range: 'bytes=2000-2009' })).body, blob.subarray(2000, 2010))
})

test('a drop accepts and never answers; a reject refuses connections until the server accepts again', async (t) => {
  const { registry, url } = await startRegistry(t)
  registry.faults.add({ drop: true, times: 1 })
  await assert.rejects(request(url, { headersTimeout: 200 }), { code: 'UND_ERR_HEADERS_TIMEOUT' })
  await registry.front.reject()
  await assert.rejects(request(url), { code: 'ECONNREFUSED' })
  await registry.front.accept()
  assert.equal((await get(url)).status, 200)
})

test('a signed URL is valid for its time, for its blob, and without other credentials', async (t) => {
  const { registry, url } = await startRegistry(t, { redirectBlobs: { lifeMs: 60_000 } })
  const { status, headers } = await get(url)
  const signed = String(headers['location'])
  assert.equal(status, 307)
  assert.ok(signed.startsWith(`http://${registry.front.storageAuthority}/`))
  assert.deepEqual((await get(signed)).body, blob)
  assert.equal((await get(signed, { authorization: 'Bearer x' })).status, 400)
  assert.equal((await get(signed.replace(/sha256:../, 'sha256:00'))).status, 403)
  registry.front.redirectBlobs = { lifeMs: -1 }
  assert.equal((await get(String((await get(url)).headers['location']))).status, 403)
})

test('tokens are valid for their scope and time; basic authentication needs the password', async (t) => {
  const { registry, url } = await startRegistry(t, {
    access: { kind: 'bearer', tokenLifeMs: 60_000 },
    users: [{ username: 'u', password: 'p' }],
  })
  const basic = { authorization: `Basic ${Buffer.from('u:p').toString('base64')}` }
  const token = async (scope: string, headers = basic): Promise<{ authorization: string }> => {
    const { body } = await get(`${registry.front.origin}/token?service=lab&scope=${scope}`, headers)
    return { authorization: `Bearer ${(JSON.parse(body.toString()) as { token: string }).token}` }
  }
  const refused = await get(url)
  assert.deepEqual(
    [refused.status, refused.headers['www-authenticate']],
    [401, `Bearer realm="${registry.front.origin}/token",service="lab",scope="repository:lab/app:pull"`],
  )
  assert.equal((await get(`${registry.front.origin}/token?scope=a`)).status, 401)
  const good = await token('repository:lab/app:pull')
  assert.equal((await get(url, good)).status, 200)
  assert.equal((await get(url, await token('repository:lab/other:pull'))).status, 401)
  assert.equal(
    (await request(`${registry.front.origin}/v2/lab/app/blobs/uploads/`, { method: 'POST', headers: good })).statusCode,
    401,
  )
  registry.front.access.revokeTokens()
  assert.equal((await get(url, good)).status, 401)
  registry.front.access.rules = { access: { kind: 'basic' }, users: [{ username: 'u', password: 'p' }] }
  assert.equal((await get(url, basic)).status, 200)
  assert.equal((await get(url, good)).status, 401)
})

test('lists referrers page by page, filtered by type, or has no such API', async (t) => {
  const { registry } = await startRegistry(t, { referrersPerPage: 2 })
  const empty = registry.addBlob(Buffer.from('{}'), 'application/vnd.oci.empty.v1+json')
  const subject = registry.addManifest('lab/app', 'v1', JSON.stringify({ schemaVersion: 2, config: empty, layers: [] }))
  for (const [i, artifactType] of ['a/x', 'a/x', 'a/y', 'a/x'].entries()) {
    registry.addManifest(
      'lab/app',
      undefined,
      JSON.stringify({
        schemaVersion: 2,
        artifactType,
        config: empty,
        layers: [],
        subject,
        annotations: { i: `${i}` },
      }),
    )
  }
  const path = `${registry.front.origin}/v2/lab/app/referrers/${subject.digest}`
  const first = await get(`${path}?artifactType=a/x`)
  assert.equal((JSON.parse(first.body.toString()) as { manifests: unknown[] }).manifests.length, 2)
  const next = /^<(.+)>; rel="next"$/.exec(String(first.headers['link']))?.[1] ?? ''
  const second = await get(new URL(next, path).href)
  assert.deepEqual(
    (JSON.parse(second.body.toString()) as { manifests: { annotations: unknown }[] }).manifests.map(
      ({ annotations }) => annotations,
    ),
    [{ i: '3' }],
  )
  registry.referrersApi = false
  assert.equal((await get(path)).status, 404)
})
