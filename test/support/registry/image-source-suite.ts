import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { mediaTypes } from '../../../node/registry/image-manifest.ts'
import type { ImageSource, Referrer } from '../../../node/registry/image-source.ts'
import type { Reference } from '../../../node/registry/reference.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { fails, readAll, signal } from './fault-client.ts'
import {
  assertImage,
  config,
  configFor,
  describe,
  indexOf,
  layer,
  layerDescriptor,
  manifest,
  manifestOf,
} from './small-image.ts'

/** A place for images that is empty, and a reference to it that names `latest`. */
export interface ImagePlace {
  source: ImageSource
  reference: Reference
}

export const empty = Buffer.from('{}')
export const emptyDescriptor = { mediaType: 'application/vnd.oci.empty.v1+json', digest: digestOf(empty), size: 2 }

/** An artifact that refers to a manifest. */
export function artifact(subject: { digest: Digest; sizeBytes: number }, artifactType: string, note: string): string {
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

export const notesOf = (referrers: readonly Referrer[]): string[] =>
  referrers.map(({ annotations }) => annotations['note'] ?? '').toSorted()

async function pushImage({ source, reference }: ImagePlace): Promise<{ digest: Digest; sizeBytes: number }> {
  for (const blob of [layer, Buffer.from(config)]) await source.pushBlob(reference, blob, { signal })
  return await source.pushManifest(reference, 'latest', manifest, mediaTypes.ociManifest, { signal })
}

/** Tests that every place of images passes; `open` makes a new one for each test. */
export function testImageSource(place: string, open: (t: TestContext) => Promise<ImagePlace>): void {
  test(`${place}: an image that is pushed comes back, by tag and by digest, whole and in ranges`, async (t) => {
    const { source, reference } = await open(t)
    const pushed = await source.pushBlob(reference, layer, { signal })
    assert.deepEqual(pushed, { digest: layerDescriptor.digest, sizeBytes: layer.length })
    const stored = await pushImage({ source, reference })
    await assertImage(source, reference)
    assert.equal((await source.resolve(reference, 'linux/amd64', { signal })).manifestDigest, stored.digest)
    assert.equal(await source.topDigest(reference, { signal }), stored.digest)
    assert.equal(await source.manifest(reference, { ...stored, mediaType: '' }, { signal }), manifest)
    assert.deepEqual(await readAll(source.openLayer(reference, layerDescriptor, { signal, verify: false })), layer)
    for (const [start, end] of [
      [1000, 5000],
      [7, 7],
      [layer.length - 1, layer.length],
      [0, layer.length],
    ] as const) {
      const bytes = await source.range(reference, layerDescriptor, { start, end }, { signal })
      assert.deepEqual(Buffer.from(bytes), layer.subarray(start, end))
    }
    const beyond = { start: 0, end: layer.length + 1 }
    await assert.rejects(source.range(reference, layerDescriptor, beyond, { signal }), TypeError)
  })

  test(`${place}: an index has an image for each platform`, async (t) => {
    const { source, reference } = await open(t)
    await source.pushBlob(reference, layer, { signal })
    const entries: object[] = []
    for (const architecture of ['amd64', 'arm64']) {
      const ownConfig = configFor({ os: 'linux', architecture })
      const ownManifest = manifestOf(ownConfig)
      await source.pushBlob(reference, Buffer.from(ownConfig), { signal })
      const { digest } = describe(ownManifest, '')
      await source.pushManifest(reference, digest, ownManifest, mediaTypes.ociManifest, { signal })
      entries.push({ ...describe(ownManifest, mediaTypes.ociManifest), platform: { os: 'linux', architecture } })
    }
    await source.pushManifest(reference, 'latest', indexOf(entries), mediaTypes.ociIndex, { signal })
    for (const architecture of ['amd64', 'arm64']) {
      const image = await source.resolve(reference, `linux/${architecture}`, { signal })
      assert.equal(image.config, configFor({ os: 'linux', architecture }))
    }
    await assert.rejects(
      source.resolve(reference, 'linux/s390x', { signal }),
      fails('missing', /has no image for linux\/s390x; --platform takes one that it has: linux\/amd64, linux\/arm64/),
    )
  })

  test(`${place}: what is not there is missing, and what is other than its descriptor is invalid`, async (t) => {
    const { source, reference } = await open(t)
    await assert.rejects(source.resolve(reference, 'linux/amd64', { signal }), fails('missing', /latest/))
    await pushImage({ source, reference })
    const absent = { ...layerDescriptor, digest: digestOf(Buffer.from('absent')) }
    await assert.rejects(readAll(source.openLayer(reference, absent, { signal })), fails('missing', /./))
    await assert.rejects(source.manifest(reference, absent, { signal }), fails('missing', /./))
    await assert.rejects(source.range(reference, absent, { start: 0, end: 1 }, { signal }), fails('missing', /./))
    const short = { ...layerDescriptor, sizeBytes: layer.length - 1 }
    await assert.rejects(readAll(source.openLayer(reference, short, { signal })), fails('invalid', /longer than/))
  })

  test(`${place}: a caller that has given up gets its own reason`, async (t) => {
    const { source, reference } = await open(t)
    await pushImage({ source, reference })
    const gone = AbortSignal.abort(new Error('given up'))
    const options = { signal: gone }
    const subject = layerDescriptor.digest
    for (const ask of [
      async () => await source.resolve(reference, 'linux/amd64', options),
      async () => await source.topDigest(reference, options),
      async () => await readAll(source.openLayer(reference, layerDescriptor, options)),
      async () => await source.range(reference, layerDescriptor, { start: 0, end: 1 }, options),
      async () => await source.referrers(reference, subject, undefined, options),
      async () => await source.pushBlob(reference, Buffer.from('other'), options),
    ])
      await assert.rejects(ask(), /given up/)
  })

  test(`${place}: artifacts that refer to a manifest are found by it, and by their type`, async (t) => {
    const { source, reference } = await open(t)
    const subject = await pushImage({ source, reference })
    await source.pushBlob(reference, empty, { signal })
    assert.deepEqual(await source.referrers(reference, subject.digest, undefined, { signal }), [])
    const pushed: Digest[] = []
    for (const [type, note] of [
      ['a/index', 'one'],
      ['a/profile', 'two'],
      ['a/index', 'three'],
    ] as const) {
      const json = artifact(subject, type, note)
      const name = digestOf(Buffer.from(json))
      pushed.push((await source.pushManifest(reference, name, json, mediaTypes.ociManifest, { signal })).digest)
      // The second time changes nothing.
      await source.pushManifest(reference, name, json, mediaTypes.ociManifest, { signal })
    }
    const all = await source.referrers(reference, subject.digest, undefined, { signal })
    assert.deepEqual(new Set(all.map(({ digest }) => digest)), new Set(pushed))
    assert.equal(all.length, pushed.length)
    const indexes = await source.referrers(reference, subject.digest, 'a/index', { signal })
    assert.deepEqual(notesOf(indexes), ['one', 'three'])
    for (const { artifactType, mediaType } of indexes)
      assert.deepEqual([artifactType, mediaType], ['a/index', mediaTypes.ociManifest])
    assert.match(await source.manifest(reference, indexes[0]!, { signal }), /"artifactType":"a\/index"/)
    // The tag still names the image.
    await assertImage(source, reference)
  })
}
