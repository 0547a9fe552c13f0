import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isP2pfsError } from '../../../protocol/errors.ts'
import { registryKey } from '../../../protocol/messages/registry-word.ts'
import { parseReference } from '../../../node/registry/reference.ts'
import {
  auto,
  builtBy,
  imageOf,
  never,
  outcome,
  own,
  reference,
  signal,
  stranger,
  TestHost,
  todayMs,
  unavailable,
  variant,
} from './resolver-host.ts'

test('a silent registry is not waited for until it has answered: it is asked beside mounts, once in ten seconds', async (t) => {
  const host = await TestHost.create(t)
  await host.store(await builtBy(own, '1'))
  host.registry.fails = unavailable
  const first = await host.resolver.resolveForMount(reference, variant, auto)
  assert.deepEqual(outcome(first), ['local', 'last-known', '1'])
  assert.equal(first.unanswered, 'connection refused')
  assert.match(host.log, /the last known image is used/)
  host.nowMs = 9_999
  const second = await host.resolver.resolveForMount(reference, variant, auto)
  assert.deepEqual([outcome(second), second.unanswered], [['local', 'last-known', '1'], undefined])
  assert.equal(host.registry.requests, 1)
  await host.resolver.resolveForMount(reference, variant, { pull: 'always', signal })
  assert.equal(host.registry.requests, 2, 'pull always asks a silent registry too')
  host.nowMs = 20_000
  for (let mounts = 0; mounts < 3; mounts++) {
    assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), [
      'local',
      'last-known',
      '1',
    ])
    assert.equal(host.registry.requests, 3, 'it is asked once, beside the mounts')
  }
  host.nowMs = 30_000
  host.registry.fails = undefined
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['local', 'last-known', '1'])
  await new Promise(setImmediate)
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['local', 'registry', '1'])
})

test('a silent registry is not asked beside mounts that would not ask it', async (t) => {
  const host = await TestHost.create(t, { tagMaxAgeMs: 300_000 })
  await host.store(await builtBy(own, '1'))
  host.registry.fails = unavailable
  await host.resolver.resolveForMount(reference, variant, auto)
  assert.equal(host.registry.requests, 1)
  host.nowMs = 20_000
  const byDigest = parseReference(`host.test/app@${imageOf('1').manifestDigest}`)
  for (const pull of ['missing', 'never'] as const)
    await host.resolver.resolveForMount(reference, variant, { pull, signal })
  await host.resolver.resolveForMount(byDigest, variant, auto)
  host.isWhole = true
  await host.resolver.resolveForMount(reference, variant, auto)
  host.isWhole = false
  await host.store(await builtBy(own, '1', 'ext4', { statedAtMs: todayMs - 1000 }))
  await host.resolver.resolveForMount(reference, variant, auto)
  assert.equal(host.registry.requests, 1)
})

test('a registry may be silent for 2 s if a known image is mounted, and for 40 s otherwise', async (t) => {
  const cases = [
    { known: true, resolve: 'resolveForMount', seconds: 2 },
    { known: false, resolve: 'resolveForMount', seconds: 40 },
    { known: true, resolve: 'resolveForSeed', seconds: 40 },
    { known: false, resolve: 'resolveForSeed', seconds: 40 },
  ] as const
  t.mock.timers.enable({ apis: ['setTimeout'] })
  // It never answers; or the tag has moved, and it does not deliver the new manifest.
  for (const hangs of ['fails', 'failsAfterTag'] as const) {
    for (const { known, resolve, seconds } of cases) {
      const host = await TestHost.create(t)
      if (known) await host.store(await builtBy(own, '1'))
      host.registry.version = '2'
      host.registry[hangs] = async (signal) => {
        const answer = never(signal)
        t.mock.timers.tick(seconds * 1000 - 1)
        assert.equal(signal.aborted, false)
        t.mock.timers.tick(1)
        return await answer
      }
      const message = `host.test did not answer within ${seconds} s`
      const resolving = host.resolver[resolve](reference, variant, auto)
      if (known) {
        const resolved = await resolving
        assert.deepEqual([outcome(resolved), resolved.unanswered], [['local', 'last-known', '1'], message])
      } else await assert.rejects(resolving, (error) => isP2pfsError(error, 'timeout') && error.message === message)
    }
  }
})

test('a registry that is late is not waited for, and its answer is for the next mount', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const host = await TestHost.create(t, { tagMaxAgeMs: 300_000 })
  await host.store(await builtBy(own, '1'))
  const answer = Promise.withResolvers<void>()
  const { topDigest } = host.registry
  host.registry.topDigest = async (...question) => {
    host.registry.topDigest = topDigest
    t.mock.timers.tick(500)
    await answer.promise
    return await topDigest(...question)
  }
  const first = await host.resolver.resolveForMount(reference, variant, auto)
  assert.deepEqual(
    [outcome(first), first.unanswered],
    [['local', 'last-known', '1'], 'host.test did not answer within 0.5 s'],
  )
  assert.equal(host.resolver.registryWord(registryKey('host.test'))?.isSilent, true, 'members are told')
  answer.resolve()
  while (host.resolver.registryWord(registryKey('host.test'))?.isSilent !== false) await new Promise(setImmediate)
  while ((await host.catalog.namePast(first.record)) === undefined) await new Promise(setImmediate)
  const { requests } = host.registry
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['local', 'last-known', '1'])
  assert.equal(host.registry.requests, requests, 'it has been asked for a moment ago')
})

