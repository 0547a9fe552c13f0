import { BootProfiles } from '../boot/profiles.ts'
import { IndexTrust } from '../publish/index-trust.ts'
import { Lies } from '../publish/lies.ts'
import { PublishedImages } from '../publish/published-images.ts'
import type { DaemonContext } from './context.ts'
import type { HoldingsParts } from './holdings.ts'
import type { RegionParts } from './region.ts'
import type { RegistryParts } from './registries.ts'
import type { StorageParts } from './storage.ts'

export interface PublicationParts {
  lies: Lies
  trust: IndexTrust
  profiles: BootProfiles
  published: PublishedImages
}

interface Below {
  storage: StorageParts
  registries: RegistryParts
  region: RegionParts
  holdings: HoldingsParts
}

/** Opens what others have made of images: whose word counts, their boot profiles, and publications in registries. */
export async function openPublications(
  { config, log }: DaemonContext,
  { storage: { catalog }, registries: { registry, sharing }, region: { network, near }, holdings }: Below,
): Promise<PublicationParts> {
  const { transactions, blobMaps } = holdings
  const { membership } = network
  const lies = await Lies.open({ catalog })
  const trust = new IndexTrust({ own: network.peerId, membership, lies, log }, { keys: config.trustIndexKey })
  const profiles = new BootProfiles({ catalog, region: near, log })
  const published = new PublishedImages({
    catalog,
    registry,
    sharing,
    trust,
    transactions,
    blobMaps,
    profiles,
    near,
    log,
  })
  return { lies, trust, profiles, published }
}
