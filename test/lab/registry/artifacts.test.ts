import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { run } from '../../../netlab/hosts/process.ts'
import { mediaTypes } from '../../../node/registry/image-manifest.ts'
import type { ImageStorage, Referrer } from '../../../node/registry/image-storage.ts'
import { OciLayout } from '../../../node/registry/oci-layout.ts'
import { parseReference, type Reference } from '../../../node/registry/reference.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import {
  createClient,
  descriptor,
  fails,
  impatient,
  layer,
  readAll,
  signal,
  startRegistry,
} from '../../unit/registry/fault-client.ts'

const empty = Buffer.from('{}')
const emptyDescriptor = { mediaType: 'application/vnd.oci.empty.v1+json', digest: digestOf(empty), size: 2 }

const notesOf = (referrers: readonly Referrer[]): string[] =>
  referrers.map(({ annotations }) => annotations['note'] ?? '').toSorted()

function artifact(subject: { digest: Digest; sizeBytes: number }, artifactType: string, note: string): string {
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    artifactType,
    config: emptyDescriptor,
    layers: [emptyDescriptor],
    subject: { mediaType: mediaTypes.ociManifest, digest: subject.digest, size: subject.sizeBytes },
    annotations: { note },
  })
}

function emptyLayout(t: TestContext): Reference {
  const directory = temporaryDirectory(t)
  mkdirSync(join(directory, 'blobs/sha256'), { recursive: true })
  writeFileSync(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  writeFileSync(join(directory, 'index.json'), '{"schemaVersion":2,"manifests":[]}')
  return parseReference(`oci:${directory}`)
}

/** Each place that artifacts go to: the same holds of all of them. */
const places: [string, (t: TestContext) => Promise<{ storage: ImageStorage; reference: Reference }>][] = [
  [
    'a registry with the referrers API',
    async (t) => {
      const { registry, reference } = createClient(t, (await startRegistry(t, { referrersPerPage: 2 })).authority)
      return { storage: registry, reference }
    },
  ],
  [
    'a registry without it',
    async (t) => {
      const { registry, reference } = createClient(t, (await startRegistry(t, { referrersApi: false })).authority)
      return { storage: registry, reference }
    },
  ],
  [
    'a registry that wants a token',
    async (t) => {
      const users = [{ username: 'u', password: 'p' }]
      const server = await startRegistry(t, {
        access: { kind: 'bearer', tokenLifeMs: 60_000 },
        users,
        referrersApi: false,
      })
      const { registry, reference } = createClient(t, server.authority, {
        credentials: { find: async () => ({ ...users[0]!, identityToken: undefined }) },
      })
      return { storage: registry, reference }
    },
  ],
  ['an OCI layout', async (t) => ({ storage: new OciLayout(), reference: emptyLayout(t) })],
]

for (const [place, open] of places) {
  test(`blobs, manifests and their referrers go to ${place}, and come back`, async (t) => {
    const { storage, reference } = await open(t)
    assert.deepEqual(await storage.pushBlob(reference, layer, { signal }), {
      digest: descriptor.digest,
      sizeBytes: layer.length,
    })
    await storage.pushBlob(reference, layer, { signal })
    await storage.pushBlob(reference, empty, { signal })
    const json = JSON.stringify({
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: emptyDescriptor,
      layers: [{ mediaType: 'x', digest: descriptor.digest, size: layer.length }],
    })
    const subject = await storage.pushManifest(reference, 'latest', json, mediaTypes.ociManifest, { signal })
    assert.equal((await storage.manifest(reference, { signal })).json, json)
    assert.deepEqual(await readAll(storage.blob(reference, descriptor, { signal })), layer)
    assert.deepEqual(
      Buffer.from(await storage.range(reference, descriptor, { start: 1000, end: 5000 }, { signal })),
      layer.subarray(1000, 5000),
    )
    assert.equal((await storage.range(reference, descriptor, { start: 7, end: 7 }, { signal })).length, 0)
    assert.deepEqual(
      Buffer.from(
        await storage.range(reference, descriptor, { start: layer.length - 1, end: layer.length }, { signal }),
      ),
      layer.subarray(-1),
    )
    await assert.rejects(
      storage.range(reference, descriptor, { start: 0, end: layer.length + 1 }, { signal }),
      TypeError,
    )

    assert.deepEqual(await storage.referrers(reference, subject.digest, undefined, { signal }), [])
    const pushed: Digest[] = []
    for (const [type, note] of [
      ['a/index', 'one'],
      ['a/profile', 'two'],
      ['a/index', 'three'],
    ] as const) {
      const manifest = artifact(subject, type, note)
      const name = digestOf(Buffer.from(manifest))
      pushed.push((await storage.pushManifest(reference, name, manifest, mediaTypes.ociManifest, { signal })).digest)
      await storage.pushManifest(reference, name, manifest, mediaTypes.ociManifest, { signal })
    }
    const all = await storage.referrers(reference, subject.digest, undefined, { signal })
    assert.deepEqual(new Set(all.map(({ digest }) => digest)), new Set(pushed))
    assert.equal(all.length, pushed.length)
    const indexes = await storage.referrers(reference, subject.digest, 'a/index', { signal })
    assert.deepEqual(notesOf(indexes), ['one', 'three'])
    assert.deepEqual(
      indexes.map(({ artifactType, mediaType }) => [artifactType, mediaType]),
      [
        ['a/index', mediaTypes.ociManifest],
        ['a/index', mediaTypes.ociManifest],
      ],
    )
    assert.match(await storage.manifestByDigest(reference, indexes[0]!, { signal }), /"artifactType":"a\/index"/)
    // The image is what it was.
    assert.equal((await storage.manifest(reference, { signal })).json, json)
  })
}

test('referrers that are pushed at once are all in the index that stands for the API', async (t) => {
  const server = await startRegistry(t, { referrersApi: false })
  server.addBlob(empty)
  const { registry, reference } = createClient(t, server.authority)
  const subject = { digest: descriptor.digest, sizeBytes: 1 }
  const notes = ['a', 'b', 'c', 'd']
  await Promise.all(
    notes.map(async (note) => {
      const json = artifact(subject, 'x/y', note)
      await registry.pushManifest(reference, digestOf(Buffer.from(json)), json, mediaTypes.ociManifest, { signal })
    }),
  )
  const found = await registry.referrers(reference, subject.digest, undefined, { signal })
  assert.deepEqual(notesOf(found), notes)
})

test('a layout that artifacts were pushed to is one for other tools, and its only image needs no tag', async (t) => {
  const reference = emptyLayout(t)
  const layout = new OciLayout()
  const config = Buffer.from(
    JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [] } }),
  )
  for (const blob of [empty, config]) await layout.pushBlob(reference, blob, { signal })
  const json = JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(config), size: config.length },
    layers: [],
  })
  const subject = await layout.pushManifest(reference, 'v1', json, mediaTypes.ociManifest, { signal })
  await Promise.all(
    ['a', 'b', 'c'].map(async (note) => {
      const manifest = artifact(subject, 'x/y', note)
      await layout.pushManifest(reference, digestOf(Buffer.from(manifest)), manifest, mediaTypes.ociManifest, {
        signal,
      })
    }),
  )
  assert.equal((await layout.referrers(reference, subject.digest, 'x/y', { signal })).length, 3)
  assert.equal((await layout.manifest(reference)).json, json)
  assert.ok(reference.kind === 'layout')
  assert.deepEqual(readdirSync(reference.directory).toSorted(), ['blobs', 'index.json', 'oci-layout'])
  const raw = await run('skopeo', ['--insecure-policy', 'inspect', '--raw', `oci:${reference.directory}:v1`])
  assert.equal(raw.stdout.toString(), json)
  await assert.rejects(
    layout.pushBlob(parseReference('oci:/nowhere'), empty, { signal }),
    fails('missing', /no OCI layout/),
  )
})

