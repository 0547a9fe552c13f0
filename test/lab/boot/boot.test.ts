import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { BootProfile } from '../../../protocol/boot-profile.ts'
import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import { parseDigest, type Digest } from '../../../protocol/digest.ts'
import type { MountResult, SeedResult, Status } from '../../../node/control/api.ts'
import { createRandom } from '../../support/random.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { TestPeer, until } from '../../unit/peers/test-peer.ts'

const fileCount = 360
const fileBytes = maxChunkBytes
const image = 'local:app'
const nameOf = (number: number): string => `f${String(number).padStart(3, '0')}`
/** Files that a program reads: a few of all, not in order. The kernel may read on, into the next file. */
const read = [40, 4, 77, 12, 81, 60, 33, 18, 52]
/** That, and what the kernel reads of its own accord. */
const mostBytes = 2.3 * read.length * fileBytes
const unread = 88

/** A host with an image of 90 MiB of files, each one chunk. */
async function seeder(
  t: TestContext,
): Promise<{ daemon: DaemonProcess; digest: Digest; chunks: Digest[]; address: string }> {
  const daemon = await DaemonProcess.start(t)
  const source = daemon.target('source')
  const { digests } = writeFiles(source)
  const { digest } = await daemon.json<SeedResult>('import', source, 'app')
  return { daemon, digest: parseDigest(digest), chunks: digests, address: await addressOf(daemon) }
}

function writeFiles(directory: string): { digests: Digest[] } {
  const random = createRandom(21)
  const digests = Array.from({ length: fileCount }, (_, i) => {
    const bytes = random.bytes(fileBytes)
    writeFileSync(join(directory, nameOf(i)), bytes)
    return parseDigest(`sha256:${createHash('sha256').update(bytes).digest('hex')}`)
  })
  return { digests }
}

async function addressOf(daemon: DaemonProcess): Promise<string> {
  const { addresses } = await daemon.status()
  return addresses[0]!
}

/** Mounts a tree, reads those files one after the other. */
async function boot(daemon: DaemonProcess, numbers: readonly number[], ...options: string[]): Promise<string> {
  return await bootOf(image, daemon, numbers, ...options)
}

async function bootOf(
  reference: string,
  daemon: DaemonProcess,
  numbers: readonly number[],
  ...options: string[]
): Promise<string> {
  const directory = join(daemon.directory, `boot${Math.random()}`)
  mkdirSync(directory)
  await daemon.json<MountResult>('mount', reference, directory, '--as', 'tree', ...options)
  for (const number of numbers) await readFile(join(directory, nameOf(number)))
  return directory
}

async function bootOnce(daemon: DaemonProcess, numbers: readonly number[], ...options: string[]): Promise<void> {
  const { status, stderr } = await daemon.cli('umount', await boot(daemon, numbers, ...options))
  assert.equal(status, 0, stderr)
}

async function joined(t: TestContext, address: string, ...options: string[]): Promise<DaemonProcess> {
  const daemon = await DaemonProcess.start(t, ['--bootstrap', address, '--read-deadline', '5', ...options])
  await whenStatus(daemon, 'the peers have met', ({ peers }) => peers.length === 1)
  return daemon
}

