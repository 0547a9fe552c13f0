import assert from 'node:assert/strict'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { FaultRegistry } from '../../../netlab/fault-registry.ts'
import { debianImages } from '../../../netlab/images.ts'
import type { MountResult } from '../../../node/control/api.ts'
import { createRandom } from '../../random.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { loseChunks } from '../lost-chunks.ts'

const connections = 6

test('many readers of several images at a slow registry: no more requests than allowed, no errors, and readers before seeding', async (t) => {
  const registry = await FaultRegistry.start()
  t.after(async () => await registry[Symbol.asyncDispose]())
  const { gzip, mixed } = await debianImages()
  for (const { layoutDirectory } of [gzip, mixed]) await registry.addLayout('lab/image', layoutDirectory)
  let [active, mostActive, mostConnections] = [0, 0, 0]
  const sockets = new Set<unknown>()
  registry.front.onActive = (change) => {
    active += change
    mostActive = Math.max(mostActive, active)
  }
  registry.front.onConnection = (socket) => {
    sockets.add(socket)
    mostConnections = Math.max(mostConnections, sockets.size)
    socket.once('close', () => sockets.delete(socket))
  }
  const daemon = await DaemonProcess.start(t, ['--insecure-registry', registry.authority, '--registry-connections', String(connections)])
  const images = [gzip, mixed].map(({ tag }) => `${registry.authority}/lab/image:${tag}`)
  const mounts: { rootfs: string; whole: Buffer }[] = []
  for (const [i, image] of images.entries()) {
    const { rootfs } = await daemon.json<MountResult>('mount', image, daemon.target(`first-${i}`))
    mounts.push({ rootfs, whole: await readFile(rootfs) })
  }
  assert.ok(loseChunks(join(daemon.directory, 'state'), mounts[0]!.whole, 0.9) > 300)
  loseChunks(join(daemon.directory, 'state'), mounts[1]!.whole, 0.9)
  ;[mostActive, mostConnections] = [0, 0]
  registry.faults.add({ path: /\/blobs\//, latencyMs: 300, rateBytesPerSecond: 1_000_000 })

  const seeding = new Promise<void>((resolve) => void daemon.cli('seed', images[0]!).then(() => resolve()))
  const random = createRandom(5)
  const waitsMs: number[] = []
  const readers = Array.from({ length: 20 }, async (_, i) => {
    const { rootfs } = await daemon.json<MountResult>('mount', images[i % 2]!, daemon.target(`storm-${i}`))
    const { whole } = mounts[i % 2]!
    await using file = await open(rootfs)
    for (let n = 0; n < 3; n++) {
      const at = random.below(Math.floor(whole.length / 4096)) * 4096
      const bytes = Buffer.alloc(4096)
      const begunMs = performance.now()
      await file.read(bytes, 0, bytes.length, at)
      waitsMs.push(performance.now() - begunMs)
      assert.ok(bytes.equals(whole.subarray(at, at + bytes.length)), `reader ${i} at ${at}`)
    }
  })
  let isSeeded = false
  void seeding.then(() => (isSeeded = true))
  await Promise.all(readers)
  assert.equal(isSeeded, false, 'all readers are served before the seed is through')
  registry.faults.clear()
  await seeding
  waitsMs.sort((a, b) => a - b)
  const at = (share: number): string => (waitsMs[Math.floor(share * (waitsMs.length - 1))]! / 1000).toFixed(2)
  t.diagnostic(`20 readers beside a seed: waits of ${at(0.5)} s (median), ${at(0.95)} s (95 %), ${at(1)} s (longest); at most ${mostActive} requests, ${mostConnections} connections of ${connections}`)
  assert.ok(mostActive <= connections, `${mostActive} requests at once`)
  // One more may be there to find out whether the registry is.
  assert.ok(mostConnections <= connections + 1, `${mostConnections} connections at once`)
  assert.doesNotMatch(daemon.log, /read failed/)
})