test('a push goes through 503 and a lost connection, and says what to do where it is refused', async (t) => {
  const server = await startRegistry(t)
  const { registry, reference, clock } = createClient(t, server.authority, { timeouts: impatient })
  const fresh = Buffer.from('fresh')
  server.faults.add({ method: 'PUT', path: /uploads/, status: 503, times: 1 })
  server.faults.add({ method: 'POST', drop: true, times: 1 })
  await registry.pushBlob(reference, fresh, { signal })
  assert.ok(server.hasBlob(digestOf(fresh)))
  assert.equal(clock.slept.length, 2)
  for (const [status, code, pattern] of [
    [403, 'denied', /somebody who may push/],
    [405, 'unsupported', /takes nothing/],
    [404, 'missing', /create it/],
  ] as const) {
    server.faults.add({ method: 'POST', status, times: 1 })
    await assert.rejects(registry.pushBlob(reference, Buffer.from(`${status}`), { signal }), fails(code, pattern))
  }
})

test('a blob that its registry would redirect to its storage is there: it is not sent again', async (t) => {
  const server = await startRegistry(t, { redirectBlobs: { lifeMs: 60_000 } })
  const { registry, reference } = createClient(t, server.authority)
  await registry.pushBlob(reference, layer, { signal })
  assert.deepEqual(
    server.front.log.map(({ method, server: kind }) => [method, kind]),
    [['HEAD', 'registry']],
  )
})

test('a large blob goes up in pieces', async (t) => {
  const server = await startRegistry(t)
  const { registry, reference } = createClient(t, server.authority)
  const large = Buffer.alloc(33 * 1024 * 1024, 'large')
  await registry.pushBlob(reference, large, { signal })
  assert.deepEqual(
    server.front.log.map(({ method }) => method),
    ['HEAD', 'POST', 'PATCH', 'PUT'],
  )
  assert.ok(server.hasBlob(digestOf(large)))
})
