import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
// Never the synchronous forms on the mount: the registry answers from this very thread.
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { InspectResult, MountResult, SeedResult } from '../../../node/control/api.ts'
import { FaultRegistry } from '../../support/registry/fault-registry.ts'
import { debianImages } from '../../../netlab/images/images.ts'
import { createRandom } from '../../support/random.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { dropPageCache, loseChunks as loseStored, readSlowly, removeChunks } from '../lost-chunks.ts'
import { PublishedLab } from '../publish/published-lab.ts'

const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

interface Seeded {
  image: string
  daemon: DaemonProcess
  registry: FaultRegistry
  rootfs: string
  sizeBytes: number
  whole: Buffer
  blobs: () => { range: boolean; sentBytes: number }[]
}

/** A mounted image of the registry, and a copy of what it should read as. */
async function seeded(t: TestContext, tag: 'gzip' | 'mixed'): Promise<Seeded> {
  const registry = await FaultRegistry.start()
  t.after(async () => await registry[Symbol.asyncDispose]())
  const images = await debianImages()
  await registry.addLayout('lab/image', images[tag].layoutDirectory)
  const daemon = await DaemonProcess.start(t, ['--insecure-registry', registry.authority])
  const image = `${registry.authority}/lab/image:${tag}`
  const { sizeBytes } = await daemon.json<SeedResult>('seed', image)
  const { rootfs } = await daemon.json<MountResult>('mount', image, daemon.target('mnt'))
  const whole = await readFile(rootfs)
  const before = registry.front.log.length
  const blobs = (): { range: boolean; sentBytes: number }[] =>
    registry.front.log
      .slice(before)
      .filter(({ path }) => path.includes('/blobs/'))
      .map(({ range, bodyBytesSent }) => ({ range: range !== undefined, sentBytes: bodyBytesSent }))
  return { image, daemon, registry, rootfs, sizeBytes, whole, blobs }
}

const loseChunks = ({ daemon, whole }: Seeded, share: number): number =>
  loseStored(join(daemon.directory, 'state'), whole, share)

test('chunks that are gone come from the registry by ranges, all of them right', async (t) => {
  const image = await seeded(t, 'gzip')
  const { daemon, rootfs, whole, blobs } = image
  assert.ok(loseChunks(image, 0.3) > 100)
  assert.equal(hash(await readFile(rootfs)), hash(whole))
  const requests = blobs()
  assert.ok(requests.length > 10)
  // The uppermost layer is so small that one stretch of it is all of it.
  const wholes = requests.filter(({ range, sentBytes }) => !range && sentBytes > 100_000)
  assert.deepEqual(
    wholes,
    [],
    daemon.log
      .split('\n')
      .filter((line) => line.includes('streamed'))
      .join('\n'),
  )
})

test('one small read costs a small part of the layer', async (t) => {
  const image = await seeded(t, 'gzip')
  const { rootfs, whole, blobs, sizeBytes } = image
  loseChunks(image, 1)
  const random = createRandom(9)
  const file = await open(rootfs)
  for (let i = 0; i < 12; i++) {
    const at = random.below(Math.floor(sizeBytes / 4096)) * 4096
    const bytes = Buffer.alloc(4096)
    await file.read(bytes, 0, bytes.length, at)
    assert.ok(bytes.equals(whole.subarray(at, at + bytes.length)), `at ${at}`)
  }
  await file.close()
  const sent = blobs().reduce((sum, { sentBytes }) => sum + sentBytes, 0)
  assert.ok(sent < 0.35 * sizeBytes, `${sent} bytes of ${sizeBytes}`)
})

