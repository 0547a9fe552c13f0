import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  closeSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import type { MountResult, Status } from '../../../node/control/api.ts'
import { debianImages, oddImage } from '../../../netlab/images/images.ts'
import { unpackWithUmoci } from '../../../netlab/images/lab-image.ts'
import { compareTrees, describeDifferences } from '../../../netlab/images/tree-compare.ts'
import { eventually } from '../../support/deadline.ts'
import { createRandom } from '../../support/random.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { copyOddImage } from '../lab-image.ts'

const formats = ['erofs', 'ext4'] as const
const waitMs = 120_000

/** Waits until both formats of the images can be read natively. */
async function whenReady(daemon: DaemonProcess): Promise<Status> {
  for (const deadline = performance.now() + waitMs; ;) {
    const status = await daemon.status()
    if (status.images.every(({ isReadyForNative }) => isReadyForNative)) return status
    assert.ok(performance.now() < deadline, `images are not ready in time: ${daemon.log}`)
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
}

async function readsOf(daemon: DaemonProcess): Promise<Record<string, string>> {
  const { mounts } = await daemon.status()
  return Object.fromEntries(mounts.map(({ directory, reads }) => [directory.slice(daemon.directory.length + 1), reads]))
}

/** Mounts below the daemon's directory, without disks of ended mounts, which are unmounted in the background. */
const standing = (daemon: DaemonProcess): string[] => daemon.mounts().filter((path) => !path.includes('.gone-'))
const drop = (): void => writeFileSync('/proc/sys/vm/drop_caches', '3')
const segmentsOf = (daemon: DaemonProcess): string => join(daemon.directory, 'state/native/segments')

async function seedBoth(daemon: DaemonProcess, image: string): Promise<void> {
  for (const format of formats) await daemon.json('seed', image, '--format', format)
}

test('trees and drives read natively are what FUSE makes of them, and end without a trace', async (t) => {
  const daemon = await DaemonProcess.start(t, ['--native-reads', 'all'])
  const image = await copyOddImage(daemon.directory)
  await seedBoth(daemon, image)
  // Before anything can be ready: at most a few of these are native.
  const early = Object.fromEntries(formats.map((format) => [format, daemon.target(`early-${format}`)]))
  for (const format of formats) await daemon.json('mount', image, early[format]!, '--format', format)
  const { nativeBytes } = await whenReady(daemon)
  const names = ['tree', 'writable', 'limited', 'drive-erofs', 'drive-ext4']
  const [tree = '', writable = '', limited = '', ...drives] = names.map((name) => daemon.target(name))
  await daemon.json('mount', image, tree, '--as', 'tree')
  await daemon.json('mount', image, writable, '--as', 'tree', '--writable')
  await daemon.json('mount', image, limited, '--as', 'tree', '--writable', '--size', '16MiB')
  for (const [i, format] of formats.entries()) await daemon.json('mount', image, drives[i]!, '--format', format)
  const reads = await readsOf(daemon)
  for (const name of names) assert.equal(reads[name], 'native', name)

  const unpacked = await unpackWithUmoci(await oddImage(), join(daemon.directory, 'bundle'))
  for (const directory of [tree, writable]) {
    const differences = await compareTrees(unpacked, directory)
    // The root of an overlay has one link, on whatever it stands.
    const isKnown = (aspect: string): boolean => aspect === 'mtime' || (aspect === 'links' && directory === writable)
    assert.equal(describeDifferences(differences.filter(({ path, aspect }) => path !== '' || !isKnown(aspect))), '')
  }
  for (const [i, format] of formats.entries()) {
    const exported = join(daemon.directory, `${format}.img`)
    await daemon.json('export', image, exported, '--format', format)
    for (const directory of [drives[i]!, early[format]!]) execFileSync('cmp', [exported, join(directory, 'rootfs.img')])
    assert.deepEqual(readdirSync(drives[i]!), ['rootfs.img'])
    assert.equal(statSync(join(drives[i]!, 'rootfs.img')).mode & 0o777, 0o400)
  }
  assert.ok(nativeBytes > 0 && nativeBytes < 3 * statSync(join(daemon.directory, 'ext4.img')).size)

  writeFileSync(join(limited, 'odd/one'), 'changed')
  await daemon.json('reset', limited)
  assert.equal(readFileSync(join(limited, 'odd/one'), 'utf8'), '1')
  for (const directory of [tree, writable, limited, ...drives, ...Object.values(early)])
    assert.equal((await daemon.cli('umount', directory)).status, 0)
  assert.deepEqual(standing(daemon), daemon.idleMounts)
  assert.equal(await daemon.stop(), 0)
  assert.deepEqual(daemon.mounts(), [])
})

test('native mounts need neither daemon nor supervisor, and the next one takes them over', async (t) => {
  const daemon = await DaemonProcess.start(t, ['--native-reads', 'all'])
  const image = await copyOddImage(daemon.directory)
  await seedBoth(daemon, image)
  await whenReady(daemon)
  const names = ['tree', 'writable', 'limited', 'drive', 'scratch', 'through-fuse']
  const [tree = '', writable = '', limited = '', drive = '', scratch = '', fuse = ''] = names.map((name) =>
    daemon.target(name),
  )
  await daemon.json('mount', image, tree, '--as', 'tree')
  await daemon.json('mount', image, writable, '--as', 'tree', '--writable')
  await daemon.json('mount', image, limited, '--as', 'tree', '--writable', '--size', '16MiB')
  await daemon.json('mount', image, drive)
  await daemon.json('mount', image, scratch, '--scratch', '16MiB')
  await daemon.json('mount', image, fuse, '--owner', '1234:1234', '--scratch', '16MiB')
  const exported = join(daemon.directory, 'ext4.img')
  await daemon.json('export', image, exported)
  for (const directory of [writable, limited]) writeFileSync(join(directory, 'written'), 'x')
  const mark = 2 ** 23
  writeFileSync(join(daemon.directory, 'mark'), 'mark')
  execFileSync('dd', [
    `if=${join(daemon.directory, 'mark')}`,
    `of=${join(scratch, 'scratch.img')}`,
    'oflag=seek_bytes',
    `seek=${mark}`,
    'conv=notrunc',
    'status=none',
  ])

  await daemon.killAll()
  drop()
  const check = (): void => {
    for (const directory of [drive, scratch]) execFileSync('cmp', [exported, join(directory, 'rootfs.img')])
    execFileSync('sh', ['-c', 'tar -C "$1" -cf - . | cat > /dev/null', 'sh', tree])
    execFileSync('cmp', ['-n', '4', '-i', `0:${mark}`, join(daemon.directory, 'mark'), join(scratch, 'scratch.img')])
    for (const directory of [writable, limited]) assert.equal(readFileSync(join(directory, 'written'), 'utf8'), 'x')
  }
  check()
  await daemon.startAgain()
  check()
  assert.deepEqual(await readsOf(daemon), Object.fromEntries(names.slice(0, 5).map((name) => [name, 'native'])))
  // The same boot: nothing has to be checked again.
  await whenReady(daemon)
  const { daemonPid } = await daemon.status()
  daemon.signal('SIGHUP')
  await daemon.replaced(daemonPid)
  check()
  assert.equal(Object.keys(await readsOf(daemon)).length, 5)
  await daemon.json('reset', scratch)
  execFileSync('e2fsck', ['-fn', join(scratch, 'scratch.img')], { stdio: 'ignore' })
  assert.equal((await readsOf(daemon))['scratch'], 'native')
  for (const directory of [tree, writable, limited, drive, scratch])
    assert.equal((await daemon.cli('umount', directory)).status, 0)
  assert.deepEqual(standing(daemon), daemon.idleMounts)
})

test('drives are native only where that is asked for; O_DIRECT opens go on in the others', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  await daemon.json('seed', image, '--format', 'erofs')
  await whenReady(daemon)
  const [tree, drive] = [daemon.target('tree'), daemon.target('drive')]
  const { restricted } = await daemon.json<MountResult>('mount', image, tree, '--as', 'tree')
  await daemon.json('mount', image, drive, '--format', 'erofs')
  assert.deepEqual(await readsOf(daemon), { tree: 'native', drive: 'fuse' })
  assert.equal(restricted, undefined, 'only root gets below the directory of the test')
  execFileSync('dd', [`if=${drive}/rootfs.img`, 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct', 'status=none'])
})

test('an image that is larger than the limit is read through FUSE', async (t) => {
  const daemon = await DaemonProcess.start(t, ['--native-limit', '100KiB'])
  const image = await copyOddImage(daemon.directory)
  await daemon.json('seed', image, '--format', 'erofs')
  await daemon.logs(/cannot be made ready for native reads/)
  const tree = daemon.target('tree')
  await daemon.json('mount', image, tree, '--as', 'tree')
  assert.deepEqual(await readsOf(daemon), { tree: 'fuse' })
  assert.ok((await daemon.status()).nativeBytes <= 100 * 1024)
  execFileSync('sh', ['-c', 'tar -C "$1" -cf - . | cat > /dev/null', 'sh', tree])
})

test('with --native-reads off the files go; a native mount stands until it is ended', async (t) => {
  const config = ['--config', join(mkdtempSync(join(tmpdir(), 'p2pfs-test-')), 'config.json')] as const
  writeFileSync(config[1], JSON.stringify({ nativeReads: 'trees' }))
  t.after(() => rmSync(dirname(config[1]), { recursive: true }))
  const daemon = await DaemonProcess.start(t, [...config])
  const image = await copyOddImage(daemon.directory)
  await daemon.json('seed', image, '--format', 'erofs')
  await whenReady(daemon)
  const [before, after] = [daemon.target('before'), daemon.target('after')]
  await daemon.json('mount', image, before, '--as', 'tree')
  writeFileSync(config[1], JSON.stringify({ nativeReads: 'off' }))
  const { daemonPid } = await daemon.status()
  daemon.signal('SIGHUP')
  await daemon.replaced(daemonPid)
  await daemon.json('mount', image, after, '--as', 'tree')
  for (const deadline = performance.now() + waitMs; readdirSync(segmentsOf(daemon)).join() !== 'boot';) {
    assert.ok(performance.now() < deadline, daemon.log)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  drop()
  execFileSync('sh', ['-c', 'tar -C "$1" -cf - . | cat > /dev/null', 'sh', before])
  assert.equal((await readsOf(daemon))['before'], 'native')
  assert.equal((await daemon.status()).nativeBytes, 0)
  for (const directory of [before, after]) assert.equal((await daemon.cli('umount', directory)).status, 0)
  assert.deepEqual(standing(daemon), daemon.idleMounts)
})

test('a file that is damaged when the host was off is made again before it is used', async (t) => {
  const daemon = await DaemonProcess.start(t, ['--native-reads', 'all'])
  const image = await copyOddImage(daemon.directory)
  await daemon.json('seed', image, '--format', 'erofs')
  await whenReady(daemon)
  await daemon.killAll()
  const names = readdirSync(segmentsOf(daemon)).filter((name) => name !== 'boot')
  for (const name of names) {
    const path = join(segmentsOf(daemon), name)
    const bytes = readFileSync(path)
    bytes[bytes.length >> 1]! ^= 1
    writeFileSync(path, bytes)
  }
  writeFileSync(join(segmentsOf(daemon), 'boot'), 'another')
  await daemon.startAgain()
  await whenReady(daemon)
  const tree = daemon.target('tree')
  await daemon.json('mount', image, tree, '--as', 'tree')
  assert.deepEqual(await readsOf(daemon), { tree: 'native' })
  const unpacked = await unpackWithUmoci(await oddImage(), join(daemon.directory, 'bundle'))
  const differences = await compareTrees(unpacked, tree)
  assert.equal(describeDifferences(differences.filter(({ path, aspect }) => path !== '' || aspect !== 'mtime')), '')
})

test('a daemon killed at any moment while it makes an image ready leaves nothing wrong', async (t) => {
  const daemon = await DaemonProcess.start(t, ['--native-reads', 'all'])
  const { gzip } = await debianImages()
  const image = `oci:${gzip.layoutDirectory}:${gzip.tag}`
  await daemon.json('seed', image, '--format', 'erofs')
  const random = createRandom(23)
  for (let round = 0; round < 6; round++) {
    const { daemonPid } = await daemon.status()
    await new Promise((resolve) => setTimeout(resolve, random.below(900)))
    process.kill(daemonPid, 'SIGKILL')
    await daemon.replaced(daemonPid)
  }
  await whenReady(daemon)
  assert.deepEqual(
    readdirSync(segmentsOf(daemon)).filter((name) => name.includes('.')),
    [],
  )
  const [exported, drive] = [join(daemon.directory, 'image'), daemon.target('drive')]
  await daemon.json('export', image, exported, '--format', 'erofs')
  await daemon.json('mount', image, drive, '--format', 'erofs')
  assert.deepEqual(await readsOf(daemon), { drive: 'native' })
  drop()
  execFileSync('cmp', [exported, join(drive, 'rootfs.img')])
})

test('a trial mount that a killed daemon has left is removed by the next one', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const trial = join(daemon.directory, 'state', 'native', 'trial', 'on')
  mkdirSync(trial, { recursive: true })
  execFileSync('mount', ['-t', 'tmpfs', 'p2pfs-test', trial])
  const { daemonPid } = await daemon.status()
  process.kill(daemonPid, 'SIGKILL')
  await daemon.replaced(daemonPid)
  await eventually('no trial stands', async () => !daemon.mounts().includes(trial) || undefined, { timeoutMs: 20_000 })
})

test('reads at random places of a native drive are right, across the ends of its layers', async (t) => {
  const daemon = await DaemonProcess.start(t, ['--native-reads', 'all'])
  const source = daemon.target('source')
  const random = createRandom(29)
  mkdirSync(join(source, 'files'))
  for (let i = 0; i < 40; i++) writeFileSync(join(source, 'files', String(i)), random.bytes(1 + random.below(400_000)))
  await daemon.json('import', source, 'own/files')
  await daemon.json('seed', 'local:own/files')
  await whenReady(daemon)
  const [exported, drive] = [join(daemon.directory, 'image'), daemon.target('drive')]
  await daemon.json('export', 'local:own/files', exported)
  await daemon.json('mount', 'local:own/files', drive)
  const expected = readFileSync(exported)
  const fd = openSync(join(drive, 'rootfs.img'), 'r')
  drop()
  for (let i = 0; i < 500; i++) {
    const bytes = Buffer.alloc(1 + random.below(300_000))
    const offset = random.below(expected.length)
    const length = readSync(fd, bytes, 0, bytes.length, offset)
    assert.ok(bytes.subarray(0, length).equals(expected.subarray(offset, offset + bytes.length)), `at ${offset}`)
  }
  closeSync(fd)
  assert.ok(existsSync(exported))
})
