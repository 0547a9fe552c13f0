import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { run } from '../../../netlab/hosts/process.ts'
import { mediaTypes } from '../../../node/registry/image-manifest.ts'
import { OciLayout } from '../../../node/registry/oci-layout.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { emptyLayout } from '../../support/registry/empty-layout.ts'
import { fails, signal } from '../../support/registry/fault-client.ts'
import { artifact, empty } from '../../support/registry/image-source-suite.ts'

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
  assert.equal((await layout.manifest(reference, { signal })).json, json)
  assert.ok(reference.kind === 'layout')
  assert.deepEqual(readdirSync(reference.directory).toSorted(), ['blobs', 'index.json', 'oci-layout'])
  const raw = await run('skopeo', ['--insecure-policy', 'inspect', '--raw', `oci:${reference.directory}:v1`])
  assert.equal(raw.stdout.toString(), json)
  await assert.rejects(
    layout.pushBlob(parseReference('oci:/nowhere'), empty, { signal }),
    fails('missing', /no OCI layout/),
  )
})
