import { EventLoopDelay } from '../base/event-loop-delay.ts'
import type { Operations } from '../control/operations.ts'
import type { MountPolicy } from '../images/resolver.ts'
import type { FiguresParts } from '../metrics/metrics.ts'
import { TimedMounts } from '../metrics/timed-mounts.ts'
import { DoctorOperation } from '../operations/doctor.ts'
import { ExportOperation } from '../operations/export.ts'
import { GcOperation } from '../operations/gc.ts'
import { RemoveImageOperation } from '../operations/image-removal.ts'
import { ImageRequests } from '../operations/image-request.ts'
import { ListImagesOperation } from '../operations/images.ts'
import { ImportOperation } from '../operations/import.ts'
import { InspectOperation } from '../operations/inspect.ts'
import { ListMountsOperation } from '../operations/list-mounts.ts'
import { MountReports } from '../operations/mount-report.ts'
import { MountOperation, ResetOperation, UmountOperation } from '../operations/mount.ts'
import { PinOperation, UnpinOperation } from '../operations/pin.ts'
import { PushOperation } from '../operations/push.ts'
import { RootfsSeeder } from '../operations/rootfs-seeder.ts'
import { CancelSeedOperation, ListSeedsOperation, PlaceSeedOperation } from '../operations/seed-job.ts'
import { SeedOperation } from '../operations/seed.ts'
import { StatusOperation, type StatusParts } from '../operations/status.ts'
import { VerifyOperation } from '../operations/verify.ts'
import { Publisher } from '../publish/publisher.ts'
import { RawPusher } from '../publish/raw-pusher.ts'
import type { BandwidthParts } from './bandwidths.ts'
import type { DaemonContext } from './context.ts'
import type { DataParts } from './data.ts'
import type { ImageParts } from './images.ts'
import type { MountParts } from './mounting.ts'
import type { RegionWorkParts } from './region-work.ts'
import type { UpkeepParts } from './upkeep.ts'

export interface OperationParts {
  operations: Operations
  /** The parts whose figures are shown: by `status`, by the status page, and to Prometheus. */
  shown: StatusParts & Omit<FiguresParts, 'version' | 'replacements' | 'room'>
  status: StatusOperation
  listSeeds: ListSeedsOperation
}

interface Below extends DataParts {
  bandwidths: BandwidthParts
  images: ImageParts
  mounting: MountParts
  work: RegionWorkParts
  upkeep: UpkeepParts
}

/** Makes what users can ask for. */
export function openOperations({ config, log, version, stack }: DaemonContext, below: Below): OperationParts {
  const { reserve, catalog, storeRoom, chunks, uses } = below.storage
  const { bandwidthLimits } = below.bandwidths
  const { callers, registry, registries } = below.registries
  const { network, neighbours } = below.region
  const { membership, objects, peerId: own } = network
  const { inventory, blobMaps } = below.holdings
  const { lies, trust, profiles, published } = below.publications
  const { indexes, reader, ranges, streams, wholeReads } = below.layers
  const { fetcher, seedFetcher, neighboursFirst } = below.sources
  const { resolver, importer, rawImporter, imports, rebuild, verifier } = below.images
  const { driver, natives, mounts, noteUse } = below.mounting
  const { pins, roomForPins, keptChunks, hosts, jobs, hot, hotRoom, hotDiskBytes } = below.work
  const { eviction, sweep } = below.upkeep

  const requests = new ImageRequests({ platform: config.platform })
  const reports = new MountReports({ mounts, inventory, wholeReads, membership })
  const seeder = new RootfsSeeder({
    inventory,
    fetcher: seedFetcher,
    pins,
    kept: keptChunks,
    room: roomForPins,
    noteUse,
    log,
  })
  const publisher = new Publisher({ ranges, indexes, registry, fetcher, published, log })
  const mount = new MountOperation(
    { stateDir: config.stateDir, requests, resolver, callers, mounts, reserve, reports, hot, log },
    { pull: config.pull as MountPolicy },
  )
  const timedMounts = new TimedMounts({ mount })
  const shown = {
    catalog,
    inventory,
    network,
    limits: bandwidthLimits,
    neighbours,
    neighboursFirst,
    imports,
    mounts,
    natives,
    driver,
    reports,
    fetcher,
    reader,
    importer,
    ranges,
    streams,
    published,
    trust,
    lies,
    verifier,
    loopDelay: stack.use(new EventLoopDelay()),
    seeder,
    pins,
    hot,
    hotRoom,
    storeRoom,
    timedMounts,
    wholeReads,
    registries,
  }
  const status = new StatusOperation(shown, {
    version,
    name: config.name,
    region: config.region,
    hotDiskBytes,
    isHotOn: config.hotImages === 'on',
  })
  const listSeeds = new ListSeedsOperation({ jobs })
  const operations = {
    status,
    seed: new SeedOperation({ requests, resolver, callers, seeder, profiles, publisher, hot, log }),
    placeSeed: new PlaceSeedOperation({ requests, resolver, callers, membership, hosts, jobs }),
    listSeeds,
    cancelSeed: new CancelSeedOperation({ jobs }),
    limits: bandwidthLimits,
    changeLimits: bandwidthLimits,
    listMounts: new ListMountsOperation({ catalog, mounts, reports, lies }),
    mount: timedMounts,
    umount: new UmountOperation({ mounts, callers, log }),
    reset: new ResetOperation({ mounts, reserve, log }),
    import: new ImportOperation({ requests, importer, rawImporter, resolver, seeder, inventory, kept: keptChunks }),
    push: new PushOperation({
      requests,
      resolver,
      pusher: new RawPusher({ registry, fetcher, blobMaps }),
      publisher,
      log,
    }),
    export: new ExportOperation({ requests, resolver, fetcher }),
    inspect: new InspectOperation({ requests, resolver, region: objects, trust, published, catalog, inventory }),
    doctor: new DoctorOperation(
      { requests, registry, network },
      { config, stateDir: config.stateDir, hasBootstrap: config.bootstrap.length > 0 },
    ),
    verify: new VerifyOperation({ requests, catalog, registry, rebuild, region: objects, own, trust, log }),
    listImages: new ListImagesOperation({ own, catalog, inventory, mounts, pins, uses }),
    removeImage: new RemoveImageOperation({ catalog, mounts, pins, sweep, inventory, log }),
    pin: new PinOperation({ own, catalog, pins, inventory, room: roomForPins, log }),
    unpin: new UnpinOperation({ catalog, pins, log }),
    gc: new GcOperation({ sweep, eviction, chunks, inventory, room: storeRoom }),
  }
  return { operations, shown, status, listSeeds }
}
