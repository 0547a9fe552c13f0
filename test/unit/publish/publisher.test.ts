import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { PublicationReader } from '../../../node/publish/publication-reader.ts'
import { testKey } from '../../support/test-key.ts'
import { PublishLab } from './publish-lab.ts'

const { signal } = new AbortController()
const [own, other] = [await testKey(1), await testKey(2)]

test('an image is published once by each maker, and again if there is a boot profile now', async (t) => {
  const lab = await PublishLab.create(t)
  const image = await lab.builtBy(own)
  const publisher = lab.publisher()
  const progress: number[] = []
  const first = await publisher.publish(image, { signal, onProgress: ({ doneBytes }) => progress.push(doneBytes) })
  assert.deepEqual([first.existed, first.key], [false, own.key])
  // The empty config of the artifact is no blob of the publication.
  assert.deepEqual([progress[0], progress.at(-1)], [0, first.sizeBytes + 2])
  assert.deepEqual(await publisher.publish(image, { signal }), { ...first, existed: true })
  const profile = Buffer.from('profile')
  const second = await publisher.publish(image, { signal, profile })
  assert.equal(second.existed, false)
  assert.deepEqual(await publisher.publish(image, { signal, profile }), { ...second, existed: true })
  const byOther = await lab.publisher().publish(await lab.builtBy(other), { signal })
  assert.deepEqual([byOther.existed, byOther.key], [false, other.key])
  const listed = await new PublicationReader(lab).list(lab.reference, lab.image.manifestDigest, { signal })
  assert.deepEqual(
    listed.map(({ attestation, profile }) => [attestation.key, profile !== undefined]),
    [
      [own.key, false],
      [own.key, true],
      [other.key, false],
    ],
  )
})

test('windows and layer indexes that nobody has are left out of the publication', async (t) => {
  const lab = await PublishLab.create(t)
  const { windows } = lab.map
  assert.ok(windows.count > 0, 'the layer has windows')
  const reader = new PublicationReader(lab)
  const cases = [
    { lost: [], hasWindows: true, indexes: 1 },
    { lost: [windows.digestAt(windows.count - 1)], hasWindows: false, indexes: 1 },
    { lost: [lab.index.diffId], hasWindows: true, indexes: 0 },
  ]
  for (const [i, { lost, hasWindows, indexes }] of cases.entries()) {
    const maker = await testKey(10 + i)
    await lab.publisher({ lost }).publish(await lab.builtBy(maker), { signal })
    const listed = await reader.list(lab.reference, lab.image.manifestDigest, { signal })
    const candidate = listed.find(({ attestation }) => attestation.key === maker.key)!
    const { publication } = await reader.read(lab.reference, lab.image.manifestDigest, candidate, {
      signal,
      withMetadata: false,
    })
    assert.equal(publication.windowSegments.length, hasWindows ? 1 : 0)
    assert.equal(publication.layerIndexes.length, indexes)
  }
})

test('what this host cannot prove, and what is in no registry, is not published', async (t) => {
  const lab = await PublishLab.create(t)
  const image = await lab.builtBy(own)
  for (const maker of [own, other])
    await assert.rejects(
      lab.publisher().publish(await lab.builtBy(maker, undefined, { told: true }), { signal }),
      (error) => isP2pfsError(error, 'unsupported') && /from layer indexes that peers sent/.test(error.message),
    )
  // The maker is another host, which has signed for it.
  assert.equal((await lab.publisher().publish(await lab.builtBy(other), { signal })).key, other.key)
  const local = { ...image, record: { ...image.record, reference: 'local:app' } }
  await assert.rejects(lab.publisher().publish(local, { signal }), (error) => isP2pfsError(error, 'invalid'))
})

test('an image whose metadata cannot be read is not published', async (t) => {
  const lab = await PublishLab.create(t)
  const image = await lab.builtBy(own)
  const { metadata } = image.manifest
  const lost = [metadata.digestAt(metadata.count - 1)]
  await assert.rejects(lab.publisher({ lost }).publish(image, { signal }), (error) => isP2pfsError(error, 'missing'))
  assert.deepEqual(await new PublicationReader(lab).list(lab.reference, lab.image.manifestDigest, { signal }), [])
})
