import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
// Never the synchronous forms on the mount: the registry answers from this very thread.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { debianImages, oddImage } from '../../../netlab/images/images.ts'
import type { InspectResult, MountResult, SeedResult } from '../../../node/control/api.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { removeChunks } from '../lost-chunks.ts'
import { hash, PublishedLab } from './published-lab.ts'

test('a cold host without peers mounts a published image from the registry, and reads no layer whole', async (t) => {
  const lab = await PublishedLab.real(t, (await debianImages()).gzip)
  const { image, options } = lab
  const maker = await DaemonProcess.start(t, options)
  const { published, digest } = await maker.json<SeedResult>('seed', image, '--publish')
  const whole = await readFile((await maker.json<MountResult>('mount', image, maker.target('mnt'))).rootfs)
  const { peerId } = await maker.status()
  assert.equal(published?.key, peerId)
  assert.equal(published.existed, false)
  lab.requests()

  const again = await maker.json<SeedResult>('seed', image, '--publish')
  assert.deepEqual(again.published, { ...published, existed: true })
  assert.deepEqual(
    lab.requests().filter(({ method }) => method !== 'GET' && method !== 'HEAD'),
    [],
    'there is no second copy',
  )
  await maker.stop()

  const cold = await DaemonProcess.start(t, [...options, '--trust-index-key', peerId])
  lab.requests()
  const mounted = await cold.json<MountResult>('mount', image, cold.target('mnt'))
  assert.deepEqual([mounted.origin, mounted.digest], ['registry', digest])
  const atMount = lab.requests()
  // Manifest, config; the referrers API that is not there, and its tag; the artifact's manifest, index, metadata.
  assert.equal(atMount.length, 7)
  assert.deepEqual(lab.ofLayers(atMount), [])
  assert.ok(atMount.reduce((sum, { bodyBytesSent }) => sum + bodyBytesSent, 0) < 1_000_000)

  assert.equal(hash(await readFile(mounted.rootfs)), hash(whole))
  const ofLayers = lab.ofLayers(lab.requests())
  const small = Math.min(...lab.layers.values())
  assert.ok(ofLayers.length > 20)
  assert.deepEqual(
    ofLayers.filter(
      ({ range, path }) => range === undefined && lab.layers.get(path.slice(path.lastIndexOf('/') + 1)) !== small,
    ),
    [],
  )
  assert.doesNotMatch(cold.log, /streamed/)

  // Metadata, and windows that were never here, once more.
  removeChunks(join(cold.directory, 'state'))
  assert.equal(hash(await readFile(mounted.rootfs)), hash(whole))
  assert.deepEqual(
    lab
      .ofLayers(lab.requests())
      .filter(
        ({ range, path }) => range === undefined && lab.layers.get(path.slice(path.lastIndexOf('/') + 1)) !== small,
      ),
    [],
  )
})

for (const referrersApi of [true, false]) {
  const api = `${referrersApi ? 'with' : 'without'} the referrers API`
  test(`an index is published once for each maker, and converted without layers, ${api}`, async (t) => {
    const lab = await PublishedLab.own(t, await oddImage(), { referrersApi })
    const { image, options } = lab
    const maker = await DaemonProcess.start(t, options)
    const { published } = await maker.json<SeedResult>('seed', image, '--publish')
    const ext4 = await readFile((await maker.json<MountResult>('mount', image, maker.target('ext4'))).rootfs)
    const erofs = await maker.json<MountResult>('mount', image, maker.target('erofs'), '--format', 'erofs')
    const { peerId } = await maker.status()
    await maker.stop()
    // A boot that it had recorded would be worth publishing.
    const cold = await DaemonProcess.start(t, [...options, '--trust-index-key', peerId, '--boot-profiles', 'off'])
    lab.requests()
    const tree = await cold.json<MountResult>('mount', image, cold.target('tree'), '--as', 'tree')
    assert.deepEqual([tree.origin, tree.digest], ['registry', erofs.digest])
    assert.deepEqual(
      lab.ofLayers(lab.requests()).filter(({ range }) => range === undefined),
      [],
    )
    const drive = await cold.json<MountResult>('mount', image, cold.target('drive'))
    assert.deepEqual([drive.origin, hash(await readFile(drive.rootfs))], ['local', hash(ext4)])
    // It publishes what it did not build with its maker's signature.
    const passed = await cold.json<SeedResult>('seed', image, '--publish')
    assert.deepEqual(passed.published, { ...published, existed: true })
    const own = await cold.json<SeedResult>('seed', image, '--publish', '--format', 'erofs')
    assert.deepEqual([own.published?.existed, own.published?.key], [false, (await cold.status()).peerId])
  })
}

