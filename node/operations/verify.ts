import { isAttested, type Attestation, type Statement } from '../../protocol/attestation.ts'
import { encodeBlobMap, type BlobMap } from '../../protocol/blob-map.ts'
import { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { ImageName } from '../../protocol/image-record.ts'
import { encodeLayerIndex, type LayerIndex } from '../../protocol/layer-index.ts'
import { rootfsDigest, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { Log } from '../base/log.ts'
import type { Comparison, VerifiedUse, VerifyRequest, VerifyResult } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import type { ChunkSink } from '../model/chunk-sink.ts'
import { importImage } from '../rootfs/image-import.ts'
import { importLayer } from '../rootfs/layer-import.ts'
import type { LayerLimits } from '../rootfs/layer-limits.ts'
import type { RegionObjects } from '../peers/object/region-objects.ts'
import type { IndexTrust } from '../publish/index-trust.ts'
import { PublicationReader } from '../publish/publication-reader.ts'
import type { ImageSource, ResolvedImage } from '../registry/image-source.ts'
import { formatReference, type Reference } from '../registry/reference.ts'
import type { FindOptions, Variant } from '../model/image.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ImageRequests } from './image-request.ts'

export interface VerifyParts {
  requests: ImageRequests
  catalog: Pick<Catalog, 'image' | 'rootfs' | 'layer' | 'blobMap'>
  registry: ImageSource
  region: Pick<RegionObjects, 'findImage' | 'fetchRootfs' | 'fetchLayerIndex' | 'fetchBlobMap'>
  /** This host's peer id. */
  own: string
  trust: Pick<IndexTrust, 'accepts' | 'trustsMembers'>
  limits: LayerLimits
  log: Log
}

/** The rootfs that somebody uses for the image, and where the parts of it come from that can be compared. */
interface Use extends Statement {
  source: VerifiedUse['source']
  attestation: Attestation
  rootfs: RootfsManifest | undefined
  layer: (diffId: Digest) => Promise<LayerIndex | undefined>
  map: (digest: Digest) => Promise<BlobMap | undefined>
}

/** Digests of what the layers make. */
interface Rebuilt {
  manifest: RootfsManifest
  /** Digests of the encoded layer indexes, by diff id. */
  indexes: ReadonlyMap<Digest, Digest>
  /** Digests of the blob maps, by blob. */
  maps: ReadonlyMap<Digest, Digest>
}

/** Publications of one image that are looked at. */
const maxPublications = 8

/** Chunks are hashed when they are made; here nobody keeps them. */
const discarding: ChunkSink = {
  put: async (_digest, bytes) => {
    if (bytes.buffer instanceof ArrayBuffer && bytes.byteLength === bytes.buffer.byteLength) bytes.buffer.transfer(0)
  },
}

/** `p2pfs verify`: whether the rootfs that hosts use for an image is the one that its layers make. */
export class VerifyOperation {
  readonly #parts: VerifyParts
  readonly #reader: PublicationReader

  constructor(parts: VerifyParts) {
    this.#parts = parts
    this.#reader = new PublicationReader(parts)
  }

  /**
   * Reads all layers in the registry, and compares what they make with what this host, its region and the publications in
   * the registry have. The image manifest is the one that this host has, else that of the region, else that of the registry.
   * @throws unsupported for an image that is in no registry; what an import throws
   */
  async run(request: VerifyRequest, { signal, onProgress }: OperationOptions): Promise<VerifyResult> {
    const { reference, variant } = this.#parts.requests.parse(request)
    const result = await this.#verify(reference, variant, {
      signal,
      onProgress: (progress) => onProgress({ step: 'verify', ...progress }),
    })
    if (!result.same) {
      const { reference: image, digest } = result
      this.#parts.log.error('hosts use a rootfs for an image that its layers do not make', { image, digest })
    }
    return result
  }

  async #verify(reference: Reference, variant: Variant, options: FindOptions): Promise<VerifyResult> {
    const { signal } = options
    const name = { reference: formatReference(reference), ...variant }
    if (reference.kind === 'local')
      throw new P2pfsError('unsupported', `${name.reference} is in no registry: there are no layers to compare with`)
    const uses = [...(await this.#ofHost(name)), ...(await this.#ofRegion(name, signal))]
    const manifestDigest = uses[0]?.manifestDigest
    const pinned =
      manifestDigest === undefined || reference.kind !== 'registry'
        ? reference
        : { ...reference, digest: manifestDigest }
    const image = await this.#parts.registry.resolve(pinned, variant.platform, { signal })
    const { published, broken } = await this.#ofRegistry(reference, image.manifestDigest, variant, signal)
    const rebuilt = await this.#rebuild(pinned, image, variant, options)
    const compared: VerifiedUse[] = []
    for (const use of [...uses, ...published]) compared.push(await this.#compare(use, image, rebuilt))
    const all = [...compared, ...broken]
    return {
      ...name,
      manifestDigest: image.manifestDigest,
      digest: rootfsDigest(rebuilt.manifest),
      same: all.every(
        ({ rootfs, layers }) =>
          rootfs !== 'different' &&
          layers.every((layer) => ![layer.chunks, layer.index, layer.map].includes('different')),
      ),
      uses: all,
    }
  }

  async #rebuild(
    reference: Reference,
    image: ResolvedImage,
    { format }: Variant,
    options: FindOptions,
  ): Promise<Rebuilt> {
    const { registry, limits } = this.#parts
    const indexes = new Map<Digest, Digest>()
    const maps = new Map<Digest, Digest>()
    const manifest = await importImage(
      { ...image, format },
      {
        knownLayer: async () => undefined,
        readLayer: async (layer, { signal, onBytes }) => {
          const bytes = registry.openLayer(reference, layer, { signal, verify: false })
          const { index, map } = await importLayer(bytes, layer, discarding, { signal, limits, onProgress: onBytes })
          indexes.set(layer.diffId, digestOf(encodeLayerIndex(index)))
          if (map !== undefined) maps.set(layer.digest, mapDigest(map))
          return index
        },
        sink: discarding,
        limits,
      },
      options,
    )
    return { manifest, indexes, maps }
  }

  async #compare(use: Use, image: ResolvedImage, rebuilt: Rebuilt): Promise<VerifiedUse> {
    const layers: VerifiedUse['layers'] = []
    const isSameImage = use.manifestDigest === image.manifestDigest
    for (const [i, { diffId, digest }] of (isSameImage ? image.layers : []).entries()) {
      layers.push({
        diffId,
        digest,
        chunks: compare(use.rootfs?.layers[i]?.chunks.id, rebuilt.manifest.layers[i]!.chunks.id),
        index: await compareWith(
          use.layer(diffId),
          (index) => digestOf(encodeLayerIndex(index)),
          rebuilt.indexes.get(diffId),
        ),
        map: await compareWith(use.map(digest), mapDigest, rebuilt.maps.get(digest)),
      })
    }
    const { source, rootfsDigest: digest } = use
    const made = rootfsDigest(rebuilt.manifest)
    return { ...this.#maker(use), source, digest, rootfs: isSameImage ? compare(digest, made) : 'other image', layers }
  }

  /** The maker who attests the rootfs, and whether this host accepts the attestation now. */
  #maker({
    source,
    attestation,
    manifestDigest,
    format,
    rootfsDigest,
  }: Statement & Pick<Use, 'source' | 'attestation'>): Pick<VerifiedUse, 'maker' | 'own' | 'accepted'> {
    const { trust, own } = this.#parts
    const { key: maker } = attestation
    const isTrustedMember = source !== 'registry' && trust.trustsMembers
    return {
      maker,
      own: maker === own,
      accepted:
        isAttested({ manifestDigest, format, rootfsDigest }, attestation) && (isTrustedMember || trust.accepts(maker)),
    }
  }

  async #ofHost(name: ImageName): Promise<Use[]> {
    const { catalog } = this.#parts
    const record = await catalog.image(name)
    if (record === undefined) return []
    const manifest = await catalog.rootfs(record.rootfsDigest)
    return [
      {
        ...record,
        source: 'host',
        rootfs: manifest,
        layer: async (diffId) => await catalog.layer(diffId),
        map: async (digest) => await catalog.blobMap(digest),
      },
    ]
  }

  async #ofRegion(name: ImageName, signal: AbortSignal): Promise<Use[]> {
    const { region } = this.#parts
    const found = await region.findImage(name, { signal })
    if (found === undefined) return []
    const { record } = found
    const manifest = await region.fetchRootfs(record.rootfsDigest, { signal })
    return [
      {
        ...record,
        source: 'region',
        rootfs: manifest,
        layer: async (diffId) => await region.fetchLayerIndex(diffId, { signal }),
        map: async (digest) => await region.fetchBlobMap(digest, { signal }),
      },
    ]
  }

  /** All publications, whoever made them. One that cannot be read counts as different, and says why. */
  async #ofRegistry(
    reference: Reference,
    manifestDigest: Digest,
    { format }: Variant,
    signal: AbortSignal,
  ): Promise<{ published: Use[]; broken: VerifiedUse[] }> {
    const published: Use[] = []
    const broken: VerifiedUse[] = []
    const listed = (await this.#reader.list(reference, manifestDigest, { signal })).filter(
      (candidate) => candidate.format === format,
    )
    for (const candidate of listed.slice(0, maxPublications)) {
      const use = { ...candidate, source: 'registry', manifestDigest } as const
      try {
        const { publication, index } = await this.#reader.read(reference, manifestDigest, candidate, {
          signal,
          withMetadata: false,
        })
        const diffIds = [...new Set(index.manifest.layers.map(({ diffId }) => diffId))]
        const layer = async (diffId: Digest): Promise<LayerIndex | undefined> => {
          const blob = publication.layerIndexes[diffIds.indexOf(diffId)]
          return blob === undefined ? undefined : await this.#reader.layerIndex(reference, blob, { signal })
        }
        published.push({
          ...use,
          rootfs: index.manifest,
          layer,
          map: async (digest) => index.maps.find(({ map }) => map.digest === digest)?.map,
        })
      } catch (error) {
        signal.throwIfAborted()
        broken.push({
          ...this.#maker(use),
          source: 'registry',
          digest: candidate.rootfsDigest,
          rootfs: 'different',
          error: (error as Error).message,
          layers: [],
        })
      }
    }
    return { published, broken }
  }
}

/** The digest of a map without its windows: how they are compressed is no part of what a map says. */
function mapDigest(map: BlobMap): Digest {
  const checkpoints = map.checkpoints.map((checkpoint) => ({ ...checkpoint, window: { offset: 0, lengthBytes: 0 } }))
  return digestOf(encodeBlobMap({ ...map, checkpoints, windows: new ChunkTable([], new Uint8Array(0)) }))
}

function compare(used: Digest | undefined, made: Digest | undefined): Comparison {
  if (used === undefined || made === undefined) return 'unknown'
  return used === made ? 'same' : 'different'
}

/** Damaged bytes count as different. */
async function compareWith<T>(
  used: Promise<T | undefined>,
  digest: (value: T) => Digest,
  made: Digest | undefined,
): Promise<Comparison> {
  try {
    const value = await used
    return compare(value === undefined ? undefined : digest(value), made)
  } catch (error) {
    if (isP2pfsError(error, 'invalid')) return 'different'
    throw error
  }
}
