import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'node:test'
import { oddImage } from '../../../netlab/images/images.ts'
import { FaultRegistry } from '../../support/registry/fault-registry.ts'
import type { Fault } from '../../support/registry/faults.ts'
import type { MountResult, SeedResult } from '../../../node/control/api.ts'
import { DaemonProcess } from '../daemon-process.ts'

/** For so long nobody asks for a tag again (ms). */
const tagMaxAgeMs = 1_000
/** Whoever must have an answer waits so long for it (s). */
const budgetSeconds = 60

test('hosts that know nothing mount a tag of their region while the registry is dead, and the next mount waits for nothing', async (t) => {
  const registry = await FaultRegistry.start()
  t.after(async () => await registry[Symbol.asyncDispose]())
  const { layoutDirectory, tag } = await oddImage()
  await registry.addLayout('lab/app', layoutDirectory)
  const { authority } = registry
  const options = ['--insecure-registry', authority, '--peer-registry', authority, '--platform', 'linux/amd64']
  options.push('--tag-max-age', `${tagMaxAgeMs / 1000}s`, '--resolve-budget', `${budgetSeconds}s`)
  const first = await DaemonProcess.start(t, options)
  const image = `${authority}/lab/app:${tag}`
  const { digest } = await first.json<SeedResult>('seed', image)
  const bootstrap = ['--bootstrap', (await first.status()).addresses[0]!]
  const kinds: Fault[] = [{ drop: true }, { status: 500 }, { status: 429, retryAfter: 60 }]
  for (const [i, kind] of kinds.entries()) {
    const host = await DaemonProcess.start(t, [...options, ...bootstrap])
    while ((await host.status()).peers.length === 0) await sleep(50)
    await sleep(tagMaxAgeMs + 100)
    const live = registry.faults.add(kind)
    const mount = async (name: string): Promise<MountResult> =>
      await host.json<MountResult>('mount', image, host.target(`${name}-${i}`))
    const mounted = await mount('first')
    assert.deepEqual([mounted.digest, mounted.resolution], [digest, 'last-known'])
    // Twice what the registry took when it was asked, on a machine that may be busy.
    const [, waitedSeconds = '0'] = /did not answer within ([0-9.]+) s/.exec(mounted.unanswered ?? '') ?? []
    assert.ok(Number(waitedSeconds) < budgetSeconds, mounted.unanswered)
    const again = await mount('again')
    assert.deepEqual([again.resolution, again.unanswered], ['last-known', undefined])
    live()
    await host.stop()
  }
})
