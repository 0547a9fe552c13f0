import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { closeSync, createReadStream, openSync, readFileSync, statSync, truncateSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type {
  ExportResult,
  InspectResult,
  MountResult,
  PushResult,
  SeedResult,
  VerifyResult,
} from '../../../node/control/api.ts'
import { FaultRegistry } from '../../support/registry/fault-registry.ts'
import { DaemonProcess } from '../daemon-process.ts'

const mebibyte = 1024 * 1024
/** Two layers, and the end within a block. */
const imageBytes = 100 * mebibyte + 1000

/** Writes random bytes at these places of a file, which has holes elsewhere. @param parts offset and length (bytes) */
function write(file: string, parts: readonly (readonly [number, number])[]): void {
  const fd = openSync(file, 'a+')
  closeSync(fd)
  truncateSync(file, imageBytes)
  const out = openSync(file, 'r+')
  for (const [offset, length] of parts) writeSync(out, randomBytes(length), 0, length, offset)
  closeSync(out)
}

/** An image of 12 MiB of data, in two layers and in its last bytes. */
function makeImage(file: string): void {
  write(file, [
    [0, 4 * mebibyte],
    [30 * mebibyte + 5000, 4 * mebibyte],
    [70 * mebibyte, 4 * mebibyte],
    [imageBytes - 1000, 1000],
  ])
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const bytes of createReadStream(file)) hash.update(bytes as Buffer)
  return hash.digest('hex')
}

async function region(t: Parameters<typeof DaemonProcess.start>[0]): Promise<[DaemonProcess, DaemonProcess]> {
  const first = await DaemonProcess.start(t)
  const second = await DaemonProcess.start(t, ['--bootstrap', (await first.status()).addresses[0]!])
  while ((await second.status()).peers.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
  return [first, second]
}

test('a disk image is mounted elsewhere byte by byte, and of its next version only what has changed is moved', async (t) => {
  const [maker, other] = await region(t)
  const file = join(maker.directory, 'disk.img')
  makeImage(file)
  const imported = await maker.json<SeedResult>('import', '--raw', file, 'disk:1')
  assert.deepEqual([imported.format, imported.sizeBytes], ['raw', imageBytes])
  const stored = Number(
    execFileSync('du', ['-s', '--block-size=1', join(maker.directory, 'state/chunks')])
      .toString()
      .split('\t')[0],
  )
  assert.ok(stored < 16 * mebibyte, `its zeros take no room: ${stored}`)

  const mounted = await other.json<MountResult>('mount', 'local:disk:1', other.target('first'))
  assert.deepEqual([mounted.format, mounted.as, mounted.digest], ['raw', 'drive', imported.digest])
  assert.equal(statSync(mounted.rootfs).size, imageBytes)
  assert.equal(await sha256(mounted.rootfs), await sha256(file))

  // One part in a hundred, in place.
  write(file, [[71 * mebibyte, Math.ceil(imageBytes / 100)]])
  await maker.json<SeedResult>('import', '--raw', file, 'disk:2')
  const before = (await other.status()).fetched.peer.bytes
  await other.json<SeedResult>('seed', 'local:disk:2')
  const moved = (await other.status()).fetched.peer.bytes - before
  assert.ok(
    moved >= imageBytes / 100 && moved <= (imageBytes * 1.3) / 100,
    `${moved} of ${imageBytes} bytes were moved`,
  )
  const second = await other.json<MountResult>('mount', 'local:disk:2', other.target('second'))
  assert.equal(await sha256(second.rootfs), await sha256(file))

  const inspected = await other.json<InspectResult>('inspect', 'local:disk:2')
  assert.deepEqual([inspected.format, inspected.layers.length], ['raw', 2])
  assert.ok(inspected.sharing[0]!.sharedBytes >= 10 * mebibyte)
  const exported = join(other.directory, 'exported.img')
  await other.json<ExportResult>('export', 'local:disk:2', exported)
  assert.equal(await sha256(exported), await sha256(file))

  const tree = await other.cli('mount', 'local:disk:2', other.target('tree'), '--as', 'tree')
  assert.equal(tree.status, 1)
  assert.match(tree.stderr, /is a raw image, which p2pfs does not look into: mount it as a drive/)
})

test('the filesystem of others is whole in a disk image, from a pipe too, and survives the daemon', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const file = join(daemon.directory, 'disk.img')
  write(file, [])
  execFileSync('mke2fs', ['-q', '-t', 'ext4', '-d', fileURLToPath(new URL('..', import.meta.url)), file])
  const fromFile = await daemon.json<SeedResult>('import', '--raw', file, 'disk')
  const p2pfs = fileURLToPath(new URL('../../../cli/p2pfs', import.meta.url))
  const script = 'cat "$1" | "$2" import --raw - piped --json --control "$3"'
  const shell = spawn('sh', ['-c', script, 'sh', file, p2pfs, daemon.control], { stdio: ['ignore', 'pipe', 'inherit'] })
  const fromPipe = JSON.parse(await text(shell.stdout)) as SeedResult
  assert.equal(fromPipe.digest, fromFile.digest, 'holes, and where the bytes come from, make no difference')

  const { rootfs } = await daemon.json<MountResult>('mount', 'local:disk', daemon.target('drive'))
  const { daemonPid } = await daemon.status()
  process.kill(daemonPid, 'SIGKILL')
  await daemon.replaced(daemonPid)
  execFileSync('e2fsck', ['-fn', rootfs], { stdio: 'ignore' })
  const own = execFileSync('debugfs', ['-R', 'cat /images/raw-images.test.ts', rootfs], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  assert.equal(own.toString(), readFileSync(fileURLToPath(import.meta.url), 'utf8'))
})

test('what is no disk image is refused, by name and reason', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const empty = join(daemon.directory, 'empty')
  closeSync(openSync(empty, 'w'))
  const huge = join(daemon.directory, 'huge')
  closeSync(openSync(huge, 'w'))
  truncateSync(huge, 2 ** 40)
  for (const [source, reason] of [
    [empty, /empty: it is empty/],
    [join(daemon.directory, 'none'), /there is no .*none/],
    [daemon.directory, /is a directory; --raw takes a disk image/],
    [huge, /huge: it is larger than 128GiB/],
    ['/dev/zero', /neither a file nor a pipe/],
  ] as const) {
    const refused = await daemon.cli('import', '--raw', source, 'disk')
    assert.equal(refused.status, 1, source)
    assert.match(refused.stderr, reason)
  }
  assert.equal((await daemon.status()).chunks, 0)
  const mixed = await daemon.cli('import', '--raw', empty, 'disk', '--format', 'ext4')
  assert.equal(mixed.status, 2)
  assert.match(mixed.stderr, /--raw takes the one that is there/)
})

