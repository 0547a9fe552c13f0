import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  closeSync,
  statSync,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { MountResult, Placed } from '../../../node/control/api.ts'
import { debianImages, oddImage } from '../../../netlab/images/images.ts'
import { unpackWithUmoci } from '../../../netlab/images/lab-image.ts'
import { compareTrees, describeDifferences } from '../../../netlab/images/tree-compare.ts'
import { createRandom } from '../../support/random.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { copyOddImage } from '../lab-image.ts'

const mebibyte = 2 ** 20

/** Writes to a file until the filesystem refuses. @returns bytes written */
function fill(path: string): number {
  const block = Buffer.alloc(mebibyte, 1)
  const fd = openSync(path, 'w')
  let written = 0
  try {
    for (;;) {
      writeFileSync(fd, block)
      written += block.length
    }
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC')
    return written
  } finally {
    closeSync(fd)
  }
}

for (const format of ['erofs', 'ext4']) {
  test(`a tree (${format}) is the image's files, read-only, mounted by the kernel, and equal to umoci's`, async (t) => {
    const daemon = await DaemonProcess.start(t)
    const image = await copyOddImage(daemon.directory)
    const tree = daemon.target('tree')
    const result = await daemon.json<MountResult>('mount', image, tree, '--as', 'tree', '--format', format)
    assert.deepEqual([result.rootfs, result.as, result.format], [tree, 'tree', format])
    const unpacked = await unpackWithUmoci(await oddImage(), join(daemon.directory, 'bundle'))
    const differences = await compareTrees(unpacked, tree)
    // Nobody describes the root of this image: umoci's is as old as the unpacking.
    assert.equal(describeDifferences(differences.filter(({ path, aspect }) => path !== '' || aspect !== 'mtime')), '')
    assert.throws(() => writeFileSync(join(tree, 'x'), ''), { code: 'EROFS' })
    assert.equal((await daemon.cli('umount', tree)).status, 0)
    assert.deepEqual(readdirSync(tree), [])
    assert.equal(await daemon.stop(), 0)
    assert.deepEqual(daemon.mounts(), [])
  })
}

test('two trees of an image are one filesystem of the kernel, and outlive a killed daemon', async (t) => {
  // An image that becomes ready between the two is mounted natively the second time.
  const daemon = await DaemonProcess.start(t, ['--native-reads', 'off'])
  const image = await copyOddImage(daemon.directory)
  const [one, two] = [daemon.target('one'), daemon.target('two')]
  for (const directory of [one, two]) await daemon.json('mount', image, directory, '--as', 'tree')
  assert.equal(statSync(one).dev, statSync(two).dev)
  const { daemonPid } = await daemon.status()
  process.kill(daemonPid, 'SIGKILL')
  writeFileSync('/proc/sys/vm/drop_caches', '3')
  const tar = spawn('tar', ['-C', one, '-cf', '-', '.'], { stdio: ['ignore', 'ignore', 'inherit'] })
  assert.deepEqual(await once(tar, 'exit'), [0, null])
  const status = await daemon.replaced(daemonPid)
  assert.equal(status.mounts.length, 2)
  assert.equal((await daemon.cli('umount', one)).status, 0)
  assert.ok(existsSync(join(two, 'odd')))
  assert.equal((await daemon.cli('umount', two)).status, 0)
})

test('a writable tree takes writes up to its limit, and a reset ends them', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  const tree = daemon.target('tree')
  await daemon.json('mount', image, tree, '--as', 'tree', '--writable', '--size', '32MiB')
  const freeBytes = statfsSync(tree).bavail * statfsSync(tree).bsize
  assert.ok(freeBytes >= 32 * mebibyte && freeBytes < 33 * mebibyte, `${freeBytes}`)
  assert.ok(fill(join(tree, 'big')) >= 31 * mebibyte)
  await daemon.json<Placed>('reset', tree)
  assert.equal(existsSync(join(tree, 'big')), false)
  writeFileSync(join(tree, 'odd/one'), 'changed')
  const file = openSync(join(tree, 'odd/one'), 'r')
  const busy = await daemon.cli('reset', tree)
  assert.match(busy.stderr, /cannot umount .*busy.*stop what uses it/)
  assert.equal(readFileSync(join(tree, 'odd/one'), 'utf8'), 'changed', 'a reset that is refused changes nothing')
  closeSync(file)
  await daemon.json<Placed>('reset', tree)
  assert.equal(readFileSync(join(tree, 'odd/one'), 'utf8'), '1')
  assert.equal((await daemon.cli('umount', tree)).status, 0)
  assert.deepEqual(
    readdirSync(join(daemon.directory, 'state/writable')).filter((name) => !name.includes('.gone-')),
    [],
  )
})

