import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { createLog } from '../../../node/base/log.ts'
import { normalizePlatform, parsePlatform, platformDistance } from '../../../node/model/platform.ts'
import { createClient, fails, signal, startRegistry, type Client } from '../../support/registry/fault-client.ts'
import type { FaultRegistry } from '../../support/registry/fault-registry.ts'
import { config, configFor, describe, indexOf, layer, manifestOf, types } from '../../support/registry/small-image.ts'

for (const [given, normal] of [
  ['linux/amd64', 'linux/amd64'],
  ['Linux/X86_64', 'linux/amd64'],
  ['linux/x86-64', 'linux/amd64'],
  ['linux/amd64/v1', 'linux/amd64'],
  ['linux/amd64/v3', 'linux/amd64/v3'],
  ['linux/i386', 'linux/386'],
  ['linux/aarch64', 'linux/arm64'],
  ['linux/arm64/v8', 'linux/arm64'],
  ['linux/arm64/8', 'linux/arm64'],
  ['linux/arm64/v9.0', 'linux/arm64/v9'],
  ['linux/armhf', 'linux/arm/v7'],
  ['linux/armel', 'linux/arm/v6'],
  ['linux/arm', 'linux/arm/v7'],
  ['linux/arm/6', 'linux/arm/v6'],
  ['linux/riscv64', 'linux/riscv64'],
  ['macOS/arm64', 'darwin/arm64'],
] as const) {
  test(`${given} is ${normal}`, () => assert.equal(normalizePlatform(given), normal))
}

test('a host takes older variants of its architecture, the newest first, and no other architecture', () => {
  const order = (host: string, images: readonly string[]): string[] =>
    images
      .map((image) => ({ image, distance: platformDistance(parsePlatform(host), parsePlatform(image)) }))
      .filter(({ distance }) => distance !== undefined)
      .toSorted((a, b) => a.distance! - b.distance!)
      .map(({ image }) => image)
  const arm = ['linux/arm/v5', 'linux/arm/v6', 'linux/arm/v7', 'linux/arm/v8', 'linux/arm64', 'windows/arm']
  assert.deepEqual(order('linux/arm/v7', arm), ['linux/arm/v7', 'linux/arm/v6', 'linux/arm/v5'])
  assert.deepEqual(order('linux/arm/v8', arm), ['linux/arm/v8', 'linux/arm/v7', 'linux/arm/v6', 'linux/arm/v5'])
  assert.deepEqual(order('linux/arm64', arm), ['linux/arm64'])
  assert.deepEqual(order('linux/arm64/v9', ['linux/arm64/v8.7', 'linux/arm64/v8.5', 'linux/arm64']), [
    'linux/arm64/v8.5',
    'linux/arm64',
  ])
  const amd = ['linux/amd64', 'linux/amd64/v2', 'linux/amd64/v3', 'linux/386']
  assert.deepEqual(order('linux/amd64', amd), ['linux/amd64'])
  assert.deepEqual(order('linux/amd64/v3', amd), ['linux/amd64/v3', 'linux/amd64/v2', 'linux/amd64'])
})

interface Index extends Client {
  server: FaultRegistry
  lines: string[]
  /** Stores an image. @returns its descriptor, with `more` */
  image: (configJson: string, more?: object, manifestMore?: object) => object
  /** Makes an index `latest`. */
  tag: (entries: readonly object[]) => void
  resolve: (platform?: string) => Promise<string>
}

async function start(t: TestContext): Promise<Index> {
  const server = await startRegistry(t)
  server.addBlob(layer)
  const lines: string[] = []
  const client = createClient(t, server.authority, { log: createLog('info', (line) => void lines.push(line)) })
  return {
    ...client,
    server,
    lines,
    image: (configJson, more = {}, manifestMore = {}) => {
      server.addBlob(Buffer.from(configJson))
      const json = manifestOf(configJson, manifestMore)
      server.addManifest('lab/app', undefined, json)
      return { ...describe(json, types.manifest), ...more }
    },
    tag: (entries) => void server.addManifest('lab/app', 'latest', indexOf(entries), types.index),
    resolve: async (platform = 'linux/amd64') =>
      (await client.source.resolve(client.reference, platform, { signal })).config,
  }
}

const amd64 = { platform: { os: 'linux', architecture: 'amd64' } }
const other = (name: string): string => configFor({ os: 'linux', architecture: 'amd64', author: name })

test('an index whose names are written otherwise has the image all the same', async (t) => {
  const { image, tag, resolve } = await start(t)
  const arm = configFor({ os: 'linux', architecture: 'arm', variant: 'v6' })
  tag([
    image(arm, { platform: { os: 'Linux', architecture: 'ARM', variant: '6' } }),
    image(config, { platform: { os: 'linux', architecture: 'x86_64' } }),
  ])
  assert.equal(await resolve(), config)
  assert.equal(await resolve('linux/arm/v7'), arm)
  await assert.rejects(
    resolve('linux/arm64'),
    fails('missing', /has no image for linux\/arm64; --platform takes one that it has: Linux\/ARM\/6/),
  )
})