async function whenStatus(
  daemon: DaemonProcess,
  what: string,
  condition: (status: Status) => boolean,
): Promise<Status> {
  for (const deadline = performance.now() + 30_000; ;) {
    const status = await daemon.status()
    if (condition(status)) return status
    if (performance.now() > deadline)
      throw new Error(`not in time: ${what}: ${JSON.stringify(status.mounts)} ${daemon.log}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** The boot profile that a host gives for the rootfs. */
async function profileAt(t: TestContext, address: string, rootfs: Digest): Promise<BootProfile | undefined> {
  const peer = await TestPeer.start(t, 'asker', { bootstrap: [address], region: 'default' })
  await until('the hosts have met', () => peer.network.membership.peers().length === 1)
  const [answer] = await Promise.all(
    peer.network.objects.askProfiles({ rootfs, sketch: [] }, [], { signal: AbortSignal.timeout(10_000) }),
  )
  await peer.network.stop()
  return answer
}

test('the reads of a boot are recorded in order, outlive the daemon, and no shorter boot replaces them', async (t) => {
  const { daemon, chunks, address } = await seeder(t)
  const ofFiles = ({ chunks: touched }: BootProfile): number[] =>
    touched.map((digest) => chunks.indexOf(digest)).filter((at) => read.includes(at))
  await bootOnce(daemon, read)
  const { digest } = (await daemon.status()).images.find(({ format }) => format === 'erofs')!
  assert.deepEqual(ofFiles((await profileAt(t, address, parseDigest(digest)))!), read)
  await bootOnce(daemon, [1, 4])
  await daemon.killAll()
  for (const path of daemon.mounts().toReversed()) execFileSync('umount', [path])
  await daemon.startAgain()
  assert.deepEqual(ofFiles((await profileAt(t, await addressOf(daemon), parseDigest(digest)))!), read)
})

test('a mount elsewhere gets the chunks of a boot before it reads them, and no others', async (t) => {
  const a = await seeder(t)
  await bootOnce(a.daemon, read)
  const b = await joined(t, a.address)
  const directory = await boot(b, [])
  const { mounts, fetched } = await whenStatus(
    b,
    'all is replayed',
    ({ mounts: [mount] }) => mount?.profile !== undefined && mount.profile.done.chunks === mount.profile.total.chunks,
  )
  const { source, total, fetched: ahead } = mounts[0]!.profile!
  assert.equal(source, 'peer')
  assert.ok(total.chunks >= read.length && total.bytes < mostBytes, JSON.stringify(total))
  assert.ok(ahead.chunks >= read.length)
  assert.ok(fetched.peer.bytes < mostBytes, `${fetched.peer.bytes}`)
  // Nobody is left who could deliver a chunk.
  await a.daemon.stop()
  const expected = read.map((number) => a.chunks[number])
  assert.deepEqual(
    await Promise.all(read.map(async (number) => hashOf(await readFile(join(directory, nameOf(number)))))),
    expected,
  )
  await assert.rejects(readFile(join(directory, nameOf(unread))), { code: 'EIO' })
})

test('a boot of one format is replayed for a mount of the other', async (t) => {
  const a = await seeder(t)
  await bootOnce(a.daemon, read, '--format', 'ext4')
  const b = await joined(t, a.address)
  const directory = await boot(b, [], '--format', 'erofs')
  const { mounts } = await whenStatus(
    b,
    'all is replayed',
    ({ mounts: [mount] }) => mount?.profile !== undefined && mount.profile.done.chunks === mount.profile.total.chunks,
  )
  assert.ok(mounts[0]!.profile!.total.chunks >= read.length)
  await a.daemon.stop()
  for (const number of read) assert.equal(hashOf(await readFile(join(directory, nameOf(number)))), a.chunks[number])
})

test('the next version of an image boots by the profile of the last one, as far as they share chunks', async (t) => {
  const a = await seeder(t)
  await bootOnce(a.daemon, read)
  const changed = read[4]!
  writeFileSync(join(a.daemon.directory, 'source', nameOf(changed)), createRandom(99).bytes(fileBytes))
  await a.daemon.json<SeedResult>('import', join(a.daemon.directory, 'source'), 'app2')
  const b = await joined(t, a.address)
  const directory = await bootOf('local:app2', b, [])
  await whenStatus(
    b,
    'all is replayed',
    ({ mounts: [mount] }) => mount?.profile !== undefined && mount.profile.done.chunks === mount.profile.total.chunks,
  )
  await a.daemon.stop()
  for (const number of read)
    if (number !== changed) assert.equal(hashOf(await readFile(join(directory, nameOf(number)))), a.chunks[number])
  await assert.rejects(readFile(join(directory, nameOf(changed))), { code: 'EIO' })
})

test('a program that reads all of a large image leaves no boot profile', async (t) => {
  const { daemon, address } = await seeder(t)
  await bootOnce(
    daemon,
    Array.from({ length: fileCount }, (_, i) => i),
  )
  const { digest } = (await daemon.status()).images.find(({ format }) => format === 'erofs')!
  assert.equal(await profileAt(t, address, parseDigest(digest)), undefined)
})

test('a daemon killed while it records loses that profile and nothing else', async (t) => {
  const { daemon, address } = await seeder(t)
  const directory = await boot(daemon, read.slice(0, 5))
  const { daemonPid, images } = await daemon.status()
  const rootfs = parseDigest(images.find(({ format }) => format === 'erofs')!.digest)
  process.kill(daemonPid, 'SIGKILL')
  await daemon.replaced(daemonPid)
  for (const number of read) await readFile(join(directory, nameOf(number)))
  assert.equal((await daemon.cli('umount', directory)).status, 0)
  assert.equal(await profileAt(t, await addressOf(daemon), rootfs), undefined)
  await bootOnce(daemon, read)
  assert.ok((await profileAt(t, await addressOf(daemon), rootfs))!.chunks.length >= read.length)
  assert.notEqual(address, '')
})

test('with boot profiles off nothing is recorded and nothing fetched ahead', async (t) => {
  const a = await seeder(t)
  await bootOnce(a.daemon, read)
  const b = await joined(t, a.address, '--boot-profiles', 'off')
  const directory = await boot(b, [read[0]!])
  await new Promise((resolve) => setTimeout(resolve, 1000))
  const { mounts, fetched } = await b.status()
  assert.equal(mounts[0]!.profile, undefined)
  assert.ok(fetched.peer.bytes < read.length * fileBytes, `${fetched.peer.bytes}`)
  assert.equal((await b.cli('umount', directory)).status, 0)
})

function hashOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}
