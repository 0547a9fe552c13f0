import type { Digest } from '../../protocol/digest.ts'
import { KeptChunks } from '../disk/kept-chunks.ts'
import { HotImages } from '../hot/hot-images.ts'
import { hotLimits } from '../hot/hot-limits.ts'
import { MovedTags } from '../hot/moved-tags.ts'
import { PeerImports, type PeerImportPolicy } from '../images/peer-imports.ts'
import { HotRoom } from '../seeds/hot-room.ts'
import { KeptJobs } from '../seeds/kept-jobs.ts'
import { Pins } from '../seeds/pins.ts'
import { Placements } from '../seeds/placements.ts'
import { RegionHosts } from '../seeds/region-hosts.ts'
import { SeedJobs } from '../seeds/seed-jobs.ts'
import type { Room } from '../store/disk-room.ts'
import type { BandwidthParts } from './bandwidths.ts'
import type { DaemonContext } from './context.ts'
import type { DataParts } from './data.ts'
import type { ImageParts } from './images.ts'
import type { MountParts } from './mounting.ts'

export interface RegionWorkParts {
  peerImports: PeerImports
  pins: Pins
  /** The room for images that are pinned. */
  roomForPins: () => Promise<Room>
  kept: KeptJobs
  keptChunks: KeptChunks
  hotRoom: HotRoom
  hotDiskBytes: number
  placements: Placements
  hosts: RegionHosts
  jobs: SeedJobs
  hot: HotImages
}

interface Below extends DataParts {
  bandwidths: BandwidthParts
  images: ImageParts
  mounting: MountParts
}

/** Opens what this host does for the region: imports for peers, and images that are held ahead of need. */
export async function openRegionWork({ config, log }: DaemonContext, below: Below): Promise<RegionWorkParts> {
  const { catalog, storeRoom } = below.storage
  const { registryForPeers } = below.registries
  const { network } = below.region
  const { membership, availability, peerId: own } = network
  const { inventory, transactions } = below.holdings
  const { seedFetcher, regionFetcher } = below.sources
  const { resolver, imports } = below.images
  const { mounts } = below.mounting

  const pins = new Pins({ own, catalog })
  const kept = new KeptJobs({ own, catalog, today: Date.now })
  await pins.open()
  await kept.open()
  const roomForPins = async (): Promise<Room> => await storeRoom.forPins(pins.pinnedBytes)
  const peerImports = new PeerImports(
    {
      catalog,
      registry: registryForPeers,
      reader: below.layers.reader.from(registryForPeers),
      resolver,
      imports,
      membership,
      own,
      room: roomForPins,
      log,
    },
    { policy: config.importForPeers as PeerImportPolicy },
  )
  const isMounted = (rootfs: Digest): boolean =>
    mounts.rootfs(rootfs) !== undefined || mounts.list().some(({ rootfsDigest }) => rootfsDigest === rootfs)
  // Half of what the store may take is for what this host itself reads.
  const hotDiskBytes = Math.min(config.hotDisk, config.storeLimit > 0 ? config.storeLimit / 2 : Infinity)
  const hotRoom = new HotRoom({ pins, catalog, inventory, isMounted, log }, { diskBytes: hotDiskBytes })
  const keptChunks = new KeptChunks({ own, catalog, pins, inventory, transactions, imports, availability })
  const placements = new Placements(
    {
      own,
      resolver,
      profiles: below.publications.profiles,
      inventory,
      pins,
      hotRoom,
      fetcher: seedFetcher,
      regionFetcher,
      readsFor: async (reference) => await peerImports.readsFor(reference),
      room: roomForPins,
      hotBandwidth: below.bandwidths.bandwidths.hot,
      log,
    },
    {
      isForPeers: config.seedForPeers === 'on',
      takesHot: config.hotImages === 'on',
    },
  )
  const hosts = new RegionHosts({ self: { id: own, name: config.name }, membership, inventory })
  const jobs = new SeedJobs({
    hosts,
    kept,
    pins,
    placements,
    client: network.seeds,
    catalog,
    whenRegionKnown: async (options) => await membership.whenRegionKnown(options),
    log,
  })
  const tags = new MovedTags({
    resolver,
    readsFor: async (reference) => await peerImports.readsFor(reference),
    now: () => performance.now(),
  })
  const hot = new HotImages(
    { hosts, jobs, kept, tags, room: hotRoom, client: network.seeds, log },
    {
      isOn: config.hotImages === 'on',
      limits: { ...hotLimits, settleMs: config.hotDelay * 1000, lookMs: config.hotTagInterval * 1000 },
    },
  )
  return {
    peerImports,
    pins,
    roomForPins,
    kept,
    keptChunks,
    hotRoom,
    hotDiskBytes,
    placements,
    hosts,
    jobs,
    hot,
  }
}
