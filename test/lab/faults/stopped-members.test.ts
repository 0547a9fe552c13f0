import assert from 'node:assert/strict'
import { readFile, open } from 'node:fs/promises'
import { test } from 'node:test'
import type { MountResult } from '../../../node/control/api.ts'
import { eventually } from '../../support/deadline.ts'
import { createRandom } from '../../support/random.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { hash, startFaultRegistry } from './fault-daemon.ts'

/** Besides the first, the reader among them. */
const members = 5
const stepBytes = 64 * 1024
/** The promise is 3 s, on a machine that has time for it. Each such read took a minute before, and failed. */
const longestMs = 15_000

async function timed<T>(task: Promise<T>): Promise<{ value: T; ms: number }> {
  const startedAt = performance.now()
  return { value: await task, ms: performance.now() - startedAt }
}

test('members that are stopped cost reads and mounts seconds, with a healthy registry; no read fails', async (t) => {
  const { registry, image } = await startFaultRegistry(t, 'odd')
  const options = ['--insecure-registry', registry.authority, '--boot-profiles', 'off']
  const first = await DaemonProcess.start(t, options)
  // Alone: who imports the image keeps it, and the reader shall have nothing.
  assert.equal((await first.cli('seed', image)).status, 0)
  const bootstrap = ['--bootstrap', (await first.status()).addresses[0]!]
  const joined = await Promise.all(
    Array.from({ length: members }, async () => await DaemonProcess.start(t, [...options, ...bootstrap])),
  )
  // One has nothing, and goes on.
  const [reader, , ...others] = joined
  const holders = [first, ...others]
  const all = [first, ...joined]
  await eventually(
    'all have met',
    async () => {
      const statuses = await Promise.all(all.map(async (daemon) => await daemon.status()))
      return statuses.every(({ peers }) => peers.length === all.length - 1) ? true : undefined
    },
    { timeoutMs: 60_000 },
  )
  for (const holder of others) assert.equal((await holder.cli('seed', image)).status, 0)
  const whole = await readFile((await first.json<MountResult>('mount', image, first.target('mnt'))).rootfs)

  // On a busy machine it may take them more than one try to answer in time.
  const { rootfs } = await eventually(
    'the region tells of the image',
    async () => await reader!.json<MountResult>('mount', image, reader!.target('mnt'), '--pull', 'never'),
    { timeoutMs: 60_000 },
  )
  await using file = await open(rootfs)
  const read = Buffer.alloc(whole.length)
  // Here and there: what is read ahead would be here before the members stop.
  const random = createRandom(5)
  const offsets = Array.from({ length: Math.ceil(whole.length / stepBytes) }, (_, i) => i * stepBytes)
    .map((offset) => ({ offset, place: random.below(1 << 30) }))
    .toSorted((a, b) => a.place - b.place)
    .map(({ offset }) => offset)
  let worstMs = 0
  const readAll = async (at: readonly number[]): Promise<void> => {
    for (const offset of at) {
      const { ms } = await timed(file.read(read, offset, Math.min(stepBytes, whole.length - offset), offset))
      worstMs = Math.max(worstMs, ms)
    }
  }
  // One chunk, so that all others are still to come.
  let { fetched } = await reader!.status()
  for (let i = 0; fetched.peer.bytes === 0 && i < offsets.length; i++) {
    await file.read(Buffer.alloc(4096), 0, 4096, offsets[i])
    fetched = (await reader!.status()).fetched
  }
  assert.ok(fetched.peer.bytes > 0, 'it has read from its peers')

  const pids = await Promise.all(holders.map(async (daemon) => (await daemon.status()).daemonPid))
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  try {
    await readAll(offsets)
    assert.equal(hash(read), hash(whole))
    t.diagnostic(`the longest read took ${Math.round(worstMs)} ms`)
    assert.ok(worstMs < longestMs, `a read took ${worstMs} ms`)
    assert.ok(
      (await reader!.status()).fetched.registry.bytes > fetched.registry.bytes,
      'the rest comes from the registry',
    )

    const mounted = await timed(reader!.json<MountResult>('mount', image, reader!.target('erofs'), '--format', 'erofs'))
    t.diagnostic(`a mount took ${Math.round(mounted.ms)} ms`)
    assert.ok(mounted.ms < longestMs, `a mount took ${mounted.ms} ms`)
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT')
  }
  assert.doesNotMatch(reader!.log, /read failed/)
  for (const { log } of all) assert.doesNotMatch(log, /ended unexpectedly/)
})