test('corrupt bytes never reach a reader: there is a second request, and then the whole layer', async (t) => {
  const image = await seeded(t, 'gzip')
  const { registry, rootfs, whole } = image
  loseChunks(image, 0.2)
  registry.faults.add({ path: /\/blobs\//, corruptEveryBytes: 10_000, times: 2 })
  const read = await readFile(rootfs)
  assert.equal(hash(read), hash(whole))
})

test('a registry without ranges is streamed, and status says so', async (t) => {
  const image = await seeded(t, 'gzip')
  const { daemon, registry, rootfs, whole } = image
  registry.faults.add({ path: /\/blobs\//, ranges: 'ignore' })
  loseChunks(image, 0.1)
  assert.equal(hash(await readFile(rootfs)), hash(whole))
  const [mount] = (await daemon.status()).mounts
  assert.deepEqual(mount!.warnings, ['whole-layers'])
  assert.ok(mount!.wholeReads.length > 0)
  for (const { reason } of mount!.wholeReads) assert.equal(reason, 'no-ranges')
  assert.match((await daemon.cli('status')).stdout, /! reads whole layers\n.*its registry serves no ranges/)
})

test('layers of zstd in one frame and of plain tar are read again too', async (t) => {
  const image = await seeded(t, 'mixed')
  const { rootfs, whole } = image
  loseChunks(image, 0.3)
  assert.equal(hash(await readFile(rootfs)), hash(whole))
})

test('a registry that does not answer for a while makes readers wait, and nothing else', async (t) => {
  const image = await seeded(t, 'gzip')
  const { registry, rootfs, whole } = image
  loseChunks(image, 0.2)
  await registry.front.reject()
  const reading = readSlowly(rootfs, whole.length, { stepBytes: 2 ** 20 })
  await new Promise((resolve) => setTimeout(resolve, 2000))
  await registry.front.accept()
  assert.equal(hash(await reading), hash(whole))
})

/** Faults that are over after some seconds, and how long they last (ms). */
const outages: Record<string, { outageMs: number; begin: (lab: PublishedLab) => Promise<() => unknown> }> = {
  // Longer than the registry client tries by itself for a read that waits.
  'answers 503 to everything': {
    outageMs: 12_000,
    begin: async ({ front }) => front.faults.add({ status: 503 }),
  },
  'denies everything': { outageMs: 3_000, begin: async ({ front }) => front.faults.add({ status: 403 }) },
  'refuses connections': {
    outageMs: 3_000,
    begin: async ({ front }) => {
      await front.reject()
      return async () => await front.accept()
    },
  },
  'answers 503 for windows': {
    outageMs: 12_000,
    begin: async ({ front, layers }) => front.faults.add({ path: blobsBesides(layers), status: 503 }),
  },
  'denies windows': {
    outageMs: 3_000,
    begin: async ({ front, layers }) => front.faults.add({ path: blobsBesides(layers), status: 403 }),
  },
  'has no windows': {
    outageMs: 3_000,
    begin: async ({ front, layers }) => front.faults.add({ path: blobsBesides(layers), status: 404 }),
  },
}

/** Paths of all blobs but these. */
function blobsBesides(digests: ReadonlyMap<string, unknown>): RegExp {
  return new RegExp(`/blobs/(?!${[...digests.keys()].join('|')})`)
}

test('an outage makes readers of a lazily read image wait, and is no reason to read a layer whole', async (t) => {
  const lab = await PublishedLab.own(t, (await debianImages()).gzip)
  const maker = await DaemonProcess.start(t, lab.options)
  await maker.json<SeedResult>('seed', lab.image, '--publish')
  const whole = await readFile((await maker.json<MountResult>('mount', lab.image, maker.target('mnt'))).rootfs)
  const { peerId } = await maker.status()
  await maker.stop()
  const cold = await DaemonProcess.start(t, [...lab.options, '--trust-index-key', peerId])
  const { rootfs, origin } = await cold.json<MountResult>('mount', lab.image, cold.target('mnt'))
  assert.equal(origin, 'registry')
  const layerBytes = [...lab.layers.values()].reduce((sum, bytes) => sum + bytes, 0)
  const random = createRandom(21)
  await using file = await open(rootfs)
  const readPages = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      const offset = random.below(whole.length / 4096) * 4096
      const bytes = Buffer.alloc(4096)
      await file.read(bytes, 0, bytes.length, offset)
      assert.ok(bytes.equals(whole.subarray(offset, offset + bytes.length)), `at ${offset}`)
    }
  }
  for (const [name, { outageMs, begin }] of Object.entries(outages)) {
    // Windows are gone too.
    removeChunks(join(cold.directory, 'state'))
    lab.requests()
    const end = await begin(lab)
    const startedAt = performance.now()
    // Two at once: the registry, in this process, needs threads of the pool for its files.
    const reading = Promise.all([readPages(2), readPages(2)])
    reading.catch(() => undefined)
    await new Promise((resolve) => setTimeout(resolve, outageMs))
    await end()
    await reading
    const sent = lab.requests().reduce((sum, { bodyBytesSent }) => sum + bodyBytesSent, 0)
    t.diagnostic(`${name}: ${Math.round(performance.now() - startedAt)} ms, ${sent} of ${layerBytes} bytes`)
    assert.ok(sent < 0.25 * layerBytes, `${name}: ${sent} of ${layerBytes} bytes`)
    const [mount] = (await cold.status()).mounts
    assert.deepEqual([mount!.warnings, mount!.wholeReads], [[], []], name)
  }
  assert.doesNotMatch(cold.log, /streamed|read failed/)
})

test('with all local the registry is not asked, and not missed', async (t) => {
  const seededImage = await seeded(t, 'gzip')
  const { image, daemon, registry, rootfs, whole, blobs } = seededImage
  await registry.front.reject()
  dropPageCache()
  assert.equal(hash(await readFile(rootfs)), hash(whole))
  assert.equal(blobs().length, 0)
  assert.equal((await daemon.json<MountResult>('mount', image, daemon.target('again'))).origin, 'local')
  assert.ok((await daemon.json<InspectResult>('inspect', image)).chunks > 0)
})