test('a disk image is pushed to a registry, and another region mounts it from there, with the index and without', async (t) => {
  const registry = await FaultRegistry.start({})
  t.after(async () => await registry[Symbol.asyncDispose]())
  const { authority } = registry.front
  const options = ['--insecure-registry', authority]
  const maker = await DaemonProcess.start(t, options)
  const file = join(maker.directory, 'disk.img')
  makeImage(file)
  await maker.json<SeedResult>('import', '--raw', file, 'disk:1')
  const target = `${authority}/disks/app:1`
  const pushed = await maker.json<PushResult>('push', 'local:disk:1', target)
  assert.equal(pushed.sizeBytes, imageBytes)
  assert.ok(pushed.compressedBytes < 13 * mebibyte)

  // Nobody's index is believed: the layers are read.
  const stranger = await DaemonProcess.start(t, options)
  const whole = await stranger.json<SeedResult>('seed', target)
  assert.deepEqual([whole.digest, whole.format], [pushed.digest, 'raw'])
  const mounted = await stranger.json<MountResult>('mount', target, stranger.target('mnt'))
  assert.equal(await sha256(mounted.rootfs), await sha256(file))
  assert.ok((await stranger.json<VerifyResult>('verify', target)).same)

  const { peerId } = await maker.status()
  const trusting = await DaemonProcess.start(t, [...options, '--trust-index-key', peerId])
  const lazy = await trusting.json<MountResult>('mount', target, trusting.target('mnt'))
  assert.deepEqual([lazy.origin, lazy.digest, lazy.wholeReads], ['registry', pushed.digest, []])
  assert.equal(await sha256(lazy.rootfs), await sha256(file))
  assert.ok((await trusting.status()).readAtRandom.requests > 0)

  write(file, [[71 * mebibyte, mebibyte]])
  await maker.json<SeedResult>('import', '--raw', file, 'disk:2')
  const uploads = registry.front.log.filter(({ method }) => method === 'PUT' || method === 'PATCH').length
  await maker.json<PushResult>('push', 'local:disk:2', `${authority}/disks/app:2`)
  const puts = registry.front.log.filter(({ method }) => method === 'PUT' || method === 'PATCH').length - uploads
  // A layer, the config, the manifest; the index, metadata and manifest of the publication.
  assert.ok(puts <= 7, `the layer that is the same was not sent again: ${puts}`)
  const other = await maker.cli('push', target, `${authority}/disks/copy:1`)
  assert.equal(other.status, 0, other.stderr)
  const tarred = await maker.cli('push', 'local:none', `${authority}/disks/none:1`)
  assert.match(tarred.stderr, /has a raw image local:none/)
})
