import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  statfsSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { MountResult } from '../../../node/control/api.ts'
import { eventually } from '../../support/deadline.ts'
import { createRandom } from '../../support/random.ts'
import { writeTar } from '../../support/tar-writer.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { hash } from './fault-daemon.ts'

const mebibyte = 2 ** 20

/** A daemon whose state is on a small ext4 disk of its own; both go with the test. */
async function startOnDisk(
  t: TestContext,
  sizeBytes: number,
): Promise<{ daemon: DaemonProcess; disk: string; state: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'p2pfs-test-'))
  const disk = join(directory, 'disk')
  mkdirSync(disk)
  execFileSync('truncate', ['-s', String(sizeBytes), join(directory, 'image')])
  execFileSync('mkfs.ext4', ['-q', '-m0', join(directory, 'image')])
  execFileSync('mount', ['-o', 'loop', join(directory, 'image'), disk])
  const state = join(disk, 'state')
  const daemon = await DaemonProcess.start(t, ['--state-dir', state])
  // Runs after the daemon has been stopped.
  t.after(() => {
    execFileSync('umount', [disk])
    rmSync(directory, { recursive: true })
  })
  return { daemon, disk, state }
}

/** Fills the disk to the last block, as somebody else would. */
function fill(disk: string): void {
  const fd = openSync(join(disk, 'filler'), 'w')
  for (const blockBytes of [mebibyte, 4096]) {
    const block = Buffer.alloc(blockBytes, 1)
    try {
      for (;;) writeSync(fd, block)
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC')
    }
  }
  closeSync(fd)
}

const shrink = (file: string, byBytes: number): void => truncateSync(file, statSync(file).size - byBytes)

const chunkFiles = (state: string): string[] =>
  readdirSync(join(state, 'chunks'), { recursive: true, encoding: 'utf8' }).filter((name) => /[0-9a-f]{64}$/.test(name))

/** A tar with one file of random bytes. */
function writeImage(directory: string, sizeBytes: number, seed: number): string {
  const file = join(directory, `${seed}.tar`)
  const content = createRandom(seed).bytes(sizeBytes)
  execFileSync('tee', [file], {
    input: writeTar([{ path: 'data', type: 'file', content }]),
    stdio: ['pipe', 'ignore', 'inherit'],
  })
  return file
}

test('with a full disk what is here is mounted and read, by the daemon that was there and by the next', async (t) => {
  const { daemon, disk, state } = await startOnDisk(t, 96 * mebibyte)
  const tar = writeImage(temporaryDirectory(t), 6 * mebibyte, 1)
  await daemon.json('import', tar, 'app')
  const { rootfs } = await daemon.json<MountResult>('mount', 'local:app', daemon.target('before'))
  const whole = hash(readFileSync(rootfs))
  const tree = daemon.target('tree')
  await daemon.json('mount', 'local:app', tree, '--as', 'tree')
  await daemon.cli('umount', tree)
  fill(disk)
  // The daemon may have given up its reserve while the disk was filled, and lost that to the filler.
  const { bavail, bsize } = statfsSync(disk)
  if (!existsSync(join(state, 'reserve')) && bavail * bsize < 4 * mebibyte) shrink(join(disk, 'filler'), 8 * mebibyte)
  for (const as of ['drive', 'tree']) {
    const mounted = await daemon.json<MountResult>('mount', 'local:app', daemon.target(`full-${as}`), '--as', as)
    if (as === 'drive') assert.equal(hash(readFileSync(mounted.rootfs)), whole)
    else assert.equal(readFileSync(join(mounted.rootfs, 'data')).length, 6 * mebibyte)
  }
  const { daemonPid } = await daemon.status()
  process.kill(daemonPid, 'SIGKILL')
  await daemon.replaced(daemonPid)
  execFileSync('sh', ['-c', 'echo 1 > /proc/sys/vm/drop_caches'])
  assert.equal(hash(readFileSync(rootfs)), whole)
  assert.equal((await daemon.status()).mounts.length, 3)
})

test('an import that fills the disk fails with the reason and leaves nothing; with room again it works', async (t) => {
  const { daemon, disk, state } = await startOnDisk(t, 96 * mebibyte)
  const images = temporaryDirectory(t)
  await daemon.json('import', writeImage(images, mebibyte, 1), 'small')
  const before = chunkFiles(state)
  const large = writeImage(images, 120 * mebibyte, 2)
  const { status, stderr } = await daemon.cli('import', large, 'large')
  assert.equal(status, 1)
  assert.match(stderr, /disk is full|no space left on device/i)
  assert.deepEqual(chunkFiles(state).toSorted(), before.toSorted())
  const { bavail, bsize } = statfsSync(disk)
  assert.ok(bavail * bsize > 40 * mebibyte, `${bavail * bsize} bytes are free`)
  const fitting = writeImage(images, 20 * mebibyte, 3)
  await eventually(
    'an image that fits is imported',
    async () => (await daemon.cli('import', fitting, 'fitting')).status === 0 || undefined,
    {
      timeoutMs: 20_000,
    },
  )
  rmSync(large)
})
