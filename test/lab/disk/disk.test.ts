import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { GcResult, ImageList, PinResult, RemoveImageResult } from '../../../node/control/api.ts'
import { makeDiskImages, type DiskImage } from '../../../netlab/disk/disk-images.ts'
import { runFill } from '../../../netlab/disk/fill-run.ts'
import { runZipf } from '../../../netlab/disk/zipf-run.ts'
import { createRandom } from '../../support/random.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { DaemonProcess } from '../daemon-process.ts'

const mebibyte = 2 ** 20

test('a store under a day of mounts is never above its limit, and every read is right', async (t) => {
  const limitBytes = 40 * mebibyte
  const { limited, unlimited } = await runZipf(temporaryDirectory(t), createRandom(1), {
    images: 16,
    bases: 2,
    baseBytes: 4 * mebibyte,
    ownBytes: 4 * mebibyte,
    limitBytes,
    mounts: 30,
    skew: 0.8,
  })
  assert.deepEqual([...limited.failures, ...unlimited.failures], [])
  assert.deepEqual([limited.wrong, unlimited.wrong], [0, 0])
  assert.ok(limited.mostBytes <= limitBytes && limited.mostStatedBytes <= limitBytes, `${limited.mostBytes}`)
  assert.ok(limited.evictedBytes > 0 && unlimited.evictedBytes === 0, `${limited.evictedBytes} bytes were evicted`)
  assert.ok(unlimited.mostBytes > limitBytes, 'the limit was needed')
})

test('a disk that others fill and free again, under load, costs no read, no mount of a known image, and no restart', async (t) => {
  const figures = await runFill(temporaryDirectory(t), createRandom(1), { times: 4 })
  assert.deepEqual(figures.failures, [])
  assert.deepEqual([figures.wrong, figures.isSameDaemon, figures.fills], [0, true, 4])
  assert.ok(figures.reads > 100, `${figures.reads} reads`)
})

test('images are listed, pinned, unpinned and removed; what is mounted or pinned is not removed, and what is removed leaves no byte', async (t) => {
  const [a, b] = (await makeDiskImages(temporaryDirectory(t), {
    images: 2,
    bases: 1,
    baseBytes: 2 * mebibyte,
    ownBytes: 3 * mebibyte,
  })) as [DiskImage, DiskImage]
  const daemon = await DaemonProcess.start(t, ['--native-reads', 'off'])
  const fails = async (code: string, ...argv: string[]): Promise<void> => {
    const { status, stdout } = await daemon.cli(...argv, '--json')
    assert.equal(status, 1, stdout)
    assert.equal((JSON.parse(stdout) as { error: { code: string } }).error.code, code, stdout)
  }
  const list = async (): Promise<ImageList['images']> => (await daemon.json<ImageList>('images')).images
  for (const { reference } of [a, b]) await daemon.json('seed', reference, '--format', 'erofs')
  const listed = await list()
  assert.deepEqual(
    listed.map(({ reference }) => reference),
    [b.reference, a.reference],
  )
  for (const { localBytes, sizeBytes, sharedBytes, lastUsedAt } of listed) {
    assert.equal(localBytes, sizeBytes)
    assert.ok(sharedBytes >= 2 * mebibyte && sharedBytes < 3 * mebibyte, `${sharedBytes} are shared`)
    assert.ok(Date.parse(lastUsedAt!) <= Date.now())
  }

  for (const command of ['rm', 'pin', 'unpin']) await fails('missing', command, 'docker.io/library/unknown:1')
  await fails('missing', 'unpin', a.reference)
  const pinned = await daemon.json<PinResult>('pin', a.reference, '--ttl', '2h')
  assert.ok(Date.parse(pinned.until!) > Date.now() + 3_600_000)
  await fails('conflict', 'rm', a.reference)
  assert.deepEqual(
    (await list()).find(({ reference }) => reference === a.reference)?.pins.map(({ why }) => why),
    ['pin'],
  )
  await daemon.json('unpin', a.reference)
  assert.ok((await list()).every(({ pins }) => pins.length === 0))

  const directory = daemon.target('mnt')
  await daemon.json('mount', a.reference, directory, '--as', 'tree')
  await fails('conflict', 'rm', a.reference)
  assert.deepEqual((await list())[0]?.mounts, [directory])
  await daemon.json('umount', directory)
  const before = (await daemon.status()).storeBytes
  const removed = await daemon.json<RemoveImageResult>('rm', a.reference)
  assert.equal(removed.removed.length, 1)
  assert.ok(
    removed.freed.bytes >= 3 * mebibyte && removed.freed.bytes < 4 * mebibyte,
    `${removed.freed.bytes} were freed`,
  )
  assert.equal((await daemon.status()).storeBytes, before - removed.freed.bytes)
  assert.deepEqual(
    (await list()).map(({ reference, localBytes, sizeBytes }) => [reference, localBytes === sizeBytes]),
    [[b.reference, true]],
  )

  const dry = await daemon.json<GcResult>('gc', '--dry-run')
  assert.deepEqual([dry.rootfs, dry.layers, dry.unneeded.chunks, dry.evicted.chunks], [0, 0, 0, 0])
  await daemon.json('rm', b.reference)
  await daemon.json('gc')
  assert.equal((await daemon.status()).storeBytes, 0)
  // Anything that was removed can be had again.
  await daemon.json('seed', a.reference, '--format', 'erofs')
  assert.equal((await list()).length, 1)
})