test('without a limit the upper layer has what the disk has; the root keeps its owner and mode', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const source = daemon.target('source')
  mkdirSync(join(source, 'sub'))
  execFileSync('chown', ['12:34', source])
  execFileSync('chmod', ['1770', source])
  const tree = daemon.target('tree')
  await daemon.json('import', source, 'own/root')
  await daemon.json('mount', 'local:own/root', tree, '--as', 'tree', '--writable')
  const { uid, gid, mode } = statSync(tree)
  assert.deepEqual([uid, gid, mode & 0o7777], [12, 34, 0o1770])
  writeFileSync(join(tree, 'sub/file'), 'x')
  assert.equal((await daemon.cli('umount', tree)).status, 0)
})

test('a scratch drive has all its size free, and a reset empties it', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  const directory = daemon.target('drive')
  for (const [size, bytes] of [
    ['64MiB', 64 * mebibyte],
    ['3GiB', 3072 * mebibyte],
  ] as const) {
    const { scratch = '', rootfs } = await daemon.json<MountResult>('mount', image, directory, '--scratch', size)
    assert.ok(statSync(rootfs).isFile())
    assert.ok(statSync(scratch).blocks * 512 < mebibyte, 'sparse')
    const at = daemon.target(`scratch-${size}`)
    const use = (look: () => void): void => {
      execFileSync('mount', ['-o', 'loop', scratch, at])
      try {
        look()
      } finally {
        execFileSync('umount', [at])
      }
    }
    use(() => {
      assert.ok(statfsSync(at).bavail * statfsSync(at).bsize >= bytes)
      writeFileSync(join(at, 'file'), 'x')
      // All of it, not a part: what the kernel says is free can be written.
      if (bytes < 100 * mebibyte) assert.ok(fill(join(at, 'big')) >= bytes - mebibyte)
    })
    assert.deepEqual(await daemon.json<Placed>('reset', directory), { rootfs, scratch })
    use(() => assert.deepEqual(readdirSync(at), ['lost+found']))
    execFileSync('e2fsck', ['-fn', scratch], { stdio: 'ignore' })
    assert.equal((await daemon.cli('umount', directory)).status, 0)
    assert.equal(existsSync(scratch), false)
  }
})

test('options that do not go together are refused with what would', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  const directory = daemon.target('x')
  const cases: [string[], number, RegExp][] = [
    [['--writable'], 2, /never writable: give the VM a second drive with --scratch/],
    [['--as', 'tree', '--size', '1GiB'], 2, /needs --writable/],
    [['--as', 'tree', '--scratch', '1GiB'], 2, /takes writes with --writable/],
    [['--as', 'house'], 2, /--as takes drive or tree/],
    [['--scratch', 'much'], 2, /--scratch takes a size such as 512MiB/],
    [['--scratch', '4KiB'], 2, /1 MiB to 8 TiB/],
    [['--format', 'ntfs'], 2, /--format takes ext4, erofs or raw, not ntfs/],
  ]
  for (const [options, status, pattern] of cases) {
    const answer = await daemon.cli('mount', image, directory, ...options)
    assert.equal(answer.status, status, answer.stderr)
    assert.match(answer.stderr, pattern)
  }
  await daemon.json('mount', image, directory)
  assert.match(
    (await daemon.cli('reset', directory)).stderr,
    /nothing to reset: it was mounted without --scratch and without --writable/,
  )
})

