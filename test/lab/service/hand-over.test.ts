import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, globSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { MountResult } from '../../../node/control/api.ts'
import { eventually } from '../../support/deadline.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { copyOddImage } from '../lab-image.ts'
import { dropPageCache } from '../lost-chunks.ts'
import { Readers } from './readers.ts'

/** Ten drives and ten trees, that the daemon serves, and their readers. */
async function readMounts(t: TestContext): Promise<{ daemon: DaemonProcess; readers: Readers; image: string }> {
  const daemon = await DaemonProcess.start(t, ['--native-reads', 'off'])
  const image = await copyOddImage(daemon.directory)
  const paths: string[] = []
  for (let i = 0; i < 20; i++) {
    const how = i % 2 === 0 ? ['--as', 'drive'] : ['--as', 'tree', ...(i % 4 === 1 ? ['--writable'] : [])]
    paths.push((await daemon.json<MountResult>('mount', image, daemon.target(`mount-${i}`), ...how)).rootfs)
  }
  const readers = new Readers(t, daemon.directory, paths)
  await readers.readAll()
  return { daemon, readers, image }
}

test('supervisors replace each other, are killed and start again: twenty readers see no error', async (t) => {
  const { daemon, readers, image } = await readMounts(t)
  for (let round = 0; round < 3; round++) {
    assert.equal(await daemon.takeOver('--replace'), 0, 'the one that is replaced ends well')
    await readers.readAll()
    assert.equal(await daemon.endSupervisor('SIGKILL'), 'SIGKILL')
    await readers.readAll()
    await daemon.takeOver()
    await readers.readAll()
    assert.equal((await daemon.status()).mounts.length, 20)
  }
  // The work of a supervisor goes on after it has taken over.
  const { daemonPid } = await daemon.status()
  process.kill(daemonPid, 'SIGKILL')
  await daemon.replaced(daemonPid)
  await daemon.json('mount', image, daemon.target('another'))
  assert.deepEqual(await readers.stop(), [])
  assert.doesNotMatch(daemon.log, /"level":"error"/)
})

test('a service that stops leaves its mounts to the daemon, and the next start takes over', async (t) => {
  const { daemon, readers, image } = await readMounts(t)
  assert.equal(await daemon.endSupervisor('SIGUSR2'), 0)
  await readers.readAll()
  await daemon.json('mount', image, daemon.target('while-stopped'))
  await daemon.takeOver()
  await readers.readAll()
  assert.equal((await daemon.status()).mounts.length, 21)
  assert.deepEqual(await readers.stop(), [])
})

/** The first mounts of filesystems that users' directories are bound from, which somebody takes away by hand. */
const unmounted = ['mnt', 'trees/*', 'writable/*/merged', 'drives/*', 'native/trees/*', 'native/drives/*']

for (const nativeReads of ['off', 'all']) {
  test(`no mount is forgotten whose first mount was unmounted by hand; native reads: ${nativeReads}`, async (t) => {
    const daemon = await DaemonProcess.start(t, ['--native-reads', nativeReads])
    const image = await copyOddImage(daemon.directory)
    await daemon.json('seed', image, '--as', 'drive,tree')
    if (nativeReads === 'all')
      await eventually(
        'images can be read natively',
        async () => (await daemon.status()).images.every(({ isReadyForNative }) => isReadyForNative) || undefined,
        { timeoutMs: 120_000 },
      )
    const ways = [[], ['--as', 'tree'], ['--as', 'tree', '--writable'], ['--scratch', '16MiB']]
    const paths: string[] = []
    for (const [i, how] of ways.entries())
      paths.push((await daemon.json<MountResult>('mount', image, daemon.target(`mount-${i}`), ...how)).rootfs)
    const readers = new Readers(t, daemon.directory, paths)
    await readers.readAll()
    const before = await daemon.status()
    for (const pattern of unmounted)
      for (const path of globSync(join(daemon.directory, 'state', pattern))) execFileSync('umount', ['-l', path])
    const check = async (): Promise<void> => {
      dropPageCache()
      await readers.readAll()
      const { mounts } = await daemon.status()
      assert.deepEqual(
        mounts.map(({ directory, reads }) => [directory, reads]),
        before.mounts.map(({ directory, reads }) => [directory, reads]),
      )
    }
    await check()
    await daemon.takeOver('--replace')
    await check()
    const { daemonPid } = await daemon.status()
    process.kill(daemonPid, 'SIGKILL')
    await daemon.replaced(daemonPid)
    await check()
    assert.equal(await daemon.endSupervisor('SIGUSR2'), 0)
    await check()
    await daemon.takeOver()
    await check()
    assert.deepEqual(await readers.stop(), [])
    for (const { directory } of before.mounts) await daemon.json('umount', directory)
    assert.deepEqual((await daemon.status()).mounts, [])
    assert.equal(await daemon.stop(), 0)
    assert.deepEqual(daemon.mounts(), [])
  })
}

test('a service that stops with nothing mounted leaves nothing', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const { daemonPid } = await daemon.status()
  assert.equal(await daemon.endSupervisor('SIGUSR2'), 0)
  assert.deepEqual(daemon.mounts(), [])
  assert.ok(!existsSync(`/proc/${daemonPid}/exe`) && !existsSync(daemon.control))
})

test('another supervisor of the same state is refused unless it is told to take over, and nothing is lost', async (t) => {
  const daemon = await DaemonProcess.start(t)
  const image = await copyOddImage(daemon.directory)
  await daemon.json('mount', image, daemon.target('mount'))
  const { daemonPid } = await daemon.status()
  const { status, stderr } = await daemon.daemonCommand('--listen', '/ip4/127.0.0.1/tcp/0')
  assert.equal(status, 78)
  assert.match(stderr, new RegExp(`another p2pfs daemon \\(pid ${daemon.supervisorPid}\\).*--replace`))
  const after = await daemon.status()
  assert.equal(after.daemonPid, daemonPid)
  assert.equal(after.mounts.length, 1)
})

for (const end of ['none', 'SIGKILL', 'both'] as const) {
  test(`--stop-mounts ends all mounts and processes; killed before: ${end}`, async (t) => {
    const daemon = await DaemonProcess.start(t, ['--native-reads', 'all'])
    const image = await copyOddImage(daemon.directory)
    await daemon.json('mount', image, daemon.target('drive'), '--scratch', '16MiB')
    await daemon.json('mount', image, daemon.target('tree'), '--as', 'tree', '--writable', '--size', '16MiB')
    const { daemonPid } = await daemon.status()
    if (end === 'both') await daemon.killAll()
    else if (end === 'SIGKILL') await daemon.endSupervisor('SIGKILL')
    const { status, stderr } = await daemon.daemonCommand('--stop-mounts')
    assert.equal(status, 0, stderr)
    assert.deepEqual(daemon.mounts(), [])
    assert.ok(!existsSync(`/proc/${daemonPid}/exe`) && !existsSync(daemon.control))
    await daemon.startAgain()
    assert.deepEqual((await daemon.status()).mounts, [])
  })
}
