import type { BlobMap } from '../../protocol/blob-map.ts'
import type { Digest } from '../../protocol/digest.ts'
import type { Catalog } from './catalog.ts'
import type { Inventory } from './inventory.ts'

/**
 * The blob maps of this host: how to read layers at random. The window segment of each is tracked, so peers can ask for
 * it.
 */
export class BlobMaps {
  readonly #catalog: Pick<Catalog, 'blobMap' | 'putBlobMap'>
  readonly #inventory: Pick<Inventory, 'track'>

  constructor({
    catalog,
    inventory,
  }: {
    catalog: Pick<Catalog, 'blobMap' | 'putBlobMap'>
    inventory: Pick<Inventory, 'track'>
  }) {
    this.#catalog = catalog
    this.#inventory = inventory
  }

  async get(blob: Digest): Promise<BlobMap | undefined> {
    return await this.#catalog.blobMap(blob)
  }

  async put(map: BlobMap): Promise<void> {
    await this.#catalog.putBlobMap(map)
    this.#inventory.track(map.windows)
  }
}
