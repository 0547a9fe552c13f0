import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import { rootfsDigest, type RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import type { ImageRootfs } from '../../../node/model/image.ts'
import { tablesOf } from '../../../node/model/rootfs-chunks.ts'
import type { SeedImage } from '../../../protocol/seed-job.ts'
import {
  builtBy,
  imageOf,
  member,
  mount,
  other,
  outcome,
  own,
  reference,
  rootfsOf,
  signal,
  stranger,
  table,
  TestHost,
  todayMs,
  unavailable,
  variant,
} from './resolver-host.ts'

const missing = { pull: 'missing', signal } as const
/** The rootfs of image 1 as a liar would have it: layers and config are those of the image, the chunks are his. */
const forgedChunks: RootfsManifest = {
  ...rootfsOf(imageOf('1'), 'ext4'),
  layers: imageOf('1').layers.map(({ diffId }) => ({ diffId, chunks: table('his chunks') })),
}

test("a member's word for a tag is taken where the registry is silent, marked, and not passed on as this host's", async (t) => {
  const host = await TestHost.create(t)
  const told = await builtBy(member, '1')
  host.peer.push(told)
  host.registry.fails = unavailable
  const { belief, record, resolution } = await mount(host)
  assert.equal(resolution, 'last-known')
  assert.deepEqual(belief, { name: 'member', namedBy: member.key, index: 'member', maker: member.key })
  assert.deepEqual(record, told.record)
  assert.deepEqual(await host.catalog.image(record), told.record, 'it is served as it came')
  assert.deepEqual(host.considered, [told.record], 'it waits to be verified')
})

test("what the registry confirms is this host's to state; the rootfs stays on the maker's word", async (t) => {
  const host = await TestHost.create(t)
  const told = await builtBy(member, '1')
  host.peer.push(told)
  const { belief, record } = await mount(host)
  assert.deepEqual(belief, { name: 'registry', index: 'member', maker: member.key })
  assert.deepEqual([record.nameStatement.key, record.nameStatement.statedAtMs], [own.key, todayMs])
  assert.deepEqual(record.attestation, told.record.attestation)
  assert.deepEqual(await host.catalog.image(record), record)
  assert.equal(host.registry.requests, 1, 'as many requests as ever')
})

test('what the registry confirms is stated anew when the last statement is a minute old', async (t) => {
  const host = await TestHost.create(t)
  const { record } = await mount(host)
  for (const [ageMs, statedAtMs] of [
    [59_999, todayMs],
    [60_000, todayMs + 60_000],
    [-5000, todayMs - 5000],
  ] as const) {
    host.todayMs = todayMs + ageMs
    const again = await mount(host)
    assert.deepEqual([again.belief.name, again.record.nameStatement.statedAtMs], ['registry', statedAtMs])
    assert.deepEqual(await host.catalog.image(record), again.record)
  }
})

test('a bad member cannot name an image that the registry does not know, nor one that it refuses', async (t) => {
  for (const code of ['missing', 'denied'] as const) {
    const host = await TestHost.create(t)
    host.peer.push(await builtBy(member, '1'))
    host.registry.fails = async () => await Promise.reject(new P2pfsError(code, 'no'))
    await assert.rejects(mount(host), (error) => isP2pfsError(error, code))
  }
})

test('what a member passes on from somebody who is no member is not believed, although the registry is silent', async (t) => {
  const host = await TestHost.create(t)
  host.peer.push(await builtBy(member, '1', 'ext4', { statedBy: stranger }), await builtBy(stranger, '1'))
  host.registry.fails = unavailable
  await assert.rejects(mount(host), (error) => isP2pfsError(error, 'unavailable'))
})

test("this host's own past stands against a member, and a replayed or future tag against nothing", async (t) => {
  const host = await TestHost.create(t)
  host.registry.version = '2'
  await mount(host)
  host.registry.fails = unavailable
  const past = await host.catalog.namePast({ reference: 'host.test/app:1', platform: variant.platform })
  assert.equal(past?.manifestDigest, imageOf('2').manifestDigest)
  await host.catalog.deleteImage({ ...variant, reference: 'host.test/app:1' })
  host.peer.push(
    await builtBy(member, '1', 'ext4', { statedAtMs: todayMs - 1 }),
    await builtBy(member, '1', 'ext4', { statedAtMs: todayMs + 1 }),
    await builtBy(member, '1', 'ext4', { statedAtMs: todayMs * 2 }),
  )
  await assert.rejects(mount(host), (error) => isP2pfsError(error, 'unavailable'))
  host.peer.push(await builtBy(member, '2', 'ext4', { statedBy: stranger }))
  const { belief, record } = await mount(host)
  assert.deepEqual(
    [belief.name, belief.index, record.manifestDigest],
    ['own-past', 'member', imageOf('2').manifestDigest],
    'for what this host knows of the tag, a rootfs is taken from a member',
  )
  assert.equal(record.nameStatement.key, own.key)
})

test('the newest statement of several members wins, in whatever order they come', async (t) => {
  const answers = [
    await builtBy(member, '1', 'ext4', { statedAtMs: todayMs - 5000 }),
    await builtBy(other, '2', 'ext4', { statedAtMs: todayMs - 1000 }),
    await builtBy(member, '1', 'ext4', { statedAtMs: todayMs - 3000 }),
  ]
  for (const peer of [answers, answers.toReversed()]) {
    const host = await TestHost.create(t)
    host.members.push(other.key)
    host.peer.push(...peer)
    host.registry.fails = unavailable
    assert.deepEqual(outcome(await mount(host)), ['peer', 'last-known', '2'])
  }
})

/** A silent registry answers from now on, and the host has found that out. */
async function answersAgain(host: TestHost): Promise<void> {
  host.registry.fails = undefined
  host.nowMs = 20_000
  await mount(host)
  await new Promise(setImmediate)
}

test("with keys listed a member's word is never taken, and a listed key's is, with the registry silent", async (t) => {
  for (const [maker, name] of [
    [member, undefined],
    [stranger, 'listed-key'],
  ] as const) {
    const host = await TestHost.create(t, { trusted: [stranger.key] })
    host.peer.push(await builtBy(maker, '1'))
    host.registry.fails = unavailable
    if (name === undefined) await assert.rejects(mount(host))
    else {
      const { belief, record } = await mount(host)
      assert.deepEqual(belief, { name, namedBy: stranger.key, index: 'listed-key', maker: stranger.key })
      await answersAgain(host)
      const confirmed = await mount(host)
      assert.equal(confirmed.belief.name, 'registry')
      assert.deepEqual(confirmed.record, record, 'what the operator trusts is worth more to others')
    }
  }
})

test('members that contradict each other are both disbelieved: this host builds the image, and knows who lied', async (t) => {
  const host = await TestHost.create(t)
  host.members.push(other.key)
  const honest = await builtBy(other, '1')
  const lie = await builtBy(member, '1', 'ext4', { manifest: forgedChunks })
  host.peer.push(lie, honest)
  host.published = { ...lie, belief: 'member' }
  const resolved = await mount(host)
  assert.deepEqual([outcome(resolved), resolved.belief.index], [['built', 'registry', '1'], 'built'])
  assert.deepEqual(host.untold, [true], 'nobody is believed about a layer of it')
  assert.deepEqual(host.lies, [lie.record])
  assert.match(host.log, /members contradict each other about the rootfs/)
  for (const key of [member.key, other.key]) assert.ok(host.log.includes(key), 'both makers are named')
})

test('a host that cannot build an image about which members contradict each other says so', async (t) => {
  const host = await TestHost.create(t)
  host.members.push(other.key)
  host.peer.push(await builtBy(member, '1', 'ext4', { manifest: forgedChunks }), await builtBy(other, '1'))
  const explained =
    (code: 'unavailable' | 'missing') =>
    (error: unknown): boolean =>
      isP2pfsError(error, code) &&
      /members contradict each other about host.test\/app:1/.test(error.message) &&
      [member.key, other.key].every((key) => error.message.includes(key))
  host.registry.fails = unavailable
  await assert.rejects(mount(host), explained('unavailable'))
  await assert.rejects(
    host.resolver.resolveForMount(reference, variant, { pull: 'never', signal }),
    explained('missing'),
  )
})

test('a rootfs whose config or layers are not those of the image manifest is not taken, though a member signed it', async (t) => {
  const { config } = imageOf('1')
  const forgeries = [
    { ...rootfsOf(imageOf('1'), 'ext4'), config: config.replace('{', '{"config":{"Entrypoint":["/evil"]},') },
    { ...rootfsOf(imageOf('2'), 'ext4'), config },
    { ...rootfsOf(imageOf('1'), 'ext4'), config: 'not JSON' },
    rootfsOf(imageOf('1'), 'erofs'),
  ]
  for (const manifest of forgeries) {
    for (const silent of [true, false]) {
      const host = await TestHost.create(t)
      host.peer.push(await builtBy(member, '1', 'ext4', { manifest }))
      if (silent) host.registry.fails = unavailable
      if (silent) await assert.rejects(mount(host), (error) => isP2pfsError(error, 'unavailable'))
      else assert.equal((await mount(host)).origin, 'built')
      assert.match(host.log, /peer has built the image from other layers/)
    }
  }
})

test('an image made of layer indexes that members told is signed as such, and waits to be verified', async (t) => {
  const host = await TestHost.create(t)
  host.importsWithTold = true
  const { belief, record } = await mount(host)
  assert.deepEqual(belief, { name: 'registry', index: 'told-layers' })
  assert.equal(record.attestation.told, true)
  assert.deepEqual(host.considered, [record])
})

test('an image that is whole here on the word of a member alone is asked for at the registry', async (t) => {
  const host = await TestHost.create(t)
  host.peer.push(await builtBy(member, '1'))
  host.registry.fails = unavailable
  await mount(host)
  host.isWhole = true
  await answersAgain(host)
  host.registry.version = '2'
  assert.deepEqual(outcome(await mount(host)), ['built', 'registry', '2'])
})

test('a name that is converted to another format stays on the word of whoever stated it', async (t) => {
  const host = await TestHost.create(t)
  const told = await builtBy(member, '1', 'erofs')
  host.peer.push(told)
  const { belief, record } = await mount(host, missing)
  assert.deepEqual(belief, { name: 'member', namedBy: member.key, index: 'built' })
  assert.deepEqual(record.nameStatement, told.record.nameStatement)
})

test('a record in another format that is older than what was accepted since is history', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1', 'erofs', { statedAtMs: todayMs - 10_000 }))
  host.registry.version = '2'
  assert.deepEqual(outcome(await mount(host)), ['built', 'registry', '2'])
  const erofs = await host.resolver.resolveForMount(reference, { ...variant, format: 'erofs' }, missing)
  assert.deepEqual(outcome(erofs), ['local', 'last-known', '2'])
})

