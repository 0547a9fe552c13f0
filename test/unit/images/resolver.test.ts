import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import { rootfsDigest } from '../../../protocol/rootfs-manifest.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import {
  auto,
  builtBy,
  forgedLayers,
  imageOf,
  member,
  never,
  outcome,
  own,
  reference,
  rootfsOf,
  signal,
  stranger,
  TestHost,
  variant,
} from './resolver-host.ts'

test('an unknown image is imported once for all who ask, signed, tracked and stored', async (t) => {
  const host = await TestHost.create(t)
  const resolved = await Promise.all(
    ['first', 'second'].map(async () => await host.resolver.resolveForMount(reference, variant, auto)),
  )
  for (const image of resolved) assert.deepEqual(outcome(image), ['built', 'registry', '1'])
  assert.equal(host.imported.length, 1)
  const { record, manifest } = resolved[0]!
  assert.equal(record.attestation.key, own.key)
  assert.deepEqual(await host.catalog.image(record), record)
  for (const { id } of [manifest.metadata, ...manifest.layers.map(({ chunks }) => chunks)])
    assert.ok(host.tracked.has(id))
})

test('a tag that has not moved is mounted from the record after one request', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['local', 'registry', '1'])
  assert.deepEqual([host.registry.requests, host.imported], [1, []])
})

test('a tag that has moved is taken from the region, or else imported', async (t) => {
  for (const origin of ['peer', 'built']) {
    const host = await TestHost.create(t)
    await host.store(await builtBy(own, '1'))
    host.registry.version = '2'
    if (origin === 'peer') host.peer.push(await builtBy(member, '2'))
    const moved = await host.resolver.resolveForMount(reference, variant, auto)
    assert.deepEqual(outcome(moved), [origin, 'registry', '2'])
    assert.equal((await host.catalog.image(moved.record))?.manifestDigest, moved.record.manifestDigest)
  }
})

test('a registry that has lost the tag is asked again the next time', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  host.registry.version = undefined
  for (const requests of [1, 2]) {
    const { resolution, unanswered } = await host.resolver.resolveForMount(reference, variant, auto)
    assert.deepEqual([resolution, unanswered, host.registry.requests], ['last-known', 'no such tag', requests])
  }
})

test('a tag that names nested indexes is checked with one request', async (t) => {
  const host = await TestHost.create(t)
  host.registry.isNested = true
  // Another host of the region has imported it: this one has not seen the indexes.
  await host.store(await builtBy(member, '1'))
  const requests: number[] = []
  for (const version of ['1', '1', '2', '2']) {
    host.registry.requests = 0
    host.registry.version = version
    const resolved = await host.resolver.resolveForMount(reference, variant, auto)
    assert.deepEqual(outcome(resolved).slice(1), ['registry', version])
    requests.push(host.registry.requests)
  }
  assert.deepEqual(requests, [2, 1, 2, 1])
})

test('errors that say the image itself is wrong are thrown, also if an older image is known', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  host.registry.fails = async () => await Promise.reject(new P2pfsError('invalid', 'not a manifest'))
  await assert.rejects(host.resolver.resolveForMount(reference, variant, auto), (error) =>
    isP2pfsError(error, 'invalid'),
  )
})

test('a mount that is given up does not fall back to the last known image', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  const abort = new AbortController()
  host.registry.fails = async (signal) => {
    abort.abort()
    return await never(signal)
  }
  await assert.rejects(host.resolver.resolveForMount(reference, variant, { pull: 'newer', signal: abort.signal }), {
    name: 'AbortError',
  })
})

test('an image that is whole on this host is mounted without a request, and seeded with one', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  host.isWhole = true
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['local', 'last-known', '1'])
  assert.equal(host.registry.requests, 0)
  assert.deepEqual(outcome(await host.resolver.resolveForSeed(reference, variant, { signal })), [
    'local',
    'registry',
    '1',
  ])
  assert.equal(host.registry.requests, 1)
})

