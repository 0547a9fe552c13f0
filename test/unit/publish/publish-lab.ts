import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { attest, type Signer } from '../../../protocol/attestation.ts'
import type { BlobMap } from '../../../protocol/blob-map.ts'
import type { Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { encodeLayerIndex, type LayerIndex } from '../../../protocol/layer-index.ts'
import { stateName } from '../../../protocol/name-statement.ts'
import { rootfsDigest, type RootfsFormat, type RootfsManifest } from '../../../protocol/rootfs-manifest.ts'
import { createLog, silentLog } from '../../../node/base/log.ts'
import type { ImageRootfs } from '../../../node/model/image.ts'
import { IndexTrust } from '../../../node/publish/index-trust.ts'
import { PublishedImages } from '../../../node/publish/published-images.ts'
import { Publisher } from '../../../node/publish/publisher.ts'
import { createImageSource, type ImageSource, type ResolvedImage } from '../../../node/registry/image-source.ts'
import { parseReference, type Reference } from '../../../node/registry/reference.ts'
import { importLayer } from '../../../node/rootfs/layer-import.ts'
import { buildRootfs } from '../../../node/rootfs/rootfs-build.ts'
import type { Catalog } from '../../../node/store/catalog.ts'
import { ImportTransactions } from '../../../node/store/import-transaction.ts'
import { noLies } from '../../support/no-lies.ts'
import { OciLayout } from '../../support/oci-layout.ts'
import { createRandom } from '../../support/random.ts'
import { writeTar } from '../../support/tar-writer.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { openCatalog } from '../../support/stores.ts'

const { signal } = new AbortController()

type PublishRegistry = Pick<ImageSource, 'referrers' | 'manifest' | 'openLayer' | 'range' | 'pushBlob' | 'pushManifest'>

/** An image in an OCI layout, with all that its maker knows of it. */
export class PublishLab {
  readonly reference: Reference
  readonly image: ResolvedImage
  /** The maker's chunks. */
  readonly chunks = new Map<Digest, Uint8Array>()
  readonly index: LayerIndex
  readonly map: BlobMap
  /** How often publications were listed. */
  lists = 0
  /** Whether the registry fails to list publications. */
  isSilent = false
  readonly registry: PublishRegistry

  private constructor(source: ImageSource, reference: Reference, image: ResolvedImage, layer: ImportedLayer) {
    this.reference = reference
    this.image = image
    this.index = layer.index
    this.map = layer.map
    for (const [digest, bytes] of layer.chunks) this.chunks.set(digest, bytes)
    // Whatever repository is named: there is one.
    this.registry = {
      referrers: async (_, ...query) => {
        this.lists++
        if (this.isSilent) throw new P2pfsError('unavailable', 'connection refused')
        return await source.referrers(reference, ...query)
      },
      manifest: async (_, ...query) => await source.manifest(reference, ...query),
      openLayer: (_, ...query) => source.openLayer(reference, ...query),
      range: async (...query) => await source.range(...query),
      pushBlob: async (...query) => await source.pushBlob(...query),
      pushManifest: async (...query) => await source.pushManifest(...query),
    }
  }

  static async create(t: TestContext): Promise<PublishLab> {
    const directory = temporaryDirectory(t)
    const tar = join(directory, 'layer.tar')
    writeFileSync(tar, writeTar([{ path: 'words', type: 'file', content: words(1, 400_000) }]))
    const layout = await OciLayout.create(join(directory, 'layout'))
    await layout.addImage('v', [await layout.addLayer(tar, 'gzip')], {})
    const source = createImageSource({ log: silentLog, userAgent: 'test', insecureRegistries: [] })
    t.after(async () => await source.close())
    const reference = parseReference(`oci:${layout.directory}:v`)
    const image = await source.resolve(reference, 'linux/amd64', { signal })
    return new PublishLab(source, reference, image, await readLayer(source, reference, image))
  }

  /** The rootfs of the image; its metadata chunks are among the maker's from now on. */
  async rootfs(format: RootfsFormat = 'ext4', config = this.image.config): Promise<RootfsManifest> {
    return await buildRootfs([this.index], { config, format }, { put: this.#put })
  }

  /** The image as `maker` has built it. */
  async builtBy(maker: Signer, manifest?: RootfsManifest, { told = false } = {}): Promise<ImageRootfs> {
    const rootfs = manifest ?? (await this.rootfs())
    const { reference, platform, manifestDigest, manifest: json } = this.image
    const statement = { manifestDigest, format: rootfs.format, rootfsDigest: rootfsDigest(rootfs) }
    const attestation = await attest(statement, maker, { told })
    const nameStatement = await stateName({ reference, platform, manifestDigest }, 1, maker)
    return {
      record: { reference, platform, manifest: json, ...statement, attestation, nameStatement },
      manifest: rootfs,
    }
  }

  /** A publisher on a host that has all that the lab has, unless `lost` says otherwise. */
  publisher({ lost = [] as readonly Digest[] } = {}): Publisher {
    return new Publisher({
      ranges: { blobMap: async () => await Promise.resolve(this.map) },
      indexes: {
        findEncoded: async (diffId) =>
          await Promise.resolve(lost.includes(diffId) ? undefined : encodeLayerIndex(this.index)),
      },
      registry: this.registry,
      fetcher: {
        fetch: async ({ digest }) => {
          const bytes = lost.includes(digest) ? undefined : this.chunks.get(digest)
          if (bytes === undefined) throw new P2pfsError('missing', 'nobody has the chunk')
          return await Promise.resolve({ bytes, source: 'local' })
        },
      },
      published: { remember: async () => await Promise.resolve() },
      log: silentLog,
    })
  }

  readonly #put = async (digest: Digest, bytes: Uint8Array): Promise<void> => {
    this.chunks.set(digest, Uint8Array.from(bytes))
    return await Promise.resolve()
  }
}

/** A host that knows nothing of the image, and accepts what the `trusted` keys have made. */
export class ColdHost {
  readonly catalog: Catalog
  readonly published: PublishedImages
  readonly chunks = new Map<Digest, Uint8Array>()
  readonly maps = new Map<Digest, BlobMap>()
  readonly profiles: string[] = []
  log = ''
  nowMs = 0
  /** The rootfs manifest that a neighbour region has. */
  near: RootfsManifest | undefined
  /** The lists that a member says registries have. */
  told: Uint8Array | undefined
  /** The keys by which members were asked for such lists. */
  readonly asked: Digest[] = []

  private constructor(
    { registry }: PublishLab,
    catalog: Catalog,
    own: Signer,
    trusted: readonly string[],
    members: readonly { peer: string }[],
  ) {
    this.catalog = catalog
    const log = createLog('warn', (line) => (this.log += line))
    this.published = new PublishedImages(
      {
        catalog,
        registry,
        trust: new IndexTrust(
          { own: own.key, membership: { roster: new Map(members.map(({ peer }) => [peer, {}])) }, lies: noLies, log },
          { keys: trusted },
        ),
        transactions: new ImportTransactions({
          inventory: {
            put: async (digest, bytes) => {
              const isFresh = !this.chunks.has(digest)
              this.chunks.set(digest, bytes)
              return await Promise.resolve(isFresh)
            },
            openThreadWriting: () => assert.fail('publications are read by this thread'),
            adoptFrom: () => [],
            discard: async (digest) => void (await Promise.resolve(this.chunks.delete(digest))),
            isReferenced: () => false,
            flush: async () => undefined,
          },
        }),
        blobMaps: {
          get: async (digest) => await Promise.resolve(this.maps.get(digest)),
          put: async (map) => void (await Promise.resolve(this.maps.set(map.digest, map))),
        },
        sharing: {
          get: async (_, read, { signal }) => await read(signal),
          ask: async (key, read, { signal }) => {
            this.asked.push(key)
            return { bytes: this.told ?? (await read(signal)), isFirsthand: this.told === undefined }
          },
        },
        near: { fetchRootfs: async () => await Promise.resolve(this.near) },
        profiles: { addPublished: (bytes) => void this.profiles.push(Buffer.from(bytes).toString()) },
        log,
      },
      { now: () => this.nowMs },
    )
  }

  static async create(
    t: TestContext,
    lab: PublishLab,
    own: Signer,
    trusted: readonly string[] = [],
    members: readonly { peer: string }[] = [],
  ): Promise<ColdHost> {
    return new ColdHost(lab, await openCatalog(t), own, trusted, members)
  }
}

interface ImportedLayer {
  index: LayerIndex
  map: BlobMap
  chunks: ReadonlyMap<Digest, Uint8Array>
}

/** Reads the image's one layer. The chunks of its windows are among the chunks. */
async function readLayer(
  source: ImageSource,
  reference: Reference,
  { layers: [layer] }: ResolvedImage,
): Promise<ImportedLayer> {
  const chunks = new Map<Digest, Uint8Array>()
  const put = async (digest: Digest, bytes: Uint8Array): Promise<void> => {
    chunks.set(digest, Uint8Array.from(bytes))
    return await Promise.resolve()
  }
  const { index, map } = await importLayer(source.openLayer(reference, layer!, { signal }), layer!, { put }, { signal })
  return { index, map: map!, chunks }
}

/** Text that gzip compresses by references to what it has seen. */
function words(seed: number, length: number): Buffer {
  const random = createRandom(seed)
  const vocabulary = Array.from({ length: 500 }, () => random.bytes(6).toString('hex'))
  let text = ''
  while (text.length < length) text += `${vocabulary[random.below(vocabulary.length)]!} `
  return Buffer.from(text.slice(0, length))
}
