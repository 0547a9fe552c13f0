import assert from 'node:assert/strict'
import { test } from 'node:test'
import { P2pfsError } from '../../../protocol/errors.ts'
import { withCaller } from '../../../node/operations/image-request.ts'
import { callerOf, parseReference, type Reference } from '../../../node/registry/reference.ts'
import {
  auto,
  builtBy,
  imageOf,
  member,
  mount,
  outcome,
  own,
  reference,
  rootfsOf,
  signal,
  stranger,
  TestHost,
  todayMs,
  unavailable,
  variant,
} from './resolver-host.ts'

const app = 'host.test/app:1'
const as = (password: string) => withCaller(parseReference(app), { username: 'user', password })

test('a tag that this host or a member has asked for a moment ago is not asked for again, nor is the one that moves to', async (t) => {
  const tagMaxAgeMs = 300_000
  for (const [maker, trusted] of [
    [own, []],
    [member, []],
    [stranger, [stranger.key]],
  ] as const) {
    const host = await TestHost.create(t, { tagMaxAgeMs, trusted })
    const seeded = await builtBy(maker, '1', 'ext4', { statedAtMs: todayMs - tagMaxAgeMs + 1 })
    if (maker === own) await host.store(seeded)
    else host.peer.push(seeded)
    for (let mounts = 0; mounts < 2; mounts++) assert.equal((await mount(host)).resolution, 'last-known')
    assert.equal(host.registry.requests, 0)
    host.todayMs += 1
    assert.equal((await mount(host)).resolution, 'registry')
    assert.equal(host.registry.requests, 1, 'it is as old as it may be')
  }
})

test('who has asked for the tag long ago hears of a member that has asked a moment ago', async (t) => {
  const hour = todayMs - 60 * 60_000
  const cases = [
    // The member says what this host knows.
    { maker: member, version: '1', trusted: [], requests: 0, outcome: ['local', 'last-known', '1'] },
    // A member that says something else is not believed by a host that has a past of its own.
    { maker: member, version: '2', trusted: [], requests: 1, outcome: ['local', 'registry', '1'] },
    { maker: stranger, version: '2', trusted: [stranger.key], requests: 0, outcome: ['peer', 'last-known', '2'] },
    // Neither a stranger, nor a member whose key is not listed, keeps a host from asking.
    { maker: stranger, version: '1', trusted: [], requests: 1, outcome: ['local', 'registry', '1'] },
    { maker: member, version: '1', trusted: [stranger.key], requests: 1, outcome: ['local', 'registry', '1'] },
  ]
  for (const { maker, version, trusted, requests, outcome: expected } of cases) {
    const host = await TestHost.create(t, { trusted, tagMaxAgeMs: 300_000 })
    await host.store(await builtBy(own, '1', 'ext4', { statedAtMs: hour }))
    host.peer.push(await builtBy(maker, version, 'ext4', { statedAtMs: todayMs - 1000 }))
    assert.deepEqual(outcome(await mount(host)), expected)
    assert.equal(host.registry.requests, requests)
  }
})

test('a statement from the future keeps no tag for longer than clocks may differ', async (t) => {
  const host = await TestHost.create(t, { tagMaxAgeMs: 300_000 })
  await host.store(await builtBy(own, '1', 'ext4', { statedAtMs: todayMs + 300_000 }))
  assert.equal((await mount(host)).resolution, 'registry')
})

test('a caller with pull always, or who must have access, mounts only what the registry lets him read, known or not', async (t) => {
  for (const text of [app, `host.test/app@${imageOf('1').manifestDigest}`]) {
    const [right, wrong] = ['right', 'wrong'].map((password) =>
      withCaller(parseReference(text), { username: 'user', password }),
    )
    for (const options of [{ pull: 'always' }, { pull: 'missing', requireAccess: true }] as const) {
      const host = await TestHost.create(t)
      await host.store(await builtBy(own, '1'))
      host.isWhole = true
      host.registry.readers = new Set([callerOf(right!)!.key])
      const by = async (reference: Reference) =>
        await host.resolver.resolveForMount(reference, variant, { ...options, signal })
      assert.equal((await by(right!)).origin, 'local')
      await assert.rejects(by(wrong!), { code: 'denied' })
      // Both at once: neither gets the other's answer.
      const both = await Promise.allSettled([by(right!), by(wrong!), by(right!)])
      assert.deepEqual(
        both.map(({ status }) => status),
        ['fulfilled', 'rejected', 'fulfilled'],
      )
      host.registry.readers.clear()
      host.nowMs = 60_000
      await assert.rejects(by(right!), { code: 'denied' }, 'a right that was taken away ends in a minute')
      host.registry.fails = unavailable
      await assert.rejects(by(wrong!), { code: 'unavailable' }, 'a registry that is silent lets nobody in')
    }
  }
})

test('access is asked for with one request a minute for each caller and image', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  const by = async (password: string) =>
    await host.resolver.resolveForMount(as(password), variant, { pull: 'missing', requireAccess: true, signal })
  for (const requests of [1, 1, 1]) {
    await by('a')
    assert.equal(host.registry.requests, requests)
  }
  await by('b')
  assert.equal(host.registry.requests, 2)
  host.nowMs = 60_000
  await by('a')
  assert.equal(host.registry.requests, 3)
})

test('the last known image is not mounted for a caller whom the registry refuses', async (t) => {
  for (const code of ['denied', 'missing'] as const) {
    const host = await TestHost.create(t)
    await host.store(await builtBy(own, '1'))
    host.registry.fails = async () => await Promise.reject(new P2pfsError(code, 'no'))
    assert.equal((await mount(host)).resolution, 'last-known')
    await assert.rejects(host.resolver.resolveForMount(as('a'), variant, auto), { code })
    await assert.rejects(host.resolver.resolveForSeed(as('a'), variant, { signal }), { code })
  }
})

test('an image that was seeded is mounted by its digest from the region, and nothing is asked for', async (t) => {
  const host = await TestHost.create(t)
  const name = await host.resolver.nameByDigest(await host.resolver.resolveForSeed(reference, variant, { signal }))
  assert.equal(name, `host.test/app@${imageOf('1').manifestDigest}`)
  const record = await host.catalog.image({ ...variant, reference: name })
  const other = await TestHost.create(t)
  other.members = [own.key]
  other.peer.push({ record: record!, manifest: rootfsOf(imageOf('1'), 'ext4') })
  const requests = other.registry.requests
  const mounted = await other.resolver.resolveForMount(parseReference(name), variant, auto)
  assert.deepEqual([mounted.resolution, mounted.belief.name], ['digest', 'digest'])
  assert.equal(other.registry.requests, requests)
})
