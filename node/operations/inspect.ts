import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { InspectedLayer, InspectRequest, InspectResult } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import type { ImageResolver } from '../images/resolver.ts'
import type { ImageRootfs, Variant } from '../model/image.ts'
import { sizeOf, tablesOf } from '../model/rootfs-chunks.ts'
import type { RegionObjects } from '../peers/object/region-objects.ts'
import type { IndexTrust } from '../publish/index-trust.ts'
import type { PublishedImages } from '../publish/published-images.ts'
import { layersOf } from '../registry/image-source.ts'
import type { Catalog } from '../store/catalog.ts'
import type { Inventory } from '../store/inventory.ts'
import type { ImageRequests } from './image-request.ts'

export interface InspectParts {
  requests: ImageRequests
  resolver: Pick<ImageResolver, 'find'>
  region: Pick<RegionObjects, 'fetchLayerIndex'>
  trust: Pick<IndexTrust, 'trustsMembers'>
  published: Pick<PublishedImages, 'layerIndexes'>
  catalog: Pick<Catalog, 'images' | 'rootfs' | 'layer'>
  inventory: Pick<Inventory, 'localBytes'>
}

/** `p2pfs inspect`: what an image is made of, how much of it is here, and what other images share with it. */
export class InspectOperation {
  readonly #parts: InspectParts

  constructor(parts: InspectParts) {
    this.#parts = parts
  }

  /**
   * Nothing is imported, made or stored to be looked at. An image that is here in another format only is shown in that
   * format.
   * @throws missing where neither this host nor its region has the image
   */
  async run(request: InspectRequest, { signal }: OperationOptions): Promise<InspectResult> {
    const { requests, resolver, inventory } = this.#parts
    const { reference, variant } = requests.parse(request)
    const image = await resolver.find(reference, variant, { signal })
    if (image === undefined) {
      throw new P2pfsError(
        'missing',
        `neither this host nor its region knows ${request.image} for ${variant.platform}; p2pfs seed ${request.image} first`,
      )
    }
    const { record, manifest, belief } = image
    const tables = tablesOf(manifest)
    return {
      reference: record.reference,
      platform: record.platform,
      format: record.format,
      digest: record.rootfsDigest,
      belief,
      sizeBytes: sizeOf(manifest),
      localBytes: inventory.localBytes(tables),
      metadataBytes: manifest.metadata.sizeBytes,
      chunks: tables.reduce((sum, { count }) => sum + count, 0),
      layers: await this.#layers(image, signal),
      sharing: sharingOf(image, await this.#images(record.format)),
      config: JSON.parse(manifest.config) as unknown,
    }
  }

  async #layers({ record, manifest }: ImageRootfs, signal: AbortSignal): Promise<InspectedLayer[]> {
    const { catalog, region, trust, published, inventory } = this.#parts
    let publishedIndexes: ReturnType<PublishedImages['layerIndexes']> | undefined
    const findIndex = async (diffId: Digest): Promise<LayerIndex | undefined> => {
      const stored = await catalog.layer(diffId, { includeUnverified: trust.trustsMembers })
      if (stored !== undefined) return stored
      const ofPeer = trust.trustsMembers ? await region.fetchLayerIndex(diffId, { signal }) : undefined
      if (ofPeer !== undefined) return ofPeer
      publishedIndexes ??= published.layerIndexes(record, { signal })
      return (await publishedIndexes)?.get(diffId)
    }
    const layers: InspectedLayer[] = []
    for (const [i, layer] of layersOf(record.manifest, manifest.config).entries()) {
      const { chunks } = manifest.layers[i]!
      const isRaw = manifest.format === 'raw'
      const index = isRaw ? undefined : await findIndex(layer.diffId)
      layers.push({
        diffId: layer.diffId,
        digest: layer.digest,
        compressedBytes: layer.sizeBytes,
        tarBytes: isRaw ? chunks.sizeBytes : (index?.tarBytes ?? 0),
        entries: countTypes(index),
        dataBytes: chunks.sizeBytes,
        chunks: chunks.count,
        localBytes: inventory.localBytes([chunks]),
      })
    }
    return layers
  }

  /** All images of this host in one format. */
  async #images(format: Variant['format']): Promise<ImageRootfs[]> {
    const { catalog } = this.#parts
    const images: ImageRootfs[] = []
    for (const record of await catalog.images()) {
      const manifest = record.format === format ? await catalog.rootfs(record.rootfsDigest) : undefined
      if (manifest !== undefined) images.push({ record, manifest })
    }
    return images
  }
}

function countTypes(index: LayerIndex | undefined): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { type } of index?.entries ?? []) counts[type] = (counts[type] ?? 0) + 1
  return counts
}

/** The other images that share chunks, most bytes first. Each chunk counts once, however often an image has it. */
function sharingOf(image: ImageRootfs, images: readonly ImageRootfs[]): InspectResult['sharing'] {
  const own = distinctChunks(image.manifest)
  return images
    .filter(({ record }) => record.rootfsDigest !== image.record.rootfsDigest)
    .map(({ record: { reference, platform, format }, manifest }) => {
      const shared = [...distinctChunks(manifest)].filter(([digest]) => own.has(digest))
      return {
        reference,
        platform,
        format,
        sharedChunks: shared.length,
        sharedBytes: shared.reduce((sum, [, lengthBytes]) => sum + lengthBytes, 0),
      }
    })
    .filter(({ sharedChunks }) => sharedChunks > 0)
    .sort((a, b) => b.sharedBytes - a.sharedBytes)
}

/** Length of each chunk (bytes). */
function distinctChunks(manifest: RootfsManifest): Map<Digest, number> {
  const chunks = new Map<Digest, number>()
  for (const table of tablesOf(manifest)) {
    for (let i = 0; i < table.count; i++) chunks.set(table.digestAt(i), table.lengthAt(i))
  }
  return chunks
}
