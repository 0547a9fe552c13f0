import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { FaultRegistry } from '../../support/registry/fault-registry.ts'
import { OciLayout } from '../../support/oci-layout.ts'
import { createRandom } from '../../support/random.ts'
import { writeTar } from '../../support/tar-writer.ts'
import type { MountResult } from '../../../node/control/api.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { loseChunks } from '../lost-chunks.ts'

const execute = promisify(execFile)

const imageCount = 4
const readersPerMount = 5
const readsPerReader = 6
const contentBytes = 4 << 20
const limits = { connections: 3, requestsPerSecond: 10 }
const path = /\/blobs\//
const latencyMs = 300

/** Images of one layer each, which share nothing: `0`, `1` and so on. */
async function addImages(registry: FaultRegistry, directory: string): Promise<string[]> {
  const layout = await OciLayout.create(join(directory, 'layout'))
  const random = createRandom(31)
  const images: string[] = []
  for (let i = 0; i < imageCount; i++) {
    const tar = join(directory, 'layer.tar')
    await writeFile(
      tar,
      writeTar([{ path: 'file', type: 'file', content: Buffer.from(random.bytes(contentBytes / 2).toString('hex')) }]),
    )
    await layout.addImage(String(i), [await layout.addLayer(tar, 'gzip')], {})
    images.push(`${registry.authority}/lab/image:${i}`)
  }
  await registry.addLayout('lab/image', layout.directory)
  return images
}

/** A reader of its own: in this process, reads that wait would take the threads that the registry reads its files with. */
async function readPages(file: string, offsets: readonly number[]): Promise<Buffer> {
  const script = 'for page; do dd if="$0" bs=4096 skip="$page" count=1 status=none || exit 1; done'
  const { stdout } = await execute('sh', ['-c', script, file, ...offsets.map((offset) => String(offset / 4096))], {
    encoding: 'buffer',
  })
  return stdout
}

test('many readers of many mounts at a slow registry queue: no more connections and requests than were granted, and all bytes right', async (t) => {
  const registry = await FaultRegistry.start()
  t.after(async () => await registry[Symbol.asyncDispose]())
  const images = await addImages(registry, temporaryDirectory(t))
  const granted = [
    '--registry-connections',
    String(limits.connections),
    '--registry-requests-per-second',
    String(limits.requestsPerSecond),
  ]
  const daemon = await DaemonProcess.start(t, ['--insecure-registry', registry.authority, ...granted])
  const mounts: { rootfs: string; whole: Buffer }[] = []
  for (const [i, image] of images.entries()) {
    const { rootfs } = await daemon.json<MountResult>('mount', image, daemon.target(`mnt${i}`))
    mounts.push({ rootfs, whole: await readFile(rootfs) })
  }
  for (const { whole } of mounts) assert.ok(loseChunks(join(daemon.directory, 'state'), whole, 1) > 10)

  const times: number[] = []
  registry.front.onActive = (change) => {
    if (change === 1) times.push(performance.now())
  }
  registry.faults.add({ path, latencyMs })
  const random = createRandom(32)
  const readers = mounts.flatMap(({ rootfs, whole }) =>
    Array.from({ length: readersPerMount }, () => ({
      rootfs,
      whole,
      offsets: Array.from({ length: readsPerReader }, () => 4096 * random.below(whole.length / 4096)),
    })),
  )
  await Promise.all(
    readers.map(async ({ rootfs, whole, offsets }) => {
      const bytes = await readPages(rootfs, offsets)
      for (const [i, at] of offsets.entries())
        assert.ok(bytes.subarray(4096 * i, 4096 * (i + 1)).equals(whole.subarray(at, at + 4096)), `${rootfs} at ${at}`)
    }),
  )

  t.diagnostic(`${times.length} requests for ${readers.length * readsPerReader} reads`)
  for (const [i, time] of times.entries()) {
    const within = (ms: number): number => times.slice(i).filter((other) => other - time < ms).length
    // None of them has had an answer before the last one comes; some milliseconds for timers.
    assert.ok(within(latencyMs - 10) <= limits.connections, `${within(latencyMs - 10)} requests at once`)
    // As many may come at once after a rest, and the next ones when time has given them leave.
    assert.ok(within(1000) <= 2 * limits.requestsPerSecond + 1, `${within(1000)} requests in a second`)
  }
  assert.ok(times.length < readers.length * readsPerReader, 'reads that are beside each other share a request')
  assert.doesNotMatch(daemon.log, /read failed/)
})