test('inspect shows the layers of an image that was never read, from its publication', async (t) => {
  const lab = await PublishedLab.own(t, await oddImage())
  const maker = await DaemonProcess.start(t, lab.options)
  await maker.json<SeedResult>('seed', lab.image, '--publish')
  const expected = await maker.json<InspectResult>('inspect', lab.image)
  const { peerId } = await maker.status()
  await maker.stop()
  const cold = await DaemonProcess.start(t, [...lab.options, '--trust-index-key', peerId])
  await cold.json<MountResult>('mount', lab.image, cold.target('mnt'))
  const { layers } = await cold.json<InspectResult>('inspect', lab.image)
  assert.deepEqual(
    layers.map(({ entries, tarBytes }) => [entries, tarBytes]),
    expected.layers.map(({ entries, tarBytes }) => [entries, tarBytes]),
  )
})

test('a host whose peers are all gone takes windows and metadata from the publication', async (t) => {
  const lab = await PublishedLab.own(t, (await debianImages()).gzip)
  const { image, options } = lab
  const maker = await DaemonProcess.start(t, options)
  await maker.json<SeedResult>('seed', image, '--publish')
  const whole = await readFile((await maker.json<MountResult>('mount', image, maker.target('mnt'))).rootfs)
  const { addresses } = await maker.status()
  const other = await DaemonProcess.start(t, [...options, '--bootstrap', addresses[0]!])
  while ((await other.status()).peers.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
  const mounted = await other.json<MountResult>('mount', image, other.target('mnt'))
  assert.equal(mounted.origin, 'peer')
  await maker.stop()
  lab.requests()
  assert.equal(hash(await readFile(mounted.rootfs)), hash(whole))
  const requests = lab.requests()
  const small = Math.min(...lab.layers.values())
  assert.deepEqual(
    lab
      .ofLayers(requests)
      .filter(
        ({ range, path }) => range === undefined && lab.layers.get(path.slice(path.lastIndexOf('/') + 1)) !== small,
      ),
    [],
  )
  assert.equal(requests.filter(({ path }) => path.includes('/referrers/')).length, 1)
})

test('what cannot be published says why, and what to do', async (t) => {
  const lab = await PublishedLab.own(t, await oddImage())
  const daemon = await DaemonProcess.start(t, lab.options)
  lab.front.faults.add({ method: 'POST', status: 403 })
  const denied = await daemon.cli('seed', lab.image, '--publish')
  assert.equal(denied.status, 1)
  assert.match(denied.stderr, /refuses to take .*docker login .*who may push there/)
  assert.equal((await daemon.status()).images.length, 1, 'the image is seeded all the same')
  lab.front.faults.clear()
  writeFileSync(join(daemon.directory, 'file'), 'x')
  await daemon.cli('import', daemon.target('source'), 'app')
  assert.match((await daemon.cli('seed', 'local:app', '--publish')).stderr, /in no registry, .*push the image to one/)
  const { status, stdout } = await daemon.cli('seed', lab.image, '--publish')
  assert.equal(status, 0)
  assert.match(stdout, /published: sha256:.* signed by 12D3KooW/)
})

test('a boot is published with its image, once, and fetched ahead from the registry by a cold host', async (t) => {
  const lab = await PublishedLab.own(t, await debianImages().then(({ gzip }) => gzip))
  const { image, options } = lab
  const maker = await DaemonProcess.start(t, options)
  const first = await maker.json<SeedResult>('seed', image, '--publish', '--format', 'erofs')
  const boot = async (daemon: DaemonProcess): Promise<string> => {
    const directory = daemon.target('boot')
    await daemon.json<MountResult>('mount', image, directory, '--as', 'tree')
    return directory
  }
  const files = ['usr/bin/dash', 'usr/bin/tar', 'usr/bin/sed', 'usr/bin/grep', 'usr/bin/find', 'usr/bin/bash']
  const made = await boot(maker)
  for (const file of files) await readFile(join(made, file))
  assert.equal((await maker.cli('umount', made)).status, 0)
  const second = await maker.json<SeedResult>('seed', image, '--publish', '--format', 'erofs')
  assert.deepEqual([first.published?.existed, second.published?.existed], [false, false])
  assert.equal((await maker.json<SeedResult>('seed', image, '--publish', '--format', 'erofs')).published?.existed, true)
  const { peerId } = await maker.status()
  await maker.stop()

  const cold = await DaemonProcess.start(t, [...options, '--trust-index-key', peerId])
  const directory = await boot(cold)
  let fetchedBytes = 0
  for (const deadline = performance.now() + 30_000; ;) {
    const { profile } = (await cold.status()).mounts[0]!
    if (profile?.done.chunks === profile?.total.chunks && profile !== undefined) {
      assert.equal(profile.source, 'registry')
      assert.ok(profile.fetched.chunks >= files.length)
      fetchedBytes = profile.fetched.bytes
      break
    }
    assert.ok(performance.now() < deadline, cold.log)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  lab.requests()
  for (const file of files) await readFile(join(directory, file))
  // The kernel may read a page ahead that it did not at the first boot.
  const readAfterwards = lab.ofLayers(lab.requests())
  assert.ok(
    readAfterwards.length <= 2 &&
      readAfterwards.reduce((sum, { bodyBytesSent }) => sum + bodyBytesSent, 0) < 0.1 * fetchedBytes,
    JSON.stringify(readAfterwards),
  )
})