test('a member that contradicts what this host has built itself is not believed, and nothing is built again', async (t) => {
  const host = await TestHost.create(t)
  const built = await builtBy(own, '1')
  host.peer.push(await builtBy(member, '1', 'ext4', { manifest: forgedChunks }), built)
  const resolved = await mount(host)
  assert.deepEqual([outcome(resolved), resolved.belief.index], [['peer', 'registry', '1'], 'built'])
  assert.equal(resolved.record.rootfsDigest, built.record.rootfsDigest)
})

test('a lie about a layer that is told again is found out: this host reads the layers', async (t) => {
  const host = await TestHost.create(t)
  host.importsWithTold = true
  host.toldManifest = forgedChunks
  host.contradicted.add(rootfsDigest(forgedChunks))
  const { belief, record } = await mount(host)
  assert.deepEqual([belief.index, host.untold], ['built', [false, true]])
  assert.equal(record.rootfsDigest, rootfsDigest(rootfsOf(imageOf('1'), 'ext4')))
})

for (const [mode, trusted, liar] of [
  ['default', [], member],
  ['with keys listed', [stranger.key], stranger],
] as const)
  test(`tag: the registry's answer stands against a liar and against this host's own past, ${mode}`, async (t) => {
    for (const hasPast of [true, false]) {
      const host = await TestHost.create(t, { trusted })
      if (hasPast) await host.store(await builtBy(own, '1', 'ext4', { statedAtMs: todayMs - 5000 }))
      host.peer.push(await builtBy(liar, '1', 'ext4', { statedAtMs: todayMs + 1000 }))
      host.registry.version = '2'
      const { belief, record, ...found } = await mount(host)
      assert.deepEqual(outcome({ record, ...found }), ['built', 'registry', '2'])
      assert.deepEqual(belief, { name: 'registry', index: 'built' })
      assert.equal(record.nameStatement.key, own.key)
    }
  })

