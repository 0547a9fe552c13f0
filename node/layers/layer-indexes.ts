import type { Digest } from '../../protocol/digest.ts'
import { encodeLayerIndex, type LayerIndex } from '../../protocol/layer-index.ts'
import type { RegionObjects } from '../peers/object/region-objects.ts'
import type { IndexTrust } from '../publish/index-trust.ts'
import type { Catalog } from '../store/catalog.ts'
import type { RegionAnswers } from './region-answers.ts'

export interface LayerIndexesParts {
  catalog: Pick<Catalog, 'layer' | 'layerBytes' | 'hasLayer' | 'putLayer'>
  region: Pick<RegionObjects, 'fetchLayerIndex'>
  answers: Pick<RegionAnswers, 'layerIndex'>
  trust: Pick<IndexTrust, 'trustsMembers'>
}

/** Called for each layer index that is the first of its layer in the catalog. */
export type OnIndex = (index: LayerIndex) => void

export interface FoundIndex {
  index: LayerIndex
  /** Whether it is a peer's, which nobody has signed. */
  isUnverified: boolean
}

/** The indexes of layers: what this host has read, and what its region tells. */
export class LayerIndexes {
  readonly #parts: LayerIndexesParts

  constructor(parts: LayerIndexesParts) {
    this.#parts = parts
  }

  /** The index that this host has made by reading the layer. */
  async own(diffId: Digest): Promise<LayerIndex | undefined> {
    return await this.#parts.catalog.layer(diffId, { includeUnverified: false })
  }

  /**
   * The index that this host or, where members are believed, its region has of the layer.
   * @param options `mustAnswer`: whether a region that does not answer is an error; otherwise it is a no
   * @throws unavailable where the region must answer, and does not
   */
  async find(
    diffId: Digest,
    { signal, onIndex, mustAnswer = false }: { signal: AbortSignal; onIndex?: OnIndex; mustAnswer?: boolean },
  ): Promise<FoundIndex | undefined> {
    const { catalog, region, answers, trust } = this.#parts
    const own = await this.own(diffId)
    if (own !== undefined) return { index: own, isUnverified: false }
    if (!trust.trustsMembers) return undefined
    const stored = await catalog.layer(diffId)
    if (stored !== undefined) return { index: stored, isUnverified: true }
    const index = mustAnswer
      ? await answers.layerIndex(diffId, signal)
      : await region.fetchLayerIndex(diffId, { signal })
    if (index === undefined) return undefined
    await this.put(index, { isUnverified: true, ...(onIndex && { onIndex }) })
    return { index, isUnverified: true }
  }

  /** As {@link find}, encoded. */
  async findEncoded(diffId: Digest, { signal }: { signal: AbortSignal }): Promise<Uint8Array | undefined> {
    const { catalog, trust } = this.#parts
    const bytes = await catalog.layerBytes(diffId, { includeUnverified: trust.trustsMembers })
    if (bytes !== undefined) return bytes
    const found = await this.find(diffId, { signal })
    return found === undefined ? undefined : encodeLayerIndex(found.index)
  }

  async put(index: LayerIndex, { isUnverified, onIndex }: { isUnverified: boolean; onIndex?: OnIndex }): Promise<void> {
    if (!(await this.#parts.catalog.hasLayer(index.diffId))) onIndex?.(index)
    await this.#parts.catalog.putLayer(index, { unverified: isUnverified })
  }
}
