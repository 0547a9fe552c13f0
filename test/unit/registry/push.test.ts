import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mediaTypes } from '../../../node/registry/image-manifest.ts'
import { digestOf } from '../../../protocol/digest.ts'
import {
  createClient,
  descriptor,
  fails,
  impatient,
  layer,
  signal,
  startRegistry,
} from '../../support/registry/fault-client.ts'
import { artifact, empty, notesOf } from '../../support/registry/image-source-suite.ts'

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
