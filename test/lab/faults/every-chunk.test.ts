import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { debianImages, oddImage } from '../../../netlab/images/images.ts'
import type { LabImage } from '../../../netlab/images/lab-image.ts'
import { run } from '../../../netlab/hosts/process.ts'
import type { MountResult } from '../../../node/control/api.ts'
import { RangeSource } from '../../../node/fetch/range-source.ts'
import { silentLog } from '../../../node/base/log.ts'
import { inStore, type FetchChunk } from '../../../node/model/chunk-request.ts'
import { createImageSource } from '../../../node/registry/image-source.ts'
import { WholeReads } from '../../../node/layers/whole-reads.ts'
import { LayerRanges } from '../../../node/layers/layer-ranges.ts'
import { Urgency } from '../../../node/base/urgency.ts'
import { digestOf } from '../../../protocol/digest.ts'
import { createRandom } from '../../support/random.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { startDockerRegistry } from '../registry/docker-registry.ts'
import { openCatalog, openChunkStore } from '../../support/stores.ts'

const { signal } = new AbortController()

/** Each chunk alone, in random order, from a real registry: what it decodes to is what its name says. */
async function fetchesEach(t: TestContext, { layoutDirectory, tag }: LabImage): Promise<void> {
  const seed = 7
  const authority = await startDockerRegistry(t)
  const image = `${authority}/lab/image:${tag}`
  await run('skopeo', [
    '--insecure-policy',
    'copy',
    '--quiet',
    '--preserve-digests',
    '--dest-tls-verify=false',
    `oci:${layoutDirectory}:${tag}`,
    `docker://${image}`,
  ])
  const daemon = await DaemonProcess.start(t, ['--insecure-registry', authority])
  await daemon.json<MountResult>('mount', image, daemon.target('mnt'))
  await daemon.stop()

  const log = silentLog
  const directory = mkdtempSync(join(tmpdir(), 'p2pfs-test-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  const catalog = await openCatalog(t, join(daemon.directory, 'state/catalog'))
  const store = await openChunkStore(join(daemon.directory, 'state/chunks'))
  await using registry = createImageSource({ insecureRegistries: [authority], userAgent: 'test', log })
  await registry.start()
  const layers = new LayerRanges(
    {
      catalog,
      blobMaps: { get: async (digest) => await catalog.blobMap(digest), put: async () => undefined },
      registry,
      answers: { blobMap: async () => undefined },
      published: { of: async () => undefined, windows: async () => undefined },
      log,
    },
    { readDeadlineMs: 600 },
  )
  const source = new RangeSource({
    layers,
    stream: {
      fetch: async ({ table, index }) =>
        await Promise.reject(new Error(`chunk ${index} of ${table} cannot be read at random`)),
    },
    wholeReads: new WholeReads(),
    inventory: { put: async () => true },
    signal,
    log,
  })
  const fetchChunk: FetchChunk = async ({ digest }) => (await store.get(digest))!
  const random = createRandom(seed)
  let count = 0
  for (const digest of await catalog.rootfsDigests()) {
    const manifest = (await catalog.rootfs(digest))!
    for (const { chunks } of manifest.layers) {
      const order = Array.from({ length: chunks.count }, (_, index) => ({ index, at: random.below(2 ** 30) })).sort(
        (a, b) => a.at - b.at,
      )
      for (const { index } of order) {
        const wanted = chunks.digestAt(index)
        const bytes = await source.fetch(
          { digest: wanted, lengthBytes: chunks.lengthAt(index), table: chunks.id, index },
          { signal, urgency: new Urgency(true), fetchChunk },
        )
        assert.ok(bytes !== inStore)
        assert.equal(digestOf(bytes), wanted, `chunk ${index} of ${chunks.id}, seed ${seed}`)
        count++
      }
    }
  }
  assert.ok(count > 3)
  t.diagnostic(
    `${count} chunks, each by itself: ${layers.read.requests} requests, ${(layers.read.bytes / 1e6).toFixed(0)} MB; seed ${seed}`,
  )
}

test('each chunk of the odd image can be fetched alone', async (t) => await fetchesEach(t, await oddImage()))

test('each chunk of the Debian image can be fetched alone', async (t) =>
  await fetchesEach(t, (await debianImages()).gzip))