test('the index is believed where an image config names another platform, with one warning', async (t) => {
  const { image, tag, resolve, lines } = await start(t)
  tag([image(config, { platform: { os: 'linux', architecture: 'arm64' } })])
  for (let i = 0; i < 3; i++) assert.equal(await resolve('linux/arm64'), config)
  assert.equal(lines.length, 1)
  assert.match(lines[0]!, /image config names another platform.*"config":"linux\/amd64"/)
})

test('an image that is in no index is for the platform that its config names', async (t) => {
  const { server, resolve } = await start(t)
  const odd = configFor({ os: 'Linux', architecture: 'x86_64' })
  server.addBlob(Buffer.from(odd))
  server.addManifest('lab/app', 'latest', manifestOf(odd))
  assert.equal(await resolve(), odd)
  await assert.rejects(resolve('linux/arm64'), fails('missing', /is for linux\/amd64 only, and not for linux\/arm64/))
})

test('artifacts, attestations and images for special hosts are no images of an index', async (t) => {
  const { image, tag, resolve } = await start(t)
  tag([
    image(other('soci'), { ...amd64, artifactType: 'application/vnd.amazon.soci.index.v2+json' }),
    image(other('nydus'), { platform: { ...amd64.platform, 'os.features': ['nydus.remoteimage.v1'] } }),
    image(other('attestation'), { platform: { os: 'unknown', architecture: 'unknown' } }),
    image(other('attested'), { ...amd64, annotations: { 'vnd.docker.reference.type': 'attestation-manifest' } }),
    image(other('typed'), { ...amd64, mediaType: 'application/vnd.oci.artifact.manifest.v1+json' }),
    // The index does not say that this is an artifact: the manifest does.
    image(other('hidden'), amd64, { artifactType: 'application/x' }),
    image(other('config'), amd64, { config: { ...describe('{}', 'application/vnd.oci.empty.v1+json') } }),
    image(config, amd64),
  ])
  assert.equal(await resolve(), config)
})

test('entries without a platform are looked into, after those with one', async (t) => {
  const { image, tag, resolve } = await start(t)
  const arm = configFor({ os: 'linux', architecture: 'arm64' })
  tag([image(arm), image(config), image(other('named'), amd64)])
  assert.equal(await resolve(), other('named'))
  assert.equal(await resolve('linux/arm64'), arm)
  tag([image(arm), image(config)])
  assert.equal(await resolve(), config)
})

test('an index within an index, and one that has no end', async (t) => {
  const { server, image, tag, resolve } = await start(t)
  const arm = indexOf([
    image(configFor({ os: 'linux', architecture: 'arm64' }), { platform: { os: 'linux', architecture: 'arm64' } }),
  ])
  const inner = indexOf([image(config, amd64)])
  const nested = [arm, inner].map((json) => server.addManifest('lab/app', undefined, json, types.index))
  tag(nested)
  assert.equal(await resolve(), config)
  let deep = inner
  for (let depth = 0; depth < 5; depth++) deep = indexOf([server.addManifest('lab/app', undefined, deep, types.index)])
  server.addManifest('lab/app', 'latest', deep, types.index)
  await assert.rejects(resolve(), fails('invalid', /an index in more than 3 others/))
  tag(Array.from({ length: 50 }, (_, i) => image(configFor({ os: 'linux', architecture: 'arm64', i }))))
  server.front.log.length = 0
  await assert.rejects(resolve(), fails('invalid', /among its first 16 manifests/))
  assert.ok(server.front.log.length < 40)
})

test('the digest that a tag names costs one HEAD request, however its index is nested', async (t) => {
  const { server, source, reference, image, tag } = await start(t)
  tag([server.addManifest('lab/app', undefined, indexOf([image(config, amd64)]), types.index)])
  const { topDigest } = await source.resolve(reference, 'linux/amd64', { signal })
  server.front.log.length = 0
  assert.equal(await source.topDigest(reference, { signal }), topDigest)
  assert.deepEqual(
    server.front.log.map(({ method }) => method),
    ['HEAD'],
  )
  tag([image(other('changed'), amd64)])
  assert.notEqual(await source.topDigest(reference, { signal }), topDigest)
})

test('a registry that does not answer HEAD is asked with GET', async (t) => {
  const { server, source, reference, image, tag } = await start(t)
  tag([image(config, amd64)])
  const { topDigest } = await source.resolve(reference, 'linux/amd64', { signal })
  server.faults.add({ method: 'HEAD', status: 405 })
  assert.equal(await source.topDigest(reference, { signal }), topDigest)
})
