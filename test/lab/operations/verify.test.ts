import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import { privateKeyFromProtobuf } from '@libp2p/crypto/keys'
import { oddImage } from '../../../netlab/images/images.ts'
import { silentLog } from '../../../node/base/log.ts'
import type { SeedResult, VerifyResult } from '../../../node/control/api.ts'
import { Catalog } from '../../../node/store/catalog.ts'
import { attest } from '../../../protocol/attestation.ts'
import { ChunkTable } from '../../../protocol/chunk-table.ts'
import { rootfsDigest } from '../../../protocol/rootfs-manifest.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { PublishedLab } from '../publish/published-lab.ts'
import { reserve } from '../../support/stores.ts'

test('verify says that host, region and registry have what the layers make; nothing of what it reads is kept', async (t) => {
  const lab = await PublishedLab.own(t, await oddImage())
  const { image, options } = lab
  const maker = await DaemonProcess.start(t, options)
  const { digest } = await maker.json<SeedResult>('seed', image, '--publish')
  const { peerId, addresses } = await maker.status()
  const other = await DaemonProcess.start(t, [...options, '--bootstrap', addresses[0]!])
  while ((await other.status()).peers.length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
  lab.requests()
  const result = await other.json<VerifyResult>('verify', image)
  assert.deepEqual([result.same, result.digest], [true, digest])
  assert.deepEqual(
    result.uses.map(({ source, digest: used, maker: by, accepted, own }) => [source, used, by, accepted, own]),
    [
      ['region', digest, peerId, true, false],
      ['registry', digest, peerId, true, false],
    ],
  )
  for (const { layers } of result.uses) {
    assert.deepEqual(
      layers.map(({ digest: layer }) => layer),
      [...lab.layers.keys()],
    )
    for (const layer of layers) assert.deepEqual([layer.chunks, layer.index, layer.map], ['same', 'same', 'same'])
  }
  const requests = lab.ofLayers(lab.requests())
  assert.deepEqual(
    new Map(requests.map(({ path, bodyBytesSent }) => [path.slice(path.lastIndexOf('/') + 1), bodyBytesSent])),
    lab.layers,
    'each layer is read whole, once',
  )
  const { chunks, images } = await other.status()
  assert.deepEqual([chunks, images], [0, []])
  const { status, stdout } = await maker.cli('verify', image)
  assert.equal(status, 0)
  assert.match(
    stdout,
    /this host {5}same: rootfs sha256:.*\(this host\)\n.*chunks same, layer index same, blob map same\n(.*\n)*result {8}the same\n$/,
  )
})

test('verify tells a rootfs that was forged, and what of it: exit status 1', async (t) => {
  const lab = await PublishedLab.own(t, await oddImage())
  const { image, options, registry } = lab
  const daemon = await DaemonProcess.start(t, options)
  const { digest, published } = await daemon.json<SeedResult>('seed', image, '--publish')
  await daemon.stop()
  // By whoever has the key of a host: its own record says that the image is another rootfs.
  const catalog = await Catalog.open(
    { reserve, log: silentLog },
    { directory: join(daemon.directory, 'state/catalog') },
  )
  const [record] = await catalog.images()
  const manifest = (await catalog.rootfs(record!.rootfsDigest))!
  const [first, ...rest] = manifest.layers
  const digests = Uint8Array.from(first!.chunks.digests)
  digests[3]! ^= 1
  const lengths = Array.from({ length: first!.chunks.count }, (_, i) => first!.chunks.lengthAt(i))
  const forged = { ...manifest, layers: [{ ...first!, chunks: new ChunkTable(lengths, digests) }, ...rest] }
  const key = privateKeyFromProtobuf(readFileSync(join(daemon.directory, 'state/identity.key')))
  const statement = { ...record!, rootfsDigest: await catalog.putRootfs(forged) }
  await catalog.putImage({
    ...statement,
    attestation: await attest(statement, {
      key: record!.attestation.key,
      sign: async (bytes) => await key.sign(bytes),
    }),
  })
  await catalog[Symbol.asyncDispose]()
  await daemon.startAgain()

  // And the publication's index is damaged.
  const artifact = JSON.parse(registry.manifest('lab/image', published!.digest)!) as {
    layers: { digest: string; size: number }[]
  }
  const { digest: damagedDigest, size } = registry.addBlob(zstdCompressSync(Buffer.from('a3')))
  Object.assign(artifact.layers[0]!, { digest: damagedDigest, size })
  registry.addManifest('lab/image', undefined, JSON.stringify(artifact))
  const { status, stdout } = await daemon.cli('verify', image, '--json')
  assert.equal(status, 1)
  const result = JSON.parse(stdout) as VerifyResult
  assert.deepEqual([result.same, result.digest], [false, digest])
  const [host, whole, damaged] = result.uses
  assert.deepEqual([host!.source, host!.rootfs, host!.digest], ['host', 'different', rootfsDigest(forged)])
  assert.deepEqual(
    host!.layers.map(({ chunks, index, map }) => [chunks, index, map]),
    [
      ['different', 'same', 'same'],
      ['same', 'same', 'same'],
    ],
  )
  assert.deepEqual([whole!.rootfs, damaged!.rootfs], ['same', 'different'])
  assert.match(damaged!.error!, /published index/)
  const text = await daemon.cli('verify', image)
  assert.equal(text.status, 1)
  assert.match(
    text.stdout,
    /this host {5}different: .*\n.*chunks different, layer index same.*\n(.*\n)*result {8}DIFFERENT/,
  )
})

test('an image that nobody knows is rebuilt and compared with nothing; one of no registry cannot be', async (t) => {
  const lab = await PublishedLab.own(t, await oddImage())
  const daemon = await DaemonProcess.start(t, lab.options)
  const { status, stdout } = await daemon.cli('verify', lab.image)
  assert.equal(status, 0)
  assert.match(stdout, /layers make {3}rootfs sha256:[0-9a-f]{64}\nresult {8}nobody knows this image\n/)
  await daemon.json<SeedResult>('import', daemon.target('source'), 'app')
  const local = await daemon.cli('verify', 'local:app')
  assert.equal(local.status, 1)
  assert.match(local.stderr, /local:app is in no registry/)
})
