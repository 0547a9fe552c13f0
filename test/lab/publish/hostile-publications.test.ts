import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
// Never the synchronous forms on the mount: the registry answers from this very thread.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { privateKeyFromProtobuf } from '@libp2p/crypto/keys'
import { oddImage } from '../../../netlab/images/images.ts'
import type { MountResult, SeedResult } from '../../../node/control/api.ts'
import { attest, type Signer } from '../../../protocol/attestation.ts'
import { parseDigest } from '../../../protocol/digest.ts'
import { encodePublishedIndex, parsePublishedIndex } from '../../../protocol/published-index.ts'
import { encodeRootfsManifest, rootfsDigest, type RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { testKey } from '../../support/test-key.ts'
import { DaemonProcess } from '../daemon-process.ts'
import { hash, PublishedLab } from './published-lab.ts'

interface Artifact {
  layers: { mediaType: string; digest: string; size: number }[]
  annotations: Record<string, string>
}

type Part = 'index' | 'metadata' | 'windows'

/** A publication that somebody who may push has changed. */
class Forgery {
  readonly artifact: Artifact
  readonly #lab: Awaited<ReturnType<typeof PublishedLab.own>>
  readonly #whole: ReadonlyMap<Part, Buffer>
  /** The maker whose key is accepted. */
  readonly maker: Signer

  constructor(
    lab: Awaited<ReturnType<typeof PublishedLab.own>>,
    artifact: string,
    whole: ReadonlyMap<Part, Buffer>,
    maker: Signer,
  ) {
    this.#lab = lab
    this.artifact = JSON.parse(artifact) as Artifact
    this.#whole = whole
    this.maker = maker
  }

  bytes(part: Part): Buffer {
    return this.#whole.get(part)!
  }

  descriptor(part: Part): Artifact['layers'][number] {
    return this.artifact.layers.find(({ mediaType }) => mediaType.includes(`.${part}`))!
  }

  put(part: Part, bytes: Uint8Array): void {
    const { digest, size } = this.#lab.registry.addBlob(bytes)
    Object.assign(this.descriptor(part), { digest, size })
  }

  /** Puts the same content, of which one bit is wrong whenever it is read. */
  corrupt(part: Part): void {
    this.put(part, zstdCompressSync(zstdDecompressSync(this.bytes(part))))
    this.#lab.registry.faults.add({ path: new RegExp(this.descriptor(part).digest), corruptByteAt: 50 })
  }

  /** Puts another index blob, of another rootfs manifest. */
  putManifest(manifest: RootfsManifest, { windowsOffset }: { windowsOffset?: number } = {}): void {
    const { maps } = this.index
    this.put(
      'index',
      zstdCompressSync(
        encodePublishedIndex({
          manifest: encodeRootfsManifest(manifest),
          maps: maps.map((map) => ({ ...map, ...(windowsOffset === undefined ? {} : { windowsOffset }) })),
        }),
      ),
    )
  }

  get index(): ReturnType<typeof parsePublishedIndex> {
    return parsePublishedIndex(zstdDecompressSync(this.bytes('index')))
  }

  /** Signs that the image is this rootfs. */
  async claim(rootfs: string, signer: Signer, manifestDigest: string): Promise<void> {
    const { key, signature } = await attest(
      { manifestDigest: parseDigest(manifestDigest), format: 'ext4', rootfsDigest: parseDigest(rootfs) },
      signer,
    )
    Object.assign(this.artifact.annotations, {
      'org.p2pfs.rootfs': rootfs,
      'org.p2pfs.key': key,
      'org.p2pfs.signature': Buffer.from(signature).toString('base64'),
    })
  }
}

const other = `sha256:${'ab'.repeat(32)}`
const mebibyte = 1024 * 1024

/** Each forgery: its name, the warning in the log, and how it is made. All lead to a rebuild. */
const forgeries: [string, RegExp, (forgery: Forgery, image: string) => Promise<void> | void][] = [
  [
    'a signature that was changed',
    /not signed by the key that it names/,
    ({ artifact }) => {
      const signature = Buffer.from(artifact.annotations['org.p2pfs.signature']!, 'base64')
      signature[5]! ^= 1
      artifact.annotations['org.p2pfs.signature'] = signature.toString('base64')
    },
  ],
  [
    'a statement of another image',
    /not signed by the key that it names/,
    async (forgery) => await forgery.claim(forgery.artifact.annotations['org.p2pfs.rootfs']!, forgery.maker, other),
  ],
  [
    'another rootfs under the signature',
    /not signed by the key that it names/,
    ({ artifact }) => void (artifact.annotations['org.p2pfs.rootfs'] = other),
  ],
  [
    'a maker whose key is not accepted',
    /the key of its maker is not accepted.*start the daemon with its key as --trust-index-key/,
    async (forgery, image) => {
      const forged = { ...forgery.index.manifest, config: '{"forged":true}' }
      forgery.putManifest(forged)
      await forgery.claim(rootfsDigest(forged), await testKey(66), image)
    },
  ],
  [
    'another rootfs manifest than was signed',
    /another rootfs manifest than it names/,
    (forgery) => forgery.putManifest({ ...forgery.index.manifest, config: '{"forged":true}' }),
  ],
  [
    'the rootfs of another image, signed',
    /its rootfs is of another image/,
    async (forgery, image) => {
      const forged = { ...forgery.index.manifest, config: '{"forged":true}' }
      forgery.putManifest(forged)
      await forgery.claim(rootfsDigest(forged), forgery.maker, image)
    },
  ],
  [
    'an index blob that is not zstd',
    /published index is not zstd/,
    (forgery) => forgery.put('index', Buffer.alloc(5000, 7)),
  ],
  [
    'an index blob that is cut short',
    /published index/,
    (forgery) => forgery.put('index', forgery.bytes('index').subarray(0, -100)),
  ],
  [
    'an index that is not CBOR of an index',
    /published index/,
    (forgery) => forgery.put('index', zstdCompressSync(Buffer.from('a3'))),
  ],
  [
    'an index that grows without end',
    /longer than 268435456 bytes/,
    (forgery) => forgery.put('index', zstdCompressSync(Buffer.alloc(300 * mebibyte))),
  ],
  [
    'an index blob of a terabyte',
    /1099511627776 bytes; 67108864 is the most/,
    (forgery) => void (forgery.descriptor('index').size = 2 ** 40),
  ],
  [
    'a metadata blob of a terabyte',
    /1099511627776 bytes; 268435456 is the most/,
    (forgery) => void (forgery.descriptor('metadata').size = 2 ** 40),
  ],
  [
    'metadata that grow without end',
    /published metadata is not what/,
    (forgery) => forgery.put('metadata', zstdCompressSync(Buffer.alloc(600 * mebibyte))),
  ],
  [
    'metadata with one byte changed',
    /published metadata is not what/,
    (forgery) => {
      const metadata = zstdDecompressSync(forgery.bytes('metadata'))
      metadata[200_000]! ^= 1
      forgery.put('metadata', zstdCompressSync(metadata))
    },
  ],
  [
    'metadata that are too short',
    /published metadata is not what/,
    (forgery) =>
      forgery.put('metadata', zstdCompressSync(zstdDecompressSync(forgery.bytes('metadata')).subarray(0, -4096))),
  ],
  [
    'metadata that are too long',
    /published metadata is not what/,
    (forgery) =>
      forgery.put(
        'metadata',
        zstdCompressSync(Buffer.concat([zstdDecompressSync(forgery.bytes('metadata')), Buffer.alloc(1)])),
      ),
  ],
  [
    'a blob that is shorter than it says',
    /ends the blob after/,
    (forgery) => void (forgery.descriptor('metadata').size += 1),
  ],
  ['a blob that is not what its digest says', /does not match its digest/, (forgery) => forgery.corrupt('metadata')],
  [
    'windows outside of their blob',
    /windows leave their blob/,
    (forgery) => forgery.putManifest(forgery.index.manifest, { windowsOffset: 2 ** 45 }),
  ],
  ['no index', /it has no index/, (forgery) => void forgery.artifact.layers.shift()],
  ['blobs that are gone', /has no blobs/, (forgery) => void (forgery.descriptor('index').digest = other)],
]

test('a wrong publication is ignored with a warning, and the image is built from its layers', async (t) => {
  const odd = await oddImage()
  const lab = await PublishedLab.own(t, odd)
  const { registry } = lab
  const daemon = await DaemonProcess.start(t, lab.options)
  const { published, digest } = await daemon.json<SeedResult>('seed', lab.image, '--publish')
  const whole = hash(await readFile((await daemon.json<MountResult>('mount', lab.image, daemon.target('mnt'))).rootfs))
  const key = privateKeyFromProtobuf(readFileSync(join(daemon.directory, 'state/identity.key')))
  await daemon.stop()
  const artifact = registry.manifest('lab/image', published!.digest)!
  const image = registry.manifest('lab/image', odd.tag)!
  const parts = new Map<Part, Buffer>()
  for (const part of ['index', 'metadata'] as const) {
    const { digest: blob } = (JSON.parse(artifact) as Artifact).layers.find(({ mediaType }) =>
      mediaType.includes(`.${part}`),
    )!
    parts.set(
      part,
      Buffer.from(await (await fetch(`http://${lab.authority}/v2/lab/image/blobs/${blob}`)).arrayBuffer()),
    )
  }
  const maker: Signer = { key: published!.key, sign: async (bytes) => await key.sign(bytes) }

  const cold = await DaemonProcess.start(t, [...lab.options, '--trust-index-key', maker.key])
  const check = async (name: string, json: string, origin: string): Promise<void> => {
    registry.addManifest(name, 'x', image)
    registry.addManifest(name, undefined, json)
    const directory = cold.target(name.replace('/', '-'))
    const mounted = await cold.json<MountResult>('mount', `${lab.authority}/${name}:x`, directory)
    assert.deepEqual(
      [mounted.origin, mounted.digest, hash(await readFile(mounted.rootfs))],
      [origin, digest, whole],
      name,
    )
    await cold.cli('umount', directory)
  }
  await check('lab/honest', artifact, 'registry')
  for (const [i, [what, warning, forge]] of forgeries.entries()) {
    await t.test(what, async () => {
      const forgery = new Forgery(lab, artifact, parts, maker)
      await forge(forgery, published === undefined ? '' : `sha256:${hash(Buffer.from(image))}`)
      const before = cold.log.length
      await check(`lab/forgery-${i}`, JSON.stringify(forgery.artifact), 'built')
      assert.match(cold.log.slice(before), warning)
    })
  }
  await check('lab/honest-again', artifact, 'registry')
})

test('an accepted publication is found among those of others', async (t) => {
  const odd = await oddImage()
  const lab = await PublishedLab.own(t, odd, { referrersPerPage: 1 })
  const maker = await DaemonProcess.start(t, lab.options)
  const { published } = await maker.json<SeedResult>('seed', lab.image, '--publish')
  await maker.stop()
  const artifact = lab.registry.manifest('lab/image', published!.digest)!
  const image = lab.registry.manifest('lab/image', odd.tag)!
  lab.registry.addManifest('lab/crowd', 'x', image)
  for (let seed = 0; seed < 5; seed++) {
    const forgery = new Forgery(lab, artifact, new Map(), maker as never)
    await forgery.claim(other, await testKey(seed), `sha256:${hash(Buffer.from(image))}`)
    lab.registry.addManifest('lab/crowd', undefined, JSON.stringify(forgery.artifact))
  }
  lab.registry.addManifest('lab/crowd', undefined, JSON.stringify({ ...JSON.parse(artifact), annotations: {} }))
  lab.registry.addManifest('lab/crowd', undefined, artifact)
  const cold = await DaemonProcess.start(t, [...lab.options, '--trust-index-key', published!.key])
  const mounted = await cold.json<MountResult>('mount', `${lab.authority}/lab/crowd:x`, cold.target('mnt'))
  assert.equal(mounted.origin, 'registry')
})
