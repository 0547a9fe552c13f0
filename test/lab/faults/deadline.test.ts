import assert from 'node:assert/strict'
import { open, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import type { MountResult } from '../../../node/control/api.ts'
import { dropPageCache, loseChunks, readSlowly } from '../lost-chunks.ts'
import { hash, lastNoise, startFaultyLab } from './fault-daemon.ts'

const deadlineMs = 2_000
/** For a machine that is busy: what matters is that there is an end. */
const graceMs = 15_000
const daemonOptions = ['--read-deadline', `${deadlineMs / 1000}s`]

/** @returns how long it took to fail with EIO, milliseconds */
async function failsInTime(read: () => Promise<unknown>): Promise<number> {
  const begunMs = performance.now()
  await assert.rejects(read, { code: 'EIO' })
  const tookMs = performance.now() - begunMs
  assert.ok(tookMs < deadlineMs + graceMs, `${tookMs} ms`)
  return tookMs
}

for (const [what, begin] of [
  ['refuses connections', async (registry) => await registry.front.reject()],
  ['never answers', async (registry) => void registry.faults.add({ drop: true })],
] as [string, (registry: Awaited<ReturnType<typeof startFaultyLab>>['registry']) => Promise<void>][]) {
  test(`a read of a drive whose registry ${what} fails within the deadline, and works when it is back`, async (t) => {
    const { registry, daemon, rootfs, whole, lose } = await startFaultyLab(t, 'odd', { daemonOptions })
    assert.ok(lose(1) > 3)
    await begin(registry)
    await using file = await open(rootfs)
    const at = lastNoise(whole)
    const read = async (): Promise<Buffer> => {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(4096), 0, 4096, at)
      return buffer.subarray(0, bytesRead)
    }
    const tookMs = await failsInTime(read)
    t.diagnostic(`${what}: EIO after ${(tookMs / 1000).toFixed(2)} s, deadline ${deadlineMs / 1000} s`)
    assert.match(
      daemon.log,
      /read failed.*within 2 s: no source delivers chunk sha256:[0-9a-f]+: no peer has it; registry: /,
    )
    assert.equal((await daemon.cli('status')).status, 0)
    registry.faults.clear()
    await registry.front.accept()
    assert.deepEqual(await read(), whole.subarray(at, at + 4096))
    assert.equal(hash(await readSlowly(rootfs, whole.length)), hash(whole))
  })
}

test('a reader that comes later has a deadline of its own', async (t) => {
  const { registry, rootfs, whole, lose } = await startFaultyLab(t, 'odd', { daemonOptions: ['--read-deadline', '6s'] })
  assert.ok(lose(1) > 3)
  await registry.front.reject()
  const at = lastNoise(whole)
  const read = async (): Promise<Buffer> => {
    await using file = await open(rootfs)
    return (await file.read(Buffer.alloc(4096), 0, 4096, at)).buffer
  }
  const first = assert.rejects(read(), { code: 'EIO' })
  const waited = new Promise((resolve) => setTimeout(resolve, 4_000))
  await Promise.race([first, waited])
  // Page locks would make it wait for the first one: it reads another page of the same chunk.
  const second = (async () => {
    await using file = await open(rootfs)
    return (await file.read(Buffer.alloc(4096), 0, 4096, at - 256 * 1024)).buffer
  })()
  second.catch(() => undefined)
  await first
  await registry.front.accept()
  assert.deepEqual(await second, whole.subarray(at - 256 * 1024, at - 252 * 1024))
})

test('reads of a tree, its directories too, fail within the deadline and work afterwards', async (t) => {
  const { registry, daemon, image, lose } = await startFaultyLab(t, 'odd', { daemonOptions })
  const { rootfs } = await daemon.json<MountResult>('mount', image, daemon.target('tree'), '--as', 'tree')
  const files = await readdir(join(rootfs, 'odd'))
  const big = await readFile(join(rootfs, 'odd/big'))
  const { rootfs: drive } = await daemon.json<MountResult>('mount', image, daemon.target('erofs'), '--format', 'erofs')
  assert.ok(loseChunks(join(daemon.directory, 'state'), await readFile(drive), 1) > 3)
  lose(1)
  await registry.front.reject()
  const tookMs = await failsInTime(async () => await readFile(join(rootfs, 'odd/big')))
  t.diagnostic(`EIO of a tree after ${(tookMs / 1000).toFixed(2)} s, deadline ${deadlineMs / 1000} s`)
  await registry.front.accept()
  assert.equal(hash(await readFile(join(rootfs, 'odd/big'))), hash(big))
  dropPageCache()
  assert.deepEqual(await readdir(join(rootfs, 'odd')), files)
})
