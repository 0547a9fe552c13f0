import type { Attestation, Statement } from '../../protocol/attestation.ts'
import type { BlobMap } from '../../protocol/blob-map.ts'
import { digestOf, type Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { ImageName } from '../../protocol/image-record.ts'
import { encodeLayerIndex, type LayerIndex } from '../../protocol/layer-index.ts'
import { rootfsDigest, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { Log } from '../base/log.ts'
import type { Comparison, VerifiedUse, VerifyRequest, VerifyResult } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import { formatOf } from '../images/decisions.ts'
import { mapDigest, type LayerRebuild, type Rebuilt } from '../images/layer-rebuild.ts'
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
  rebuild: Pick<LayerRebuild, 'of'>
  region: Pick<RegionObjects, 'findImages' | 'fetchRootfs' | 'fetchLayerIndex' | 'fetchBlobMap'>
  /** This host's peer id. */
  own: string
  trust: Pick<IndexTrust, 'believes'>
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

/** Records of members that are looked at: different ones are rare, unless somebody makes them. */
const maxOfRegion = 8
/** Publications of one image that are looked at. */
const maxPublications = 8

/** `p2pfs verify`: whether the rootfs that hosts use for an image is the one that its layers make. */
export class VerifyOperation {
  readonly #parts: VerifyParts
  readonly #reader: PublicationReader

  constructor(parts: VerifyParts) {
    this.#parts = parts
    this.#reader = new PublicationReader(parts)
  }

  /**
   * Reads all layers in the registry, and compares what they make with what this host, its region and the publications
   * in the registry have. The image manifest is the one that this host has, else that of the region, else that of the
   * registry.
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
    const format = formatOf(image, variant.format)
    // Uses of a raw image are found by that format.
    if (format !== variant.format) return await this.#verify(reference, { ...variant, format }, options)
    const { published, broken } = await this.#ofRegistry(reference, image.manifestDigest, variant, signal)
    const rebuilt = await this.#parts.rebuild.of(pinned, image, variant.format, options)
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
    const statement = { manifestDigest, format, rootfsDigest }
    return {
      maker,
      own: maker === own,
      accepted: trust.believes(statement, attestation, { isStored: source === 'host' }),
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

  /** The rootfs that the region uses for the image, each once, however many members pass it on. */
  async #ofRegion(name: ImageName, signal: AbortSignal): Promise<Use[]> {
    const { region } = this.#parts
    const uses = new Map<string, Use>()
    for (const { record, peer } of await region.findImages(name, { signal })) {
      const { manifestDigest, rootfsDigest: digest, attestation } = record
      const key = `${manifestDigest} ${digest} ${attestation.key}`
      if (uses.has(key) || uses.size === maxOfRegion) continue
      const manifest = await region.fetchRootfs(digest, { signal, first: peer })
      uses.set(key, {
        ...record,
        source: 'region',
        rootfs: manifest,
        layer: async (diffId) => await region.fetchLayerIndex(diffId, { signal }),
        map: async (digest) => await region.fetchBlobMap(digest, { signal }),
      })
    }
    return [...uses.values()]
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
