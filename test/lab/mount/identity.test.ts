import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { MountResult } from '../../../node/control/api.ts'
import { createRandom } from '../../support/random.ts'
import { DaemonProcess } from '../daemon-process.ts'

/** The image that each test mounts: a directory with this file. */
const content = createRandom(5).bytes(2 ** 20)
const image = 'local:test'

async function importImage(daemon: DaemonProcess): Promise<void> {
  const source = daemon.target('source')
  writeFileSync(join(source, 'file'), content)
  await daemon.json('import', source, 'test')
}

async function replaceDaemon(daemon: DaemonProcess): Promise<void> {
  const { daemonPid } = await daemon.status()
  daemon.signal('SIGHUP')
  await daemon.replaced(daemonPid)
}

const umounts = async (daemon: DaemonProcess, directory: string): Promise<void> => {
  const { status, stderr } = await daemon.cli('umount', directory)
  assert.equal(status, 0, stderr)
}

for (const [kind, options] of [
  ['drive', ['--scratch', '16MiB']],
  ['tree', ['--as', 'tree', '--writable']],
] as const) {
  test(`a ${kind} below a symbolic link or a renamed directory is known by all its names`, async (t) => {
    const daemon = await DaemonProcess.start(t)
    await importImage(daemon)
    const real = daemon.target('run')
    const link = join(daemon.directory, 'var-run')
    symlinkSync(real, link)
    mkdirSync(join(real, 'one'))
    const { rootfs, scratch } = await daemon.json<MountResult>('mount', image, join(link, 'one'), ...options)
    const written = scratch ?? join(rootfs, 'written')
    writeFileSync(written, 'x', { flag: 'a' })
    assert.match((await daemon.cli('mount', image, join(real, 'one'))).stderr, /is a mount already/)
    const used = openSync(kind === 'drive' ? rootfs : join(rootfs, 'file'), 'r')
    for (const name of [join(link, 'one'), join(real, 'one/')])
      assert.match((await daemon.cli('umount', name)).stderr, /busy/)
    await replaceDaemon(daemon)
    closeSync(used)
    const renamed = join(daemon.directory, 'renamed')
    renameSync(real, renamed)
    await replaceDaemon(daemon)
    assert.equal((await daemon.status()).mounts.length, 1)
    assert.ok(existsSync(join(renamed, 'one', scratch === undefined ? 'written' : 'scratch.img')))
    if (kind === 'tree') assert.deepEqual(readFileSync(join(renamed, 'one/file')), content)
    await umounts(daemon, kind === 'drive' ? join(link, 'one') : join(renamed, 'one'))
    assert.deepEqual(daemon.mounts(), daemon.idleMounts)
    assert.equal(existsSync(written), false)
  })
}

test('a scratch drive that is open is neither deleted nor replaced', async (t) => {
  const daemon = await DaemonProcess.start(t)
  await importImage(daemon)
  const directory = daemon.target('drive')
  const { scratch = '' } = await daemon.json<MountResult>('mount', image, directory, '--scratch', '16MiB')
  const fd = openSync(scratch, 'r+')
  for (const command of ['umount', 'reset'])
    assert.match((await daemon.cli(command, directory)).stderr, /scratch drive .* is in use; stop what uses it/)
  // Its mount is gone, and so are its rights to the drive: it stays while it is open, and no longer.
  execFileSync('umount', ['--lazy', directory])
  await replaceDaemon(daemon)
  assert.deepEqual((await daemon.status()).mounts, [])
  const drives = (): string[] => readdirSync(join(daemon.directory, 'state/scratch'))
  assert.equal(drives().length, 1)
  assert.match(daemon.log, /scratch drive of an ended mount is kept/)
  closeSync(fd)
  await replaceDaemon(daemon)
  assert.deepEqual(drives(), [])
})

test('a directory on which something else is mounted over ours is left alone', async (t) => {
  const daemon = await DaemonProcess.start(t)
  await importImage(daemon)
  const directory = daemon.target('drive')
  await daemon.json('mount', image, directory)
  execFileSync('mount', ['-t', 'tmpfs', 'none', directory])
  assert.match((await daemon.cli('umount', directory)).stderr, /another filesystem is mounted over it/)
  execFileSync('umount', [directory])
  await umounts(daemon, directory)
  assert.deepEqual(readdirSync(directory), [])
})

for (const name of ['rootfs.img', 'scratch.img']) {
  test(`a drive whose ${name} something else is mounted over is left alone, whole`, async (t) => {
    const daemon = await DaemonProcess.start(t)
    await importImage(daemon)
    const directory = daemon.target('drive')
    const { rootfs } = await daemon.json<MountResult>('mount', image, directory, '--scratch', '16MiB')
    const expected = readFileSync(rootfs)
    execFileSync('mount', ['--bind', '/etc/hostname', join(directory, name)])
    assert.match((await daemon.cli('umount', directory)).stderr, /another filesystem is mounted over it/)
    execFileSync('umount', [join(directory, name)])
    assert.ok(readFileSync(rootfs).equals(expected))
    execFileSync('e2fsck', ['-fn', join(directory, 'scratch.img')], { stdio: 'ignore' })
    await umounts(daemon, directory)
    assert.deepEqual(readdirSync(directory), [])
  })
}

test('a drive whose files were unmounted by hand is forgotten, and its directory is free again', async (t) => {
  const daemon = await DaemonProcess.start(t)
  await importImage(daemon)
  for (const [i, names] of [['rootfs.img'], ['scratch.img'], ['rootfs.img', 'scratch.img']].entries()) {
    const directory = daemon.target(`drive-${i}`)
    await daemon.json('mount', image, directory, '--scratch', '16MiB')
    execFileSync(
      'umount',
      names.map((name) => join(directory, name)),
    )
    await replaceDaemon(daemon)
    assert.deepEqual((await daemon.status()).mounts, [])
    // The new daemon mounts a trial for a moment, to see what the kernel can do.
    const left = daemon.mounts().filter((path) => !path.includes('/trial/'))
    assert.deepEqual(left, daemon.idleMounts)
    assert.deepEqual(readdirSync(directory), [])
  }
})
