import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
// Never the synchronous forms on the mount: the registry answers from this very thread.
import { open, readFile } from 'node:fs/promises'
import { test, type TestContext } from 'node:test'
import { gzipSync } from 'node:zlib'
import type { MountResult, SeedResult } from '../../../node/control/api.ts'
import { FaultRegistry } from '../../support/registry/fault-registry.ts'
import { writeTar } from '../../support/tar-writer.ts'
import { mediaTypes } from '../../../node/registry/image-manifest.ts'
import { createRandom } from '../../support/random.ts'
import { DaemonProcess } from '../daemon-process.ts'

interface Region {
  registry: FaultRegistry
  /** Has seeded the first version. */
  a: DaemonProcess
  b: DaemonProcess
  image: string
  first: string
  /** Lets the tag stand for another image. @returns its manifest's digest */
  push: (seed: number) => string
  /** Requests since the last time. */
  requests: () => number
}

async function startRegion(t: TestContext): Promise<Region> {
  const registry = await FaultRegistry.start()
  t.after(async () => await registry[Symbol.asyncDispose]())
  const push = (seed: number): string => {
    const content = createRandom(seed).bytes(600_000)
    const tar = writeTar([{ path: 'data', type: 'file', content }])
    const layer = registry.addBlob(gzipSync(tar), 'application/vnd.oci.image.layer.v1.tar+gzip')
    const diffId = `sha256:${createHash('sha256').update(tar).digest('hex')}`
    const config = registry.addBlob(
      Buffer.from(
        JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [diffId] } }),
      ),
      'application/vnd.oci.image.config.v1+json',
    )
    return registry.addManifest(
      'lab/app',
      'v',
      JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: [layer] }),
      mediaTypes.ociManifest,
    ).digest
  }
  const first = push(1)
  const { authority } = registry
  const options = ['--insecure-registry', authority, '--peer-registry', authority, '--platform', 'linux/amd64']
  const a = await DaemonProcess.start(t, options)
  const image = `${registry.authority}/lab/app:v`
  await a.json<SeedResult>('seed', image)
  const b = await DaemonProcess.start(t, [...options, '--bootstrap', (await a.status()).addresses[0]!])
  while ((await b.status()).peers.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
  let seen = 0
  const requests = (): number => {
    const fresh = registry.front.log.length - seen
    seen += fresh
    return fresh
  }
  requests()
  return { registry, a, b, image, first, push, requests }
}

test('a tag is what the registry says when it is mounted, and stays that for the mount', async (t) => {
  const { a, b, image, first, push, requests } = await startRegion(t)
  const before = await b.json<MountResult>('mount', image, b.target('before'))
  assert.deepEqual([before.manifestDigest, before.origin, before.resolution], [first, 'peer', 'registry'])
  assert.equal(requests(), 1)
  const second = push(2)
  const after = await b.json<MountResult>('mount', image, b.target('after'))
  assert.deepEqual([after.manifestDigest, after.resolution], [second, 'registry'])
  assert.ok(['built', 'peer'].includes(after.origin), 'either of them may be its steward')
  assert.notDeepEqual(await readFile(before.rootfs), await readFile(after.rootfs))
  const { mounts } = await b.status()
  assert.deepEqual(
    new Map(mounts.map(({ manifestDigest, origin }) => [manifestDigest, origin])),
    new Map([
      [first, 'peer'],
      [second, after.origin],
    ]),
  )
  requests()

  // Whole on A: nobody is asked, unless that is asked for. As its steward A has imported the new image itself.
  const whole = await a.json<MountResult>('mount', image, a.target('whole'))
  assert.deepEqual(
    [whole.manifestDigest, whole.origin, whole.resolution, requests()],
    [after.origin === 'peer' ? second : first, 'local', 'last-known', 0],
  )
  assert.equal(
    (await a.json<MountResult>('mount', image, a.target('always'), '--pull', 'always')).manifestDigest,
    second,
  )
})

test('without the registry a tag is what it was last known as, and mount says so', async (t) => {
  const { registry, b, image, first, requests } = await startRegion(t)
  await registry.front.reject()
  const { stdout, stderr } = await b.cli('mount', image, b.target('offline'))
  const offline = JSON.parse(stdout) as MountResult
  assert.deepEqual([offline.manifestDigest, offline.resolution], [first, 'last-known'])
  assert.match(offline.unanswered ?? '', /did not answer within 2 s|ECONNREFUSED/)
  assert.match(stderr, /mounted sha256:[0-9a-f]+, the last known image of/)
  // Not waited for again at once; and not asked where that is not wanted.
  assert.equal((await b.json<MountResult>('mount', image, b.target('soon'))).unanswered, undefined)
  await registry.front.accept()
  requests()
  assert.equal(
    (await b.json<MountResult>('mount', image, b.target('missing'), '--pull', 'missing')).resolution,
    'last-known',
  )
  assert.equal(
    (await b.json<MountResult>('mount', image.replace(/:v$/, `@${first}`), b.target('digest'))).resolution,
    'digest',
  )
  requests()
  assert.equal(
    (await b.json<MountResult>('mount', image.replace(/:v$/, `@${first}`), b.target('digest-again'))).resolution,
    'digest',
  )
  assert.equal(requests(), 0)
  const unknown = await b.cli('mount', `${registry.authority}/lab/other:v`, b.target('never'), '--pull', 'never')
  assert.notEqual(unknown.status, 0)
  assert.match(unknown.stderr, /neither this host nor its region knows/)
  assert.equal(requests(), 0)
})

test('status tells where the bytes of a mount came from, and what is not as it should be', async (t) => {
  const { a, b, image } = await startRegion(t)
  const { rootfs, fetched } = await b.json<MountResult>('mount', image, b.target('mnt'))
  assert.deepEqual(fetched, {
    peer: { bytes: 0, chunks: 0 },
    neighbour: { bytes: 0, chunks: 0 },
    registry: { bytes: 0, chunks: 0 },
  })
  const reading = await open(rootfs)
  await reading.read(Buffer.alloc(4096), 0, 4096, 0)
  const [lazy] = (await b.status()).mounts
  assert.ok(lazy!.fetched.peer.bytes > 0 && lazy!.fetched.peer.bytes < lazy!.sizeBytes)
  assert.deepEqual([lazy!.fetched.registry.bytes, lazy!.warnings], [0, []])

  await a.stop()
  const whole = await readFile(rootfs)
  await reading.close()
  const [alone] = (await b.status()).mounts
  assert.equal(alone!.localBytes, whole.length)
  assert.ok(alone!.fetched.registry.bytes > 0)
  assert.deepEqual(alone!.warnings, ['whole-layers'])
  assert.match((await b.cli('status')).stdout, /! reads whole layers/)
})
