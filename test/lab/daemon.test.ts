import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { closeSync, openSync, readdirSync, readFileSync, readSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import type { MountResult, SeedResult } from '../../node/control/api.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { DaemonProcess, runCli } from './daemon-process.ts'
import { copyOddImage } from './lab-image.ts'

const hash = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')

/** Past the page cache, so that the read reaches the daemon. */
async function readFresh(path: string): Promise<number> {
  writeFileSync('/proc/sys/vm/drop_caches', '1')
  const file = await open(path)
  try {
    return (await file.read(Buffer.alloc(4096), 0, 4096, 0)).bytesRead
  } finally {
    await file.close()
  }
}

test('an image that nobody has seeded is imported by its mount, read, and unmounted', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  const [first, second] = [daemon.target('first'), daemon.target('second')]
  const answer = await daemon.cli('mount', image, first, '--json')
  assert.equal(answer.status, 0, answer.stderr)
  const result = JSON.parse(answer.stdout) as MountResult
  assert.deepEqual(readdirSync(first), ['rootfs.img'])
  assert.deepEqual([result.rootfs, result.format, result.origin], [join(first, 'rootfs.img'), 'ext4', 'built'])
  assert.equal((result.config as { os: string }).os, 'linux')
  const again = JSON.parse((await daemon.cli('mount', image, second)).stdout) as MountResult
  assert.deepEqual([again.digest, again.origin], [result.digest, 'local'])
  assert.equal(hash(again.rootfs), hash(result.rootfs))
  assert.throws(() => openSync(result.rootfs, 'r+'), { code: 'EROFS' })
  const seeded = JSON.parse((await daemon.cli('seed', image, '--json')).stdout) as SeedResult
  assert.equal(seeded.digest, result.digest)
  const status = await daemon.status()
  assert.deepEqual(status.mounts.map(({ directory }) => directory).toSorted(), [first, second])
  assert.equal(status.images[0]?.localBytes, result.sizeBytes)
  assert.equal((await daemon.cli('umount', first)).status, 0)
  assert.deepEqual(readdirSync(first), [])
  assert.equal((await daemon.cli('umount', second)).status, 0)
  assert.equal(await daemon.stop(), 0)
  assert.deepEqual(daemon.mounts(), [])
})

test('what is wrong is said in one line, with what to do', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  const taken = daemon.target('taken')
  assert.equal((await daemon.cli('mount', image, taken)).status, 0)
  writeFileSync(join(daemon.directory, 'file'), '')
  const cases: [string[], number, RegExp][] = [
    [['mount', image, taken], 1, /taken is a mount already; umount it first/],
    [['mount', image, join(daemon.directory, 'nowhere')], 1, /no such directory: .*nowhere; make it first/],
    [['mount', image, join(daemon.directory, 'file')], 1, /not a directory/],
    [['mount', `${image}x`, taken], 1, /has no image/],
    [['mount', 'UPPER', taken], 1, /lower case/],
    [['seed', 'oci:/nowhere'], 1, /no OCI layout/],
    [['seed', image, '--platform', 'plan9/mips'], 1, /not for plan9\/mips; choose with --platform/],
    [['umount', daemon.directory], 1, /nothing of p2pfs is mounted on/],
    [['mount', image], 2, /expected IMAGE DIR/],
    [['status', '--regoin'], 2, /Unknown option/],
    [['explode'], 2, /no such command: explode/],
  ]
  for (const [argv, status, pattern] of cases) {
    const answer = await daemon.cli(...argv)
    assert.equal(answer.status, status, argv.join(' '))
    assert.match(answer.stderr, pattern)
    assert.equal(answer.stderr.trimEnd().split('\n').length, 1, answer.stderr)
  }
  const json = await daemon.cli('umount', '/nowhere', '--json')
  assert.equal((JSON.parse(json.stdout) as { error: { code: string } }).error.code, 'missing')
  assert.equal((await daemon.status()).mounts.length, 1)
})

