import assert from 'node:assert/strict'
import { test } from 'node:test'
import { digestOf } from '../../../protocol/digest.ts'
import { artifactType } from '../../../node/publish/artifact.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import { formatReferrers } from '../../../node/registry/referrers.ts'
import { testKey } from '../../support/test-key.ts'
import { ColdHost, PublishLab } from './publish-lab.ts'

const { signal } = new AbortController()
const [maker, cold, stranger] = [await testKey(1), await testKey(2), await testKey(3)]
const reference = parseReference('registry.test/app:1')

/** The list of publications of the lab's image, as the registry gives it. */
async function listOf(lab: PublishLab): Promise<Buffer> {
  const { manifestDigest } = lab.image
  return Buffer.from(formatReferrers(await lab.registry.referrers(reference, manifestDigest, artifactType, { signal })))
}

test('what a member says that the registry lists leads to a publication, and the registry is not asked', async (t) => {
  const lab = await PublishLab.create(t)
  const image = await lab.builtBy(maker)
  await lab.publisher().publish(image, { signal })
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  host.told = await listOf(lab)
  lab.lists = 0
  assert.deepEqual((await host.published.find(reference, lab.image, 'ext4', { signal }))?.manifest, image.manifest)
  assert.equal(lab.lists, 0)
})

test('the same for what a host lacks of an image that it knows', async (t) => {
  const lab = await PublishLab.create(t)
  const { record } = await lab.builtBy(maker)
  await lab.publisher().publish(await lab.builtBy(maker), { signal })
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  host.told = await listOf(lab)
  lab.lists = 0
  const known = { ...record, reference: 'registry.test/app:1' }
  assert.equal((await host.published.of(known))?.rootfsDigest, record.rootfsDigest)
  assert.equal(lab.lists, 0)
})

for (const [what, listed] of [
  ['hides all publications', () => formatReferrers([])],
  ['says what is no list', () => '{"schemaVersion":2}'],
  ['says what is no text', () => '\xff\xfe'],
  [
    'lists a publication that nobody has',
    (list: string) => list.replaceAll(/"digest":"sha256:[0-9a-f]{8}/g, '"digest":"sha256:00000000'),
  ],
  [
    'lists one whose signature is of another rootfs',
    (list: string) => list.replace(/("org.p2pfs.rootfs":"sha256:)[0-9a-f]{8}/, '$100000000'),
  ],
] as const)
  test(`a member that ${what} costs a question to the registry, and no more`, async (t) => {
    const lab = await PublishLab.create(t)
    const image = await lab.builtBy(maker)
    await lab.publisher().publish(image, { signal })
    const host = await ColdHost.create(t, lab, cold, [maker.key])
    host.told = Buffer.from(listed((await listOf(lab)).toString()))
    lab.lists = 0
    assert.deepEqual((await host.published.find(reference, lab.image, 'ext4', { signal }))?.manifest, image.manifest)
    assert.equal(lab.lists, 1)
    host.nowMs = 0
    const known = { ...image.record, reference: 'registry.test/app:1' }
    assert.equal((await host.published.of(known))?.rootfsDigest, image.record.rootfsDigest)
  })

test('what a member lists is believed no more than what the registry lists', async (t) => {
  const lab = await PublishLab.create(t)
  await lab.publisher().publish(await lab.builtBy(stranger), { signal })
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  host.told = await listOf(lab)
  assert.equal(await host.published.find(reference, lab.image, 'ext4', { signal }), undefined)
})

test('hosts agree on what they ask: it depends on the repository and the image, and not on the tag or the caller', async (t) => {
  const lab = await PublishLab.create(t)
  const host = await ColdHost.create(t, lab, cold, [maker.key])
  for (const text of ['registry.test/app:1', 'registry.test/app:2', 'registry.test/other:1'])
    await host.published.find(parseReference(text), lab.image, 'ext4', { signal })
  const another = { ...lab.image, manifestDigest: digestOf(Buffer.from('another image')) }
  await host.published.find(reference, another, 'ext4', { signal })
  assert.equal(host.asked[0], host.asked[1])
  assert.equal(new Set(host.asked).size, 3)
})
