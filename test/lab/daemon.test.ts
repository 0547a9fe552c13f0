import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { MountResult, SeedResult } from '../../node/control/api.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { DaemonProcess, runCli } from './daemon-process.ts'
import { copyOddImage } from './lab-image.ts'

const hash = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')

/** Reads the first block past the page cache, so that the read reaches the daemon. */
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

test('an error is one line that says what to do', async (t) => {
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
    [['mount', 'oci:', taken], 2, /oci: is followed by a directory/],
    [['mount', 'UPPER', taken], 2, /lower case: upper/],
    [['mount', '', taken], 2, /IMAGE is empty/],
    [['mount', image, ''], 2, /DIR is empty/],
    [['mount', image, '/'], 2, /nothing is mounted on \//],
    [['limits', '--upload', '1kbit'], 2, /too little to give: .*2Mbit or more/],
    [['seed', image, '--ttl', '99999h'], 2, /within 90 days/],
    [['import', daemon.directory, 'App'], 2, /lower-case/],
    [['import', join(daemon.directory, 'nowhere'), 'app'], 1, /there is no .*nowhere/],
    [['export', image, join(daemon.directory, 'nowhere/f')], 1, /no directory .*nowhere; make it first/],
    [['export', image, daemon.directory], 1, /it is a directory; name a file/],
    [['seed', 'oci:/nowhere'], 1, /no OCI layout/],
    [['seed', image, '--platform', 'plan9/mips'], 1, /not for plan9\/mips: --platform linux\//],
    [['seed', image, '--platform', 'amd64'], 2, /not a platform: "amd64"; it is OS\/ARCH/],
    [['mount', image, taken, '--platform', 'linux/'], 2, /not a platform/],
    [['inspect', image, '--format', 'ntfs'], 2, /--format takes ext4, erofs or raw, not ntfs/],
    [['mount', image, taken, '--size', '1GiB'], 2, /needs --writable/],
    [['mount', image, taken, '--size', 'much'], 2, /--size takes a size/],
    [['mount', image, taken, '--pull', 'often'], 2, /--pull takes auto/],
    [['daemon', '--read-deadline', 'soon'], 2, /--read-deadline is soon/],
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

test('each command has a help, and says when no daemon answers', async () => {
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
  assert.equal(second.status, 78)
  assert.match(
    second.stderr,
    /another p2pfs daemon \(pid \d+\) uses .*\/state; take over from it with --replace, stop it /,
  )
  assert.equal((await daemon.cli('status')).status, 0)
})

test('a daemon that cannot start ends with its reason and status, and leaves nothing mounted', async (t) => {
  const readOnly = mkdtempSync(join(tmpdir(), 'p2pfs-test-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'ro', 'p2pfs-test', readOnly])
  t.after(() => {
    execFileSync('umount', [readOnly])
    rmSync(readOnly, { recursive: true })
  })
  const directory = temporaryDirectory(t)
  const file = join(directory, 'file')
  writeFileSync(file, 'data')
  const wrong = join(directory, 'wrong.json')
  writeFileSync(wrong, JSON.stringify({ uploadLimit: '1kbit' }))
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.after(() => taken.close())
  const { port } = taken.address() as AddressInfo
  const cases: [string[], number, RegExp][] = [
    [['--control', file], 78, /file is a file, not a socket, and stays as it is/],
    [['--control', directory], 78, /is a directory, not a socket/],
    [['--control', join(directory, 'x'.repeat(120))], 78, /too long a path/],
    [['--control', join(file, 'control.sock')], 78, /cannot make the directory of the control socket/],
    [['--state-dir', file], 78, /cannot use the state directory .*file/],
    [['--state-dir', join(readOnly, 'state')], 78, /cannot use the state directory .*EROFS/],
    [['--open-region', '--listen', '/ip4/192.0.2.1/tcp/1'], 75, /cannot listen on/],
    [['--listen', `/ip4/127.0.0.1/tcp/${port}`], 75, /cannot listen on/],
    [['--listen', 'here'], 2, /not an address of a peer: "here"/],
    [['--fuse-driver', 'loop'], 2, /--fuse-driver is loop; it takes one of dev, native/],
    [['--upload-limit', '1kbit'], 2, /--upload-limit: 1kbit is too little to give: .*2Mbit or more, or none/],
    [['--config', wrong], 78, /uploadLimit in .*: 1kbit is too little to give/],
  ]
  const usual = ['--state-dir', join(directory, 'state'), '--control', join(directory, 'control.sock')]
  for (const [argv, status, reason] of cases) {
    const listen = argv.includes('--listen') ? [] : ['--listen', '/ip4/127.0.0.1/tcp/0']
    const answer = await runCli(['daemon', ...usual, ...listen, ...argv])
    assert.equal(answer.status, status, `${argv.join(' ')}: ${answer.stderr}`)
    assert.match(answer.stderr, reason)
    assert.doesNotMatch(answer.stderr, /"stack"/)
  }
  assert.equal(readFileSync(file, 'utf8'), 'data')
  assert.doesNotMatch(readFileSync('/proc/mounts', 'utf8'), new RegExp(directory))
})

test('requests wait while the daemon is replaced', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  assert.equal((await daemon.cli('seed', image)).status, 0)
  let { daemonPid } = await daemon.status()
  for (const [name, replace] of [
    ['hangup', () => daemon.signal('SIGHUP')],
    ['kill', () => process.kill(daemonPid, 'SIGKILL')],
  ] as const) {
    const target = daemon.target(name)
    replace()
    const answers = await Promise.all([
      daemon.cli('status'),
      daemon.cli('mount', image, target),
      daemon.cli('inspect', image),
    ])
    for (const { status, stderr } of answers) assert.equal(status, 0, stderr)
    daemonPid = (await daemon.replaced(daemonPid)).daemonPid
    replace()
    const { status, stderr } = await daemon.cli('umount', target)
    assert.equal(status, 0, stderr)
    assert.deepEqual(readdirSync(target), [])
    daemonPid = (await daemon.replaced(daemonPid)).daemonPid
  }
  assert.equal(await daemon.stop(), 0)
  assert.match((await daemon.cli('status')).stderr, /no daemon at .*: start it with p2pfs daemon/)
})

test('a configuration that cannot be used does not replace the daemon', async (t) => {
  const config = join(temporaryDirectory(t), 'config.json')
  writeFileSync(config, '{"logLevel": "info"}')
  const daemon = await DaemonProcess.start(t, ['--config', config])
  const { daemonPid } = await daemon.status()
  for (const [text, reason] of [
    ['{"logLevel": "loud"}', /daemon is not replaced.*logLevel in .*loud/],
    ['{', /daemon is not replaced.*is not JSON/],
  ] as const) {
    writeFileSync(config, text)
    daemon.signal('SIGHUP')
    await daemon.logs(reason)
  }
  assert.equal((await daemon.status()).daemonPid, daemonPid)
  writeFileSync(config, '{}')
  daemon.signal('SIGHUP')
  assert.notEqual((await daemon.replaced(daemonPid)).daemonPid, daemonPid)
})

test('a FUSE filesystem that was unmounted by hand is mounted again', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  const mountPoint = join(daemon.directory, 'state/mnt')
  assert.throws(() => execFileSync('umount', [mountPoint], { stdio: 'ignore' }), 'it is in use')
  const target = daemon.target('target')
  assert.equal((await daemon.cli('mount', image, target)).status, 0)
  execFileSync('umount', ['-l', mountPoint])
  const refused = await daemon.cli('mount', image, daemon.target('other'))
  assert.equal(refused.status, 1)
  assert.match(refused.stderr, /state\/mnt was unmounted by hand/)
  assert.equal((await daemon.cli('umount', target)).status, 0)
  const { daemonPid } = await daemon.status()
  daemon.signal('SIGHUP')
  await daemon.replaced(daemonPid)
  assert.equal((await daemon.cli('mount', image, target)).status, 0)
  assert.equal(readFileSync(join(target, 'rootfs.img')).length > 0, true)
})

test('a directory of the state is no place for a mount', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  for (const directory of ['state', 'state/chunks']) {
    const { status, stderr } = await daemon.cli('mount', image, join(daemon.directory, directory))
    assert.equal(status, 2)
    assert.match(stderr, /is in the state directory of p2pfs/)
  }
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

test('a lost chunk is read from the image again; reads fail while the image is away, and work when it is back', async (t) => {
  const daemon = await DaemonProcess.start(t, ['--read-deadline', '2s'])
  const image = await copyOddImage(daemon.directory)
  const target = daemon.target('target')
  assert.equal((await daemon.cli('mount', image, target)).status, 0)
  const path = join(target, 'rootfs.img')
  const before = hash(path)
  const chunks = join(daemon.directory, 'state/chunks')
  const removeChunks = (): void => {
    for (const name of readdirSync(chunks))
      if (/^[0-9a-f]{2}$/.test(name))
        for (const file of readdirSync(join(chunks, name))) rmSync(join(chunks, name, file))
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