test('each command explains itself, and says when no daemon answers', async () => {
  for (const command of ['daemon', 'seed', 'mount', 'umount', 'status']) {
    const { status, stdout } = await runCli([command, '--help'])
    assert.equal(status, 0)
    assert.match(stdout, new RegExp(`Usage: p2pfs ${command}`))
  }
  assert.match((await runCli(['--help'])).stdout, /seed .*mount /s)
  assert.match((await runCli(['--version'])).stdout, /^p2pfs \d+\.\d+\.\d+\n$/)
  const { status, stderr } = await runCli(['status', '--control', '/nonexistent/p2pfs.sock'])
  assert.equal(status, 1)
  assert.match(stderr, /no daemon at \/nonexistent\/p2pfs\.sock: start it with p2pfs daemon/)
})

test('one daemon per state directory', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const second = await runCli([
    'daemon',
    '--state-dir',
    join(daemon.directory, 'state'),
    '--control',
    join(daemon.directory, 'other.sock'),
  ])
  assert.equal(second.status, 1)
  assert.match(second.stderr, /another p2pfs daemon \(pid \d+\) uses .*\/state; stop it first/)
  assert.equal((await daemon.cli('status')).status, 0)
})

test('a daemon that cannot start says why and leaves nothing mounted', async (t) => {
  const directory = temporaryDirectory(t)
  const answer = await runCli([
    'daemon',
    '--state-dir',
    join(directory, 'state'),
    '--control',
    join(directory, 'c.sock'),
    '--listen',
    '/ip4/192.0.2.1/tcp/1',
  ])
  assert.notEqual(answer.status, 0)
  assert.match(answer.stderr, /cannot listen on|not usable/)
  assert.doesNotMatch(readFileSync('/proc/mounts', 'utf8'), new RegExp(directory))
})

test('SIGHUP, SIGTERM and kill -9 of the daemon leave mounts and open files as they are', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  const target = daemon.target('target')
  assert.equal((await daemon.cli('mount', image, target)).status, 0)
  const path = join(target, 'rootfs.img')
  const before = hash(path)
  const fd = openSync(path, 'r')
  let { daemonPid } = await daemon.status()
  for (const replace of [
    () => daemon.signal('SIGHUP'),
    () => process.kill(daemonPid, 'SIGTERM'),
    () => process.kill(daemonPid, 'SIGKILL'),
  ]) {
    writeFileSync('/proc/sys/vm/drop_caches', '1')
    replace()
    const status = await daemon.replaced(daemonPid)
    daemonPid = status.daemonPid
    assert.deepEqual(
      status.mounts.map(({ directory }) => directory),
      [target],
    )
    assert.equal(readSync(fd, Buffer.alloc(4096), 0, 4096, 0), 4096)
    assert.equal(hash(path), before)
  }
  closeSync(fd)
})

test('a chunk that is gone comes from the image again; while that is away too, reads fail and the next try works', async (t) => {
  const daemon = await DaemonProcess.start(t, ['--read-deadline', '2s'])
  const image = await copyOddImage(daemon.directory)
  const target = daemon.target('target')
  assert.equal((await daemon.cli('mount', image, target)).status, 0)
  const path = join(target, 'rootfs.img')
  const before = hash(path)
  const chunks = join(daemon.directory, 'state/chunks')
  const removeChunks = (): void => {
    for (const name of readdirSync(chunks))
      if (name !== 'incoming') for (const file of readdirSync(join(chunks, name))) rmSync(join(chunks, name, file))
    writeFileSync('/proc/sys/vm/drop_caches', '1')
  }
  // By hand, behind the daemon's back; and again with a daemon that finds none of them.
  removeChunks()
  const { daemonPid } = await daemon.status()
  process.kill(daemonPid, 'SIGKILL')
  await daemon.replaced(daemonPid)
  renameSync(join(daemon.directory, 'image'), join(daemon.directory, 'away'))
  const catalogOnly = await readFresh(path)
  assert.equal(catalogOnly, 4096, 'metadata is made from the layer indexes, without the layers')
  const file = await open(path)
  const end = (await file.stat()).size - 4096
  await assert.rejects(file.read(Buffer.alloc(4096), 0, 4096, end), { code: 'EIO' })
  renameSync(join(daemon.directory, 'away'), join(daemon.directory, 'image'))
  assert.equal((await file.read(Buffer.alloc(4096), 0, 4096, end)).bytesRead, 4096)
  await file.close()
  assert.equal(hash(path), before)
  const { served } = await daemon.status()
  assert.ok(served.registry.bytes > 0)
})