test('what a daemon and its supervisor leave behind when both are killed is removed by the next, but for native mounts', async (t) => {
  const daemon = await DaemonProcess.start(t, ['--native-reads', 'off'])
  const image = await copyOddImage(daemon.directory)
  const names = ['tree', 'writable', 'limited', 'drive']
  const [tree = '', writable = '', limited = '', drive = ''] = names.map((name) => daemon.target(name))
  await daemon.json('mount', image, tree, '--as', 'tree')
  await daemon.json('mount', image, writable, '--as', 'tree', '--writable')
  await daemon.json('mount', image, limited, '--as', 'tree', '--writable', '--size', '16MiB')
  await daemon.json('mount', image, drive, '--scratch', '16MiB')
  await daemon.killAll()
  await daemon.startAgain()
  assert.deepEqual(daemon.mounts(), daemon.idleMounts)
  assert.deepEqual((await daemon.status()).mounts, [])
  for (const name of ['trees', 'scratch', 'drives'])
    assert.deepEqual(readdirSync(join(daemon.directory, 'state', name)), [])
  await daemon.json('mount', image, tree, '--as', 'tree', '--writable')
})

test('a daemon killed at any moment of a mount, a reset or an umount leaves a mount that can be ended, or nothing', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  await daemon.json('seed', image, '--format', 'erofs')
  const random = createRandom(17)
  const directory = daemon.target('target')
  const state = join(daemon.directory, 'state')
  const trial = join(state, 'native', 'trial', 'on')
  for (let round = 0; round < 12; round++) {
    const kind = [
      ['--as', 'tree', '--writable', '--size', '16MiB'],
      ['--as', 'tree', '--writable'],
      ['--format', 'erofs', '--scratch', '16MiB'],
    ][round % 3]!
    const step = Math.floor(round / 3)
    const { daemonPid } = await daemon.status()
    const commands = [
      ['mount', image, directory, ...kind],
      ['reset', directory],
      ['umount', directory],
    ]
    for (const command of commands.slice(0, Math.min(step, 2))) await daemon.json(...command)
    const struck = daemon.cli(...commands[Math.min(step, 2)]!)
    // A process takes some 60 ms to start, the request some 20 to 50.
    await new Promise((resolve) => setTimeout(resolve, 40 + random.below(120)))
    process.kill(daemonPid, 'SIGKILL')
    await struck
    const { mounts } = await daemon.replaced(daemonPid)
    if (mounts.length > 0) assert.equal((await daemon.cli('umount', directory)).status, 0)
    // The new daemon mounts a trial for a moment, to see what the kernel can do.
    for (let i = 0; daemon.mounts().includes(trial) && i < 50; i++) await new Promise((over) => setTimeout(over, 100))
    assert.deepEqual(daemon.mounts(), daemon.idleMounts, `round ${round}: ${command(commands, step)}`)
    for (const name of ['trees', 'scratch', 'drives', 'writable']) {
      const left = existsSync(join(state, name))
        ? readdirSync(join(state, name)).filter((entry) => !entry.includes('.gone-'))
        : []
      assert.deepEqual(left, [], `round ${round}: ${name}`)
    }
  }
})

const command = (commands: readonly string[][], step: number): string => commands[Math.min(step, 2)]!.join(' ')

test('runc runs a container from a tree', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const { gzip } = await debianImages()
  const [tree, bundle] = [daemon.target('tree'), daemon.target('bundle')]
  await daemon.json(
    'mount',
    `oci:${gzip.layoutDirectory}:${gzip.tag}`,
    tree,
    '--as',
    'tree',
    '--writable',
    '--size',
    '64MiB',
  )
  execFileSync('runc', ['spec'], { cwd: bundle })
  const config = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8')) as {
    process: Record<string, unknown>
    root: unknown
  }
  Object.assign(config.process, {
    terminal: false,
    args: ['/bin/sh', '-c', 'head -1 /etc/os-release && echo written > /tmp/file && cat /tmp/file'],
  })
  config.root = { path: tree, readonly: false }
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(config))
  const output = execFileSync(
    'runc',
    ['--root', join(daemon.directory, 'runc'), 'run', '--bundle', bundle, `p2pfs-test-${process.pid}`],
    { encoding: 'utf8' },
  )
  assert.match(output, /Debian[^\n]*\nwritten\n/)
  await daemon.json('reset', tree)
  assert.equal(existsSync(join(tree, 'tmp/file')), false)
  assert.equal((await daemon.cli('umount', tree)).status, 0)
})
