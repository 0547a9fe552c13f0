import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, chmodSync, closeSync, constants, openSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test, type TestContext } from 'node:test'
import type { MountResult } from '../../../node/control/api.ts'
import { createRandom } from '../../support/random.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { dropPageCache } from '../lost-chunks.ts'

/** How VMMs read drives: past the page cache or through it, by system calls that do not wait. */
const ways = {
  'io_uring, direct': '--ioengine=io_uring --direct=1 --iodepth=32 --bs=4k --rw=randread',
  'io_uring, direct, of all sizes, into buffers and from a file that are registered':
    '--ioengine=io_uring --direct=1 --iodepth=16 --bsrange=4k-1m --rw=randread --fixedbufs --registerfiles',
  'io_uring, direct, in sequence': '--ioengine=io_uring --direct=1 --iodepth=4 --bs=1m --rw=read',
  'io_uring, cached': '--ioengine=io_uring --direct=0 --iodepth=32 --bsrange=4k-256k --rw=randread',
  'libaio, direct': '--ioengine=libaio --direct=1 --iodepth=32 --bsrange=4k-512k --rw=randread',
  'pread, direct': '--ioengine=psync --direct=1 --bs=64k --rw=read',
} as const

const imageBytes = 24 * 2 ** 20
/** The image ends within a block, as a raw one may. */
const endBytes = 1000
/** Each block of 4 KiB has its checksum and its place in it. */
const verified = ['--verify=crc32c', '--verify_interval=4096', '--verify_fatal=1', '--verify_state_save=0']

const fio = (file: string, way: string, ...more: string[]): string[] => [
  '--name=drive',
  `--filename=${file}`,
  `--size=${imageBytes}`,
  ...verified,
  ...way.split(' '),
  ...more,
]

/** Reads all of a file in a way, and checks every block. */
function check(file: string, way: string): void {
  execFileSync('fio', fio(file, way, '--readonly'), { stdio: ['ignore', 'ignore', 'pipe'] })
}

/** Two hosts; the second has nothing of the raw image `local:disk` that the first has made of `file`. */
async function hosts(t: TestContext): Promise<{ file: string; maker: DaemonProcess; other: DaemonProcess }> {
  const maker = await DaemonProcess.start(t)
  const other = await DaemonProcess.start(t, ['--bootstrap', (await maker.status()).addresses[0]!])
  while ((await other.status()).peers.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
  const file = join(maker.directory, 'disk.img')
  execFileSync('fio', fio(file, '--rw=write --bs=64k', '--do_verify=0'), { stdio: 'ignore' })
  appendFileSync(file, createRandom(3).bytes(endBytes))
  await maker.json('import', '--raw', file, 'disk')
  return { file, maker, other }
}

test('a drive is right in whatever way it is read, also what a peer has and while the daemon is replaced', async (t) => {
  const { file, other } = await hosts(t)
  const directory = other.target('drive')
  const { rootfs } = await other.json<MountResult>('mount', 'local:disk', directory)
  for (const [name, way] of Object.entries(ways)) {
    t.diagnostic(name)
    check(rootfs, way)
  }
  assert.ok((await other.status()).fetched.peer.bytes >= imageBytes)
  execFileSync('cmp', [file, rootfs])

  const reading = spawn('fio', fio(rootfs, ways['io_uring, direct'], '--readonly', '--loops=8'), {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const [said, { daemonPid }] = [text(reading.stderr), await other.status()]
  assert.equal(reading.exitCode, null, 'it still reads')
  process.kill(daemonPid, 'SIGKILL')
  const [status] = (await once(reading, 'exit')) as [number]
  assert.equal(status, 0, await said)
  await other.replaced(daemonPid)
})

test('direct reads need no alignment, and end where the image ends', async (t) => {
  const { file, other } = await hosts(t)
  const { rootfs } = await other.json<MountResult>('mount', 'local:disk', other.target('drive'))
  const expected = readFileSync(file)
  const fd = openSync(rootfs, constants.O_RDONLY | constants.O_DIRECT)
  const [random, memory] = [createRandom(11), Buffer.alloc(2 ** 20 + 8192)]
  const places: [number, number, number][] = [
    [0, 1, 0],
    [511, 2, 1],
    [4095, 4098, 513],
    [262_143, 2, 4095],
    [imageBytes - 1, endBytes + 1, 7],
    [imageBytes, 4096, 0],
    [imageBytes + endBytes, 4096, 0],
    [imageBytes + 4096, 4096, 0],
  ]
  while (places.length < 300)
    places.push([random.below(imageBytes + endBytes), 1 + random.below(2 ** 20), random.below(4096)])
  for (const [offset, length, at] of places) {
    const bytes = memory.subarray(at, at + length)
    const count = readSync(fd, bytes, 0, length, offset)
    const wanted = expected.subarray(offset, offset + length)
    assert.equal(count, wanted.length, `${length} bytes at ${offset}`)
    assert.ok(bytes.subarray(0, count).equals(wanted), `${length} bytes at ${offset}, to ${at}`)
  }
  closeSync(fd)
})

test('the scratch takes direct writes of its owner by io_uring, and a reset ends them', async (t) => {
  const { other } = await hosts(t)
  chmodSync(other.directory, 0o755)
  const directory = other.target('drive')
  const user = 12_345
  const options = ['--scratch', '64MiB', '--owner', `${user}:${user}`]
  const { scratch = '' } = await other.json<MountResult>('mount', 'local:disk', directory, ...options)
  const become = [`--reuid=${user}`, `--regid=${user}`, '--clear-groups']
  const write = fio(scratch, '--ioengine=io_uring --direct=1 --iodepth=16 --bs=16k --rw=randwrite', '--fsync=64')
  execFileSync('setpriv', [...become, 'sh', '-c', 'exec "$@"', 'sh', 'fio', ...write], { cwd: '/tmp', stdio: 'pipe' })
  check(scratch, ways['libaio, direct'])
  await other.json('reset', directory)
  execFileSync('e2fsck', ['-fn', scratch], { stdio: 'ignore' })
  assert.throws(() => check(scratch, ways['io_uring, direct']))
})

test('a drive that the kernel reads by itself refuses direct opens with EINVAL, and is right through the page cache', async (t) => {
  const daemon = await DaemonProcess.start(t, ['--native-reads', 'all'])
  const file = join(daemon.directory, 'disk.img')
  execFileSync('fio', fio(file, '--rw=write --bs=64k', '--do_verify=0'), { stdio: 'ignore' })
  await daemon.json('import', '--raw', file, 'disk')
  const isReady = async (): Promise<boolean> =>
    (await daemon.status()).images.every(({ isReadyForNative }) => isReadyForNative)
  for (const deadline = performance.now() + 120_000; !(await isReady());) {
    assert.ok(performance.now() < deadline, daemon.log)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  const { rootfs } = await daemon.json<MountResult>('mount', 'local:disk', daemon.target('drive'), '--scratch', '16MiB')
  assert.deepEqual(
    (await daemon.status()).mounts.map(({ reads }) => reads),
    ['native'],
  )
  assert.throws(() => openSync(rootfs, constants.O_RDONLY | constants.O_DIRECT), { code: 'EINVAL' })
  dropPageCache()
  check(rootfs, ways['io_uring, cached'])
  execFileSync('cmp', [file, rootfs])
})
