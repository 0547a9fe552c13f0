import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
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
  options: string[] = [],
): Promise<{ daemon: DaemonProcess; disk: string; state: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'p2pfs-test-'))
  const disk = join(directory, 'disk')
  mkdirSync(disk)
  execFileSync('truncate', ['-s', String(sizeBytes), join(directory, 'image')])
  // Few inodes, so that they are soon used up.
  execFileSync('mkfs.ext4', ['-q', '-m0', '-N4096', join(directory, 'image')])
  execFileSync('mount', ['-o', 'loop', join(directory, 'image'), disk])
  const state = join(disk, 'state')
  const daemon = await DaemonProcess.start(t, ['--state-dir', state, ...options])
  // Runs after the daemon has been stopped.
  t.after(() => {
    execFileSync('umount', [disk])
    rmSync(directory, { recursive: true })
  })
  return { daemon, disk, state }
}

/** Ways to fill a disk to the end, as somebody else would. */
const ways = {
  blocks: (disk: string): void => {
    const fd = openSync(join(disk, 'filler'), 'a')
    for (const blockBytes of [mebibyte, 4096]) untilFull(() => writeSync(fd, Buffer.alloc(blockBytes, 1)))
    closeSync(fd)
  },
  inodes: (disk: string): void => {
    mkdirSync(join(disk, 'fillers'), { recursive: true })
    untilFull(() => closeSync(openSync(join(disk, 'fillers', randomUUID()), 'wx')))
  },
}

function untilFull(write: () => void): void {
  try {
    for (;;) write()
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC')
  }
}

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

for (const [way, fill] of Object.entries(ways)) {
  test(`with no ${way} left what is here, and what a peer has, is mounted and read, by the daemon that was there and by the next`, async (t) => {
    const images = temporaryDirectory(t)
    const peer = await DaemonProcess.start(t)
    await peer.json('import', writeImage(images, 3 * mebibyte, 4), 'theirs', '--format', 'erofs')
    const bootstrap = ['--bootstrap', (await peer.status()).addresses[0]!]
    const { daemon, disk, state } = await startOnDisk(t, 96 * mebibyte, bootstrap)
    const tar = writeImage(images, 6 * mebibyte, 1)
    await daemon.json('import', tar, 'app', '--format', 'ext4')
    await daemon.json('import', tar, 'app', '--format', 'erofs')
    const { rootfs } = await daemon.json<MountResult>('mount', 'local:app', daemon.target('before'))
    const whole = hash(readFileSync(rootfs))
    const content = createRandom(1).bytes(6 * mebibyte)
    // The daemon gives up its reserve, and what it can fetch again: the filler takes that, too.
    await eventually(
      'the disk stays full',
      async () => {
        fill(disk)
        await sleep(1_500)
        const left = statfsSync(disk)
        return (!existsSync(join(state, 'reserve')) && left[way === 'blocks' ? 'bavail' : 'ffree'] === 0) || undefined
      },
      { timeoutMs: 60_000 },
    )
    const check = async (name: string): Promise<void> => {
      const drive = daemon.target(`drive-${name}`)
      assert.equal(hash(readFileSync((await daemon.json<MountResult>('mount', 'local:app', drive)).rootfs)), whole)
      for (const [image, bytes] of [
        ['local:app', content],
        ['local:theirs', createRandom(4).bytes(3 * mebibyte)],
      ] as const) {
        const tree = daemon.target(`${image.slice(6)}-${name}`)
        await daemon.json('mount', image, tree, '--as', 'tree')
        assert.ok(readFileSync(join(tree, 'data')).equals(bytes))
      }
      // A mount that needs room fails with the reason, and leaves nothing.
      const writable = ['--as', 'tree', '--writable', '--size', '64MiB']
      for (const options of [writable, ['--scratch', '64MiB']]) {
        const refused = daemon.target(`refused-${options.length}-${name}`)
        const { status, stderr } = await daemon.cli('mount', 'local:app', refused, ...options)
        assert.equal(status, 1)
        assert.match(stderr, /no space left on device/i)
        assert.deepEqual(readdirSync(refused), [])
      }
      for (const directory of ['writable', 'scratch', 'drives'])
        if (existsSync(join(state, directory))) assert.deepEqual(readdirSync(join(state, directory)), [])
      execFileSync('sh', ['-c', 'echo 1 > /proc/sys/vm/drop_caches'])
      assert.equal(hash(readFileSync(rootfs)), whole)
    }
    for (let i = 0; i < 3; i++) await check(`first-${i}`)
    const { daemonPid, mounts } = await daemon.status()
    process.kill(daemonPid, 'SIGKILL')
    await daemon.replaced(daemonPid)
    assert.equal((await daemon.status()).mounts.length, mounts.length)
    await check('second')
    await daemon.takeOver('--replace')
    await check('third')
    for (const { directory } of (await daemon.status()).mounts) await daemon.json('umount', directory)
    assert.equal((await daemon.status()).mounts.length, 0)
    for (const name of ['filler', 'fillers']) rmSync(join(disk, name), { recursive: true, force: true })
    const again = writeImage(images, mebibyte, 5)
    await eventually(
      'an image is imported again',
      async () => (await daemon.cli('import', again, 'again')).status === 0 || undefined,
      { timeoutMs: 60_000 },
    )
  })
}

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
