import assert from 'node:assert/strict'
import { test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import type { Signer } from '../../../protocol/attestation.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { encodeLayerIndex } from '../../../protocol/layer-index.ts'
import { encodePublishedIndex } from '../../../protocol/published-index.ts'
import { encodeRootfsManifest, type RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import type { ImageRootfs } from '../../../node/model/image.ts'
import { emptyConfig, encodeArtifact } from '../../../node/publish/artifact.ts'
import { mediaTypes } from '../../../node/registry/image-manifest.ts'
import { testKey } from '../../support/test-key.ts'
import { ColdHost, PublishLab } from './publish-lab.ts'

const { signal } = new AbortController()
const [maker, cold, stranger] = [await testKey(1), await testKey(2), await testKey(3)]

const chunksOf = ({ metadata }: RootfsManifest): Digest[] =>
  Array.from({ length: metadata.count }, (_, i) => metadata.digestAt(i))

test('a cold host gets all that it needs from an accepted publication', async (t) => {
  const lab = await PublishLab.create(t)
  const image = await lab.builtBy(maker)
  await lab.publisher().publish(image, { signal, profile: Buffer.from('profile') })
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  const found = await host.published.find(lab.reference, lab.image, 'ext4', { signal })
  const { nameStatement: _name, ...record } = image.record
  assert.deepEqual(found, { record, manifest: image.manifest, belief: 'listed-key' })
  assert.deepEqual([...host.chunks.keys()].toSorted(), chunksOf(image.manifest).toSorted())
  assert.deepEqual([...host.maps.values()], [lab.map])
  assert.deepEqual(host.profiles, ['profile'])
  assert.equal(host.log, '')
  // It is remembered: what the host lacks later is read without another look.
  assert.equal((await host.published.of(image.record))?.rootfsDigest, image.record.rootfsDigest)
  assert.equal(lab.lists, 2, 'one list by the publisher, one by the cold host')
  const { windows } = lab.map
  const read = await host.published.windows(image.record, { blob: lab.map.digest, table: windows.id })
  const first = Buffer.from(await read!({ start: 0, end: windows.lengthAt(0) }, { signal }))
  assert.equal(digestOf(first), windows.digestAt(0))
})

test('the windows of a blob are read from a publication in another format', async (t) => {
  const lab = await PublishLab.create(t)
  const [ext4, erofs] = [await lab.builtBy(maker), await lab.builtBy(maker, await lab.rootfs('erofs'))]
  await lab.publisher().publish(ext4, { signal })
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  await host.published.find(lab.reference, lab.image, 'erofs', { signal })
  const { windows } = lab.map
  const read = await host.published.windows(erofs.record, { blob: lab.map.digest, table: windows.id })
  const first = Buffer.from(await read!({ start: 0, end: windows.lengthAt(0) }, { signal }))
  assert.equal(digestOf(first), windows.digestAt(0))
})

test('a rootfs that a neighbour has is not read from the registry; what the neighbour lacks later is', async (t) => {
  const lab = await PublishLab.create(t)
  const image = await lab.builtBy(maker)
  await lab.publisher().publish(image, { signal })
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  host.near = image.manifest
  const found = await host.published.find(lab.reference, lab.image, 'ext4', { signal })
  assert.deepEqual([found?.manifest, found?.belief], [image.manifest, 'listed-key'])
  assert.deepEqual([...host.chunks.keys()], [])
  assert.equal((await host.published.of(image.record))?.rootfsDigest, image.record.rootfsDigest)
  assert.deepEqual([...host.maps.values()], [lab.map])
})

test('a neighbour makes no publication believed, nor another rootfs than the image has', async (t) => {
  const lab = await PublishLab.create(t)
  const image = await lab.builtBy(stranger)
  await lab.publisher().publish(image, { signal })
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  host.near = image.manifest
  assert.equal(await host.published.find(lab.reference, lab.image, 'ext4', { signal }), undefined)
  await lab.publisher().publish(await lab.builtBy(maker), { signal })
  host.near = { ...image.manifest, layers: [] }
  const found = await host.published.find(lab.reference, lab.image, 'ext4', { signal })
  assert.deepEqual(found?.manifest, image.manifest)
})

test('the publication in the wanted format is tried first, then the one with a boot profile', async (t) => {
  const lab = await PublishLab.create(t)
  const [ext4, erofs] = [await lab.builtBy(maker), await lab.builtBy(maker, await lab.rootfs('erofs'))]
  const publisher = lab.publisher()
  await publisher.publish(ext4, { signal })
  await publisher.publish(ext4, { signal, profile: Buffer.from('ext4') })
  await publisher.publish(erofs, { signal, profile: Buffer.from('erofs') })
  for (const format of ['ext4', 'erofs'] as const) {
    const host = await ColdHost.create(t, lab, cold, [maker.key])
    const found = await host.published.find(lab.reference, lab.image, format, { signal })
    assert.deepEqual([found?.manifest.format, host.profiles], [format, [format]])
  }
})

test('a publication in another format is better than none', async (t) => {
  const lab = await PublishLab.create(t)
  await lab.publisher().publish(await lab.builtBy(maker), { signal })
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  assert.equal((await host.published.find(lab.reference, lab.image, 'erofs', { signal }))?.manifest.format, 'ext4')
})

test('a publication counts in a copy of the repository under another name: the registry there says what the name is', async (t) => {
  const lab = await PublishLab.create(t)
  await lab.publisher().publish(await lab.builtBy(maker), { signal })
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  const copy = { ...lab.image, reference: 'copy.test/another:2' }
  const found = await host.published.find(lab.reference, copy, 'ext4', { signal })
  assert.deepEqual([found?.belief, found?.record.reference], ['listed-key', copy.reference])
})

test('publications of makers who are not trusted are ignored', async (t) => {
  const lab = await PublishLab.create(t)
  await lab.publisher().publish(await lab.builtBy(stranger), { signal })
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  assert.equal(await host.published.find(lab.reference, lab.image, 'ext4', { signal }), undefined)
  assert.match(host.log, /the key of its maker is not accepted/)
  await lab.publisher().publish(await lab.builtBy(maker), { signal })
  const found = await host.published.find(lab.reference, lab.image, 'ext4', { signal })
  assert.equal(found?.record.attestation.key, maker.key)
})

test('publications of members that contradict each other are not believed; those of one format are without the other', async (t) => {
  const lab = await PublishLab.create(t)
  const honest = await lab.builtBy(maker)
  await lab.publisher().publish(honest, { signal })
  const host = await ColdHost.create(t, lab, cold, [], [{ peer: maker.key }, { peer: stranger.key }])
  const find = async (): Promise<string | undefined> =>
    (await host.published.find(lab.reference, lab.image, 'ext4', { signal }))?.belief
  assert.equal(await find(), 'member')
  const forged = { ...honest.manifest, layers: [{ ...honest.manifest.layers[0]!, chunks: honest.manifest.metadata }] }
  const liar = await lab.builtBy(stranger, forged)
  const metadata = Buffer.concat(chunksOf(honest.manifest).map((digest) => lab.chunks.get(digest)!))
  await pushForged(lab, liar, { metadata })
  assert.equal(await find(), undefined)
  assert.match(host.log, /publications of an image contradict each other; none is believed/)
  for (const key of [maker.key, stranger.key]) assert.ok(host.log.includes(key), 'both makers are named')
  // An operator's key ends the dispute.
  const trusting = await ColdHost.create(t, lab, cold, [maker.key])
  assert.equal(
    (await trusting.published.find(lab.reference, lab.image, 'ext4', { signal }))?.record.rootfsDigest,
    honest.record.rootfsDigest,
  )
})

/** Pushes a publication whose blobs are these, with labels that are signed. */
async function pushForged(
  lab: PublishLab,
  { record, manifest }: ImageRootfs,
  { index = manifest, metadata }: { index?: RootfsManifest; metadata: Buffer },
): Promise<void> {
  const push = async (bytes: Buffer): Promise<{ digest: Digest; sizeBytes: number }> =>
    await lab.registry.pushBlob(lab.reference, bytes, { signal })
  await push(emptyConfig)
  const blobs = {
    index: await push(zstdCompressSync(encodePublishedIndex({ manifest: encodeRootfsManifest(index), maps: [] }))),
    metadata: await push(zstdCompressSync(metadata)),
    windows: undefined,
    layerIndexes: [],
  }
  const json = encodeArtifact({ ...record, profile: undefined }, blobs, record.manifest)
  const digest = digestOf(Buffer.from(json))
  await lab.registry.pushManifest(lab.reference, digest, json, mediaTypes.ociManifest, { signal })
}

test('a publication whose parts do not fit together is ignored, and leaves no chunks behind', async (t) => {
  const metadataOf = (lab: PublishLab, manifest: RootfsManifest): Buffer =>
    Buffer.concat(chunksOf(manifest).map((digest) => lab.chunks.get(digest)!))
  const forgeries: [RegExp, (lab: PublishLab, by: Signer) => Promise<void>][] = [
    [
      /its rootfs is of another image/,
      async (lab, by) => {
        const forged = await lab.rootfs('ext4', lab.image.config.replace('amd64', 'arm64'))
        await pushForged(lab, await lab.builtBy(by, forged), { metadata: metadataOf(lab, forged) })
      },
    ],
    [
      /another rootfs manifest than it names/,
      async (lab, by) => {
        const index = await lab.rootfs('ext4', lab.image.config.replace('amd64', 'arm64'))
        await pushForged(lab, await lab.builtBy(by), { index, metadata: metadataOf(lab, index) })
      },
    ],
    [
      /published metadata is not what its rootfs manifest says/,
      async (lab, by) => {
        const image = await lab.builtBy(by)
        const metadata = metadataOf(lab, image.manifest)
        metadata[metadata.length - 1]! ^= 1
        await pushForged(lab, image, { metadata })
      },
    ],
  ]
  for (const [warning, forge] of forgeries) {
    const lab = await PublishLab.create(t)
    await forge(lab, maker)
    const host = await ColdHost.create(t, lab, cold, [maker.key])
    assert.equal(await host.published.find(lab.reference, lab.image, 'ext4', { signal }), undefined)
    assert.match(host.log, warning)
    assert.deepEqual([host.chunks.size, host.maps.size], [0, 0])
    // Another publication is tried after it.
    const image = await lab.builtBy(stranger)
    await lab.publisher().publish(image, { signal })
    const trusting = await ColdHost.create(t, lab, cold, [maker.key, stranger.key])
    const found = await trusting.published.find(lab.reference, lab.image, 'ext4', { signal })
    assert.deepEqual([found?.record.attestation.key, found?.manifest], [stranger.key, image.manifest])
  }
})

test('a registry that does not answer has not said that nothing is published: it is asked again soon', async (t) => {
  const lab = await PublishLab.create(t)
  const { record } = await lab.builtBy(maker)
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  lab.isSilent = true
  // An import goes on without publications.
  assert.equal(await host.published.find(lab.reference, lab.image, 'ext4', { signal }), undefined)
  assert.match(host.log, /registry does not list the publications of an image/)
  lab.lists = 0
  const { digest: blob } = lab.map
  for (const nowMs of [0, 1_999]) {
    host.nowMs = nowMs
    await assert.rejects(host.published.of(record), { code: 'unavailable' })
    await assert.rejects(host.published.windows(record, { blob, table: blob }), { code: 'unavailable' })
  }
  assert.equal(lab.lists, 1)
  lab.isSilent = false
  host.nowMs = 2_000
  assert.equal(await host.published.of(record), undefined)
  assert.equal(lab.lists, 2)
})

test('a registry that has said that nothing is published is not asked again for a while', async (t) => {
  const lab = await PublishLab.create(t)
  const { record } = await lab.builtBy(maker)
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  lab.lists = 0
  for (const nowMs of [0, 599_999]) {
    host.nowMs = nowMs
    assert.equal(await host.published.of(record), undefined)
  }
  assert.equal(lab.lists, 1)
  host.nowMs = 600_000
  assert.equal(await host.published.of(record), undefined)
  assert.equal(lab.lists, 2)
})

test('that an image has no publication is remembered for ten minutes, or until this host publishes it', async (t) => {
  const lab = await PublishLab.create(t)
  const image = await lab.builtBy(maker)
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  for (const nowMs of [0, 599_999]) {
    host.nowMs = nowMs
    assert.equal(await host.published.of(image.record), undefined)
  }
  assert.equal(lab.lists, 1)
  await lab.publisher().publish(image, { signal })
  lab.lists = 0
  assert.equal(await host.published.of(image.record), undefined)
  host.nowMs = 600_000
  const publication = await host.published.of(image.record)
  assert.deepEqual([publication?.rootfsDigest, lab.lists], [image.record.rootfsDigest, 1])
})

test('for a known rootfs any maker will do, but published layer indexes must make this rootfs', async (t) => {
  const lab = await PublishLab.create(t)
  const image = await lab.builtBy(maker)
  await lab.publisher().publish(await lab.builtBy(stranger), { signal })
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  await host.catalog.putRootfs(image.manifest)
  assert.deepEqual(
    await host.published.layerIndexes(image.record, { signal }),
    new Map([[lab.index.diffId, lab.index]]),
  )
  const chunks = new Map<Digest, Uint8Array>()
  const sink = {
    put: async (digest: Digest, bytes: Uint8Array) => void (await Promise.resolve(chunks.set(digest, bytes))),
  }
  assert.equal(await host.published.metadata(image.record, image.manifest, sink, { signal }), true)
  assert.deepEqual([...chunks.keys()], chunksOf(image.manifest))
  assert.equal(host.log, '')

  const publication = (await host.published.of(image.record))!
  const [entry] = lab.index.entries
  const forged = { ...lab.index, entries: [{ ...entry!, mode: 0o4777 }] }
  const blob = await lab.registry.pushBlob(lab.reference, zstdCompressSync(encodeLayerIndex(forged)), { signal })
  await host.published.remember({ ...publication, layerIndexes: [blob] })
  assert.equal(await host.published.layerIndexes(image.record, { signal }), undefined)
  assert.match(host.log, /published layer indexes make another rootfs/)
})
