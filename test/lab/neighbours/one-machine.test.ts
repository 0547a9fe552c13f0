import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { debianImages } from '../../../netlab/images/images.ts'
import type { MountResult, SeedResult } from '../../../node/control/api.ts'
import { eventually } from '../../support/deadline.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { hash, PublishedLab } from '../publish/published-lab.ts'

const program = fileURLToPath(new URL('../../../cli/p2pfs', import.meta.url))
/** For a busy machine. */
const patience = { timeoutMs: 60_000 }

test('a region reads an image from its neighbour, each chunk about once, and hardly from the registry', async (t) => {
  const directory = temporaryDirectory(t)
  const keyFile = (name: string): string => {
    const file = join(directory, name)
    writeFileSync(file, execFileSync(program, ['keygen'], { encoding: 'utf8' }), { mode: 0o600 })
    return file
  }
  const [a, b, guests] = [keyFile('a'), keyFile('b'), keyFile('guests')]
  const lab = await PublishedLab.real(t, (await debianImages()).gzip)
  const inB = ['--region', 'b', '--region-key-file', b, '--guest-key-file', guests, '--neighbour-bandwidth', '10Gbit']
  const maker = await DaemonProcess.start(t, [...lab.options, ...inB])
  await maker.json<SeedResult>('seed', lab.image, '--publish')
  const { peerId, addresses } = await maker.status()
  const whole = hash(await readFile((await maker.json<MountResult>('mount', lab.image, maker.target('mnt'))).rootfs))

  const neighbour = ['--neighbour-region', `b=${addresses[0]!}`, '--neighbour-bandwidth', '10Gbit']
  const trust = ['--trust-index-key', peerId]
  const inA = ['--region', 'a', '--region-key-file', a, ...neighbour, ...trust, ...lab.options]
  const withKey = ['--neighbour-key-file', `b=${guests}`]
  const first = await DaemonProcess.start(t, [...inA, ...withKey])
  const second = await DaemonProcess.start(t, [...inA, ...withKey, '--bootstrap', (await first.status()).addresses[0]!])
  for (const daemon of [first, second])
    await eventually(
      'the host is a guest of b',
      async () => ((await daemon.status()).neighbours[0]?.members.length === 1 ? true : undefined),
      patience,
    )
  lab.requests()
  const mounts = await Promise.all(
    [first, second].map(async (daemon) => await daemon.json<MountResult>('mount', lab.image, daemon.target('mnt'))),
  )
  for (const read of await Promise.all(mounts.map(async ({ rootfs }) => hash(await readFile(rootfs)))))
    assert.equal(read, whole)
  const statuses = await Promise.all([first, second].map(async (daemon) => await daemon.status()))
  const fetched = statuses.map((status) => status.mounts[0]!.fetched)
  const ofLayers = lab.ofLayers(lab.requests()).reduce((sum, { bodyBytesSent }) => sum + bodyBytesSent, 0)
  const ofImage = [...lab.layers.values()].reduce((sum, size) => sum + size, 0)
  const fromB = (await maker.status()).guests.sent.bytes
  t.diagnostic(JSON.stringify({ fetched, ofLayers, ofImage, fromB, sizeBytes: statuses[0]!.mounts[0]!.sizeBytes }))
  assert.ok(ofLayers < ofImage / 2, `${ofLayers} of ${ofImage} bytes of layers from the registry`)
  assert.ok(fromB < 1.25 * statuses[0]!.mounts[0]!.sizeBytes, `${fromB} bytes came from b`)
  const taken = fetched.reduce((sum, { neighbour, registry }) => sum + neighbour.bytes + registry.bytes, 0)
  assert.ok(taken < 1.25 * statuses[0]!.mounts[0]!.sizeBytes, `${taken} bytes came into the region`)
  assert.ok(fetched.every(({ neighbour: { bytes } }) => bytes > 0))
  assert.equal((await maker.status()).peers.length, 0)
})
