import type { Digest } from '../../protocol/digest.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import type { Catalog } from './catalog.ts'
import type { Inventory } from './inventory.ts'

/** Tracks the segments of everything in the catalog, when a daemon starts. */
export class TrackedCatalog {
  readonly #catalog: Pick<Catalog, 'rootfsDigests' | 'rootfs' | 'layerDiffIds' | 'layer' | 'blobMapDigests' | 'blobMap'>
  readonly #inventory: Pick<Inventory, 'track'>
  readonly #layersOfRootfs = new Set<Digest>()

  constructor({
    catalog,
    inventory,
  }: {
    catalog: Pick<Catalog, 'rootfsDigests' | 'rootfs' | 'layerDiffIds' | 'layer' | 'blobMapDigests' | 'blobMap'>
    inventory: Pick<Inventory, 'track'>
  }) {
    this.#catalog = catalog
    this.#inventory = inventory
  }

  /** The segments of each rootfs. Mounts need them. */
  async trackRootfs(): Promise<void> {
    for (const digest of await this.#catalog.rootfsDigests()) {
      const manifest = await this.#catalog.rootfs(digest)
      if (manifest === undefined) continue
      for (const table of tablesOf(manifest)) this.#inventory.track(table)
      for (const { diffId } of manifest.layers) this.#layersOfRootfs.add(diffId)
    }
  }

  /**
   * Layers of imports that have not ended, and windows: peers may ask for them. It reads every index and map, so
   * nothing waits for it.
   */
  async trackLayers(): Promise<void> {
    for (const diffId of await this.#catalog.layerDiffIds()) {
      const index = this.#layersOfRootfs.has(diffId) ? undefined : await this.#catalog.layer(diffId)
      if (index !== undefined) this.#inventory.track(index.chunks, { provisional: true })
    }
    for (const digest of await this.#catalog.blobMapDigests()) {
      const map = await this.#catalog.blobMap(digest)
      if (map !== undefined) this.#inventory.track(map.windows)
    }
  }
}