test('an import for a seed has nobody who waits for it, and one for a mount has', async (t) => {
  for (const [resolve, isAwaited] of [
    ['resolveForSeed', false],
    ['resolveForMount', true],
  ] as const) {
    const host = await TestHost.create(t)
    await host.resolver[resolve](reference, variant, { pull: 'newer', signal })
    assert.deepEqual([host.imported.length, host.isAwaited], [1, isAwaited], resolve)
  }
})

test('a digest reference is found by a tag of its repository, and the registry is never asked', async (t) => {
  const host = await TestHost.create(t)
  const stored = await builtBy(own, '1')
  await host.store(stored)
  const pinned = parseReference(`host.test/app@${stored.record.manifestDigest}`)
  for (const pull of ['newer', 'always'] as const) {
    const { resolution, record } = await host.resolver.resolveForMount(pinned, variant, { pull, signal })
    assert.deepEqual([resolution, record.reference], ['digest', `host.test/app@${stored.record.manifestDigest}`])
  }
  assert.equal((await host.resolver.resolveForSeed(pinned, variant, { signal })).resolution, 'digest')
  assert.equal(host.registry.requests, 0)
})

test('pull never fails for an image that nobody knows', async (t) => {
  const host = await TestHost.create(t)
  await assert.rejects(host.resolver.resolveForMount(reference, variant, { pull: 'never', signal }), (error) =>
    isP2pfsError(error, 'missing'),
  )
  assert.equal(host.registry.requests, 0)
})

test('an image that is known in another format is converted; this host comes before the region', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1', 'erofs'))
  host.peer.push(await builtBy(member, '1'))
  const converted = await host.resolver.resolveForMount(reference, variant, { pull: 'missing', signal })
  assert.deepEqual(outcome(converted), ['local', 'last-known', '1'])
  assert.deepEqual([converted.manifest.format, host.registry.requests], ['ext4', 0], 'the registry was not asked')
  assert.deepEqual(host.imported, [`${imageOf('1').manifestDigest} as ext4`])
  const again = await host.resolver.find(reference, variant, { signal })
  assert.deepEqual([again?.manifest.format, host.imported.length], ['ext4', 1])
})

test('a record whose maker is not trusted is ignored, wherever it comes from', async (t) => {
  const host = await TestHost.create(t, { trusted: [stranger.key] })
  await host.store(await builtBy(member, '1'))
  host.peer.push(await builtBy(member, '1'))
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['built', 'registry', '1'])
  assert.match(host.log, /the key of its maker is not accepted/)
})

test('a record that was signed for another rootfs is ignored', async (t) => {
  const host = await TestHost.create(t)
  const { record } = await builtBy(member, '1')
  const forged = { ...rootfsOf(imageOf('1'), 'ext4'), config: '{}' }
  host.peer.push({ record: { ...record, rootfsDigest: rootfsDigest(forged) }, manifest: forged })
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['built', 'registry', '1'])
  assert.match(host.log, /wrong signature/)
})

test('a publication comes before an import, and is converted if it has another format', async (t) => {
  for (const format of ['ext4', 'erofs'] as const) {
    const host = await TestHost.create(t)
    host.published = { ...(await builtBy(stranger, '1', format)), belief: 'listed-key' }
    const resolved = await host.resolver.resolveForMount(reference, variant, auto)
    assert.deepEqual(outcome(resolved), ['registry', 'registry', '1'])
    assert.deepEqual([resolved.manifest.format, host.imported.length], ['ext4', format === 'ext4' ? 0 : 1])
  }
})

test("a steward's image is taken if it is the registry's, and built here if it has other layers", async (t) => {
  for (const { steward, origin } of [
    { steward: await builtBy(member, '1'), origin: 'peer' },
    { steward: await forgedLayers(), origin: 'built' },
  ]) {
    const host: TestHost = await TestHost.create(t, {
      region: {
        findImages: async () => await Promise.resolve([]),
        askRegistry: async () => await Promise.resolve(),
        fetchRootfs: async () => await Promise.resolve(steward.manifest),
      },
      stewards: {
        ask: async (_image, _options, accept) => await accept(steward.record, member.key, signal),
        askImporting: async () => await Promise.resolve(undefined),
      },
    })
    assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), [origin, 'registry', '1'])
  }
})