test('a tag that has moved, as is heard late, is taken by the next mount', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const host = await TestHost.create(t, { tagMaxAgeMs: 300_000 })
  await host.store(await builtBy(own, '1'))
  host.registry.version = '2'
  const { topDigest } = host.registry
  host.registry.topDigest = async (...question) => {
    host.registry.topDigest = topDigest
    t.mock.timers.tick(500)
    await new Promise(setImmediate)
    await new Promise(setImmediate)
    return await topDigest(...question)
  }
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['local', 'last-known', '1'])
  while (host.resolver.registryWord(registryKey('host.test'))?.isSilent !== false) await new Promise(setImmediate)
  assert.deepEqual(outcome(await host.resolver.resolveForMount(reference, variant, auto)), ['built', 'registry', '2'])
})

test('who must have the answer waits for the whole budget, whatever members say: always, proofs, --tag-max-age 0s', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  for (const { tagMaxAgeMs, ...options } of [
    { tagMaxAgeMs: 300_000, pull: 'always', requireAccess: false },
    { tagMaxAgeMs: 300_000, pull: 'newer', requireAccess: true },
    { tagMaxAgeMs: 0, pull: 'newer', requireAccess: false },
  ] as const) {
    const host = await TestHost.create(t, { tagMaxAgeMs })
    await host.store(await builtBy(own, '1'))
    host.words = [{ isSilent: true, usualMs: 1 }]
    host.registry.fails = async (signal) => {
      const answer = never(signal)
      t.mock.timers.tick(1_999)
      await new Promise(setImmediate)
      assert.equal(signal.aborted, false)
      t.mock.timers.tick(1)
      return await answer
    }
    const resolving = host.resolver.resolveForMount(reference, variant, { ...options, signal })
    if (options.requireAccess) await assert.rejects(resolving, { code: 'timeout' })
    else assert.equal((await resolving).unanswered, 'host.test did not answer within 2 s')
    assert.deepEqual(host.askedAbout, [])
  }
})

test('members whose word does not count do not shorten how long a registry is waited for', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  for (const trusted of [[], [stranger.key]]) {
    const host = await TestHost.create(t, { tagMaxAgeMs: 300_000, trusted })
    await host.store(await builtBy(own, '1'))
    host.words = [{ isSilent: true, usualMs: 1 }]
    const waitMs = trusted.length === 0 ? 30 : 500
    host.registry.fails = async (signal) => {
      void (async () => {
        await new Promise(setImmediate)
        t.mock.timers.tick(waitMs)
      })()
      return await never(signal)
    }
    const { unanswered } = await host.resolver.resolveForMount(reference, variant, auto)
    assert.equal(unanswered, `host.test did not answer within ${waitMs / 1000} s`)
    assert.deepEqual(host.askedAbout, [registryKey('host.test')])
  }
})

test('a tag that is refreshed is fresh for the region; a silent registry is left alone for ten seconds', async (t) => {
  const host = await TestHost.create(t, { tagMaxAgeMs: 300_000 })
  await host.store(await builtBy(own, '1'))
  const refresh = async (of = reference): Promise<string[] | undefined> => {
    const found = await host.resolver.refresh(of, variant, { signal, onProgress: () => undefined })
    return found && outcome({ ...found, resolution: 'registry' })
  }
  assert.deepEqual(await refresh(), ['local', 'registry', '1'])
  const { record } = await host.resolver.resolveForMount(reference, variant, auto)
  assert.deepEqual([record.nameStatement.statedAtMs, host.registry.requests], [host.todayMs, 1])
  host.registry.fails = unavailable
  for (let i = 0; i < 3; i++) await assert.rejects(refresh(), { code: 'unavailable' })
  assert.equal(host.registry.requests, 2)
  assert.equal(host.resolver.registryWord(registryKey('host.test'))?.isSilent, true)
  host.nowMs += 10_000
  host.registry.fails = undefined
  host.registry.version = '2'
  assert.equal(await refresh(), undefined)
  assert.deepEqual([host.registry.requests, host.imported], [4, []], 'what has moved is for those who mount it')
  assert.equal(host.resolver.registryWord(registryKey('host.test'))?.isSilent, false)
  assert.equal(await refresh(parseReference('host.test/other:1')), undefined)
  assert.equal(host.registry.requests, 4, 'what nobody knows is not asked for')
})
