import type { HoldingsParts } from './holdings.ts'
import type { LayerParts } from './layers.ts'
import type { PublicationParts } from './publications.ts'
import type { RegionParts } from './region.ts'
import type { RegistryParts } from './registries.ts'
import type { SourceParts } from './sources.ts'
import type { StorageParts } from './storage.ts'

/** The groups of parts that hold data or get it: all that images, mounts and operations build on. */
export interface DataParts {
  storage: StorageParts
  registries: RegistryParts
  region: RegionParts
  holdings: HoldingsParts
  publications: PublicationParts
  layers: LayerParts
  sources: SourceParts
}
