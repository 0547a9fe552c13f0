import { AnnouncedObjects } from '../store/announced-objects.ts'
import { BlobMaps } from '../store/blob-maps.ts'
import { ImportTransactions } from '../store/import-transaction.ts'
import { Inventory } from '../store/inventory.ts'
import { TrackedCatalog } from '../store/tracked-catalog.ts'
import type { RegionParts } from './region.ts'
import type { StorageParts } from './storage.ts'

export interface HoldingsParts {
  inventory: Inventory
  announced: AnnouncedObjects
  tracked: TrackedCatalog
  blobMaps: BlobMaps
  transactions: ImportTransactions
}

/** Makes what joins the store to the region: the chunks and records that this host holds and has told its peers. */
export function makeHoldings({ catalog, chunks }: StorageParts, { network }: RegionParts): HoldingsParts {
  const inventory = new Inventory({ chunks, region: network.availability })
  return {
    inventory,
    announced: new AnnouncedObjects({ catalog, region: network.location }),
    tracked: new TrackedCatalog({ catalog, inventory }),
    blobMaps: new BlobMaps({ catalog, inventory }),
    transactions: new ImportTransactions({ inventory }),
  }
}