test('a rootfs for a seed is believed as for a mount without the registry, and no name is taken from a host that knows better', async (t) => {
  const seedOf = ({ record }: ImageRootfs): SeedImage => {
    const { reference, platform, format, manifestDigest, rootfsDigest } = record
    return { reference, platform, format, manifestDigest, rootfsDigest }
  }
  const signal = new AbortController().signal
  const told = await builtBy(member, '1')

  const fresh = await TestHost.create(t)
  fresh.peer.push(told)
  assert.deepEqual((await fresh.resolver.findForSeed(seedOf(told), { signal }))?.manifest, told.manifest)
  assert.deepEqual(await fresh.catalog.image(told.record), told.record)
  assert.deepEqual(fresh.considered, [told.record], 'it waits to be verified')
  assert.deepEqual([fresh.registry.requests, fresh.imported], [0, []])

  // The tag is another image here: the rootfs is taken, and the tag stays.
  const knowing = await TestHost.create(t)
  knowing.registry.version = '2'
  const { record } = await mount(knowing)
  knowing.peer.push(told)
  assert.deepEqual((await knowing.resolver.findForSeed(seedOf(told), { signal }))?.manifest, told.manifest)
  assert.deepEqual(await knowing.catalog.image(record), record)
  for (const { id } of tablesOf(told.manifest)) assert.ok(knowing.tracked.has(id))

  const forged = await builtBy(member, '1', 'ext4', { manifest: rootfsOf(imageOf('2'), 'ext4') })
  for (const lie of [await builtBy(stranger, '1'), forged]) {
    const host = await TestHost.create(t)
    host.peer.push(lie)
    assert.equal(await host.resolver.findForSeed(seedOf(lie), { signal }), undefined)
    assert.deepEqual([await host.catalog.images(), await host.catalog.rootfsDigests()], [[], []])
  }
  // Another rootfs of the image than the job names is not taken in its place.
  const other = await builtBy(member, '1', 'ext4', { manifest: { ...told.manifest, metadata: table('other') } })
  assert.equal(await fresh.resolver.findForSeed(seedOf(other), { signal }), undefined)
})
