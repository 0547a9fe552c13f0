import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
// Never the synchronous forms on the mount: the registry answers from this very thread.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { oddImage } from '../../../netlab/images/images.ts'
import type { MountResult, SeedResult } from '../../../node/control/api.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { testKey } from '../../support/test-key.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { hash, PublishedLab } from './published-lab.ts'

const stranger = await testKey(3)

test('a host with listed keys takes from peers what those keys have signed, and builds all else', async (t) => {
  const lab = await PublishedLab.own(t, await oddImage())
  const { image, options } = lab
  const maker = await DaemonProcess.start(t, options)
  const { digest } = await maker.json<SeedResult>('seed', image)
  const whole = hash(await readFile((await maker.json<MountResult>('mount', image, maker.target('mnt'))).rootfs))
  const { peerId, addresses } = await maker.status()
  const meeting = async (...more: string[]): Promise<DaemonProcess> => {
    const daemon = await DaemonProcess.start(t, [...options, '--bootstrap', addresses[0]!, ...more])
    while ((await daemon.status()).peers.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
    return daemon
  }
  const cases: [string[], string][] = [
    [[], 'peer'],
    [['--trust-index-key', peerId], 'peer'],
    [['--trust-index-key', stranger.key], 'built'],
  ]
  for (const [more, origin] of cases) {
    const daemon = await meeting(...more)
    lab.requests()
    const mounted = await daemon.json<MountResult>('mount', image, daemon.target('mnt'))
    assert.deepEqual(
      [mounted.origin, mounted.digest, hash(await readFile(mounted.rootfs))],
      [origin, digest, whole],
      more.join(' '),
    )
    const layersRead = new Set(lab.ofLayers(lab.requests()).map(({ path }) => path)).size
    assert.equal(layersRead, origin === 'built' ? lab.layers.size : 0, 'indexes of peers are not signed')
    if (origin === 'built') assert.match(daemon.log, new RegExp(`not accepted.*${peerId}`))
    await daemon.stop()
  }
})

test('images that were taken from peers before keys were listed are built again', async (t) => {
  const lab = await PublishedLab.own(t, await oddImage())
  const { image, options } = lab
  const maker = await DaemonProcess.start(t, options)
  const { digest } = await maker.json<SeedResult>('seed', image)
  const { addresses } = await maker.status()
  const file = join(temporaryDirectory(t), 'config.json')
  writeFileSync(file, JSON.stringify({ bootstrap: addresses }))
  const daemon = await DaemonProcess.start(t, [...options, '--config', file])
  while ((await daemon.status()).peers.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal((await daemon.json<MountResult>('mount', image, daemon.target('before'))).origin, 'peer')
  // This host makes it, but from layer indexes that the peer sent.
  await daemon.json<MountResult>('mount', image, daemon.target('erofs'), '--format', 'erofs')
  const refused = await daemon.cli('seed', image, '--publish', '--format', 'erofs')
  assert.match(refused.stderr, /layer indexes that peers sent, and is not proved to others/)
  writeFileSync(file, JSON.stringify({ bootstrap: addresses, trustIndexKey: [stranger.key] }))
  const { daemonPid } = await daemon.status()
  daemon.signal('SIGHUP')
  assert.equal((await daemon.replaced(daemonPid)).mounts.length, 2, 'what is mounted stays')
  lab.requests()
  const after = await daemon.json<MountResult>('mount', image, daemon.target('after'), '--pull', 'missing')
  assert.deepEqual([after.origin, after.digest], ['built', digest])
  assert.ok(lab.ofLayers(lab.requests()).length >= lab.layers.size)
})
