import type { Digest } from '../protocol/digest.ts'
import { P2pfsError } from '../protocol/errors.ts'
import { AwaitedReads } from './base/awaited-reads.ts'
import { Bandwidth } from './base/bandwidth.ts'
import type { Log } from './base/log.ts'
import { parseListenAddress } from './base/listen-address.ts'
import { EventLoopDelay } from './base/event-loop-delay.ts'
import { changeableAncestor, makeFilePrivate, makePrivateDirectory } from './base/private-directory.ts'
import { parseKeepFree } from './base/keep-free.ts'
import { Boots } from './boot/boots.ts'
import { BootProfiles } from './boot/profiles.ts'
import { isDiskFull } from './base/disk-full.ts'
import { systemError } from './base/system-error.ts'
import type { Config } from './config.ts'
import { ControlServer, type InheritedSocket } from './control/server.ts'
import { Eviction } from './disk/eviction.ts'
import { ImageUses } from './disk/image-uses.ts'
import { KeptChunks } from './disk/kept-chunks.ts'
import { primeScores } from './disk/prime-scores.ts'
import { Sweep } from './disk/sweep.ts'
import { ChunkRelays } from './fetch/chunk-relays.ts'
import { Fetcher } from './fetch/fetcher.ts'
import { LimitedFetcher } from './fetch/limited-fetcher.ts'
import { PeerSource } from './fetch/peer-source.ts'
import { RangeSource } from './fetch/range-source.ts'
import type { ChunkSource } from './fetch/source.ts'
import { StreamSource } from './fetch/stream-source.ts'
import { HotImages } from './hot/hot-images.ts'
import { hotLimits } from './hot/hot-limits.ts'
import { MovedTags } from './hot/moved-tags.ts'
import { BackgroundVerifier } from './images/background-verifier.ts'
import { FalseStatements } from './images/false-statements.ts'
import { Importer } from './images/importer.ts'
import { PeerImports, type PeerImportPolicy } from './images/peer-imports.ts'
import { LayerRebuild } from './images/layer-rebuild.ts'
import { RawImporter } from './images/raw-importer.ts'
import { ImageResolver, type MountPolicy } from './images/resolver.ts'
import { RunningImports } from './images/running-imports.ts'
import { Stewards } from './images/stewards.ts'
import { LayerIndexes } from './layers/layer-indexes.ts'
import { LayerRanges } from './layers/layer-ranges.ts'
import { LayerReader } from './layers/layer-reader.ts'
import { LayerTransactions } from './layers/layer-transactions.ts'
import { RegionAnswers } from './layers/region-answers.ts'
import { SegmentStreams } from './layers/segment-streams.ts'
import { WholeReads } from './layers/whole-reads.ts'
import type { FuseDriver } from './mount/fuse/driver.ts'
import { Mounts } from './mount/mounts.ts'
import { NativeBuilder } from './mount/native/native-builder.ts'
import type { NativeImages } from './mount/native/native-images.ts'
import type { Placement } from './mount/placement/placement.ts'
import { ByteHistory, byteTotals, type ByteTotals } from './metrics/byte-history.ts'
import { figuresOf, Metrics } from './metrics/metrics.ts'
import { PageView } from './metrics/page-view.ts'
import type { Replacements } from './metrics/host-figures.ts'
import { MetricsListener } from './metrics/listener.ts'
import { ProbeAnswers } from './metrics/probe-answers.ts'
import { Readiness } from './metrics/readiness.ts'
import { StatusPage } from './metrics/status-page.ts'
import { TimedMounts } from './metrics/timed-mounts.ts'
import { neighbourOptions } from './neighbours/neighbour-options.ts'
import { NeighbourObjects } from './neighbours/neighbour-objects.ts'
import { NeighbourRegion } from './neighbours/neighbour-region.ts'
import { NeighboursFirst } from './neighbours/neighbours-first.ts'
import { DoctorOperation } from './operations/doctor.ts'
import { ExportOperation } from './operations/export.ts'
import { GcOperation } from './operations/gc.ts'
import { RemoveImageOperation } from './operations/image-removal.ts'
import { ImageRequests } from './operations/image-request.ts'
import { ListImagesOperation } from './operations/images.ts'
import { ImportOperation } from './operations/import.ts'
import { InspectOperation } from './operations/inspect.ts'
import { LimitsOperation } from './operations/limits.ts'
import { MountReports } from './operations/mount-report.ts'
import { ListMountsOperation } from './operations/list-mounts.ts'
import { MountOperation, ResetOperation, UmountOperation } from './operations/mount.ts'
import { PinOperation, UnpinOperation } from './operations/pin.ts'
import { PushOperation } from './operations/push.ts'
import { RootfsSeeder } from './operations/rootfs-seeder.ts'
import { CancelSeedOperation, ListSeedsOperation, PlaceSeedOperation } from './operations/seed-job.ts'
import { SeedOperation } from './operations/seed.ts'
import { StatusOperation } from './operations/status.ts'
import { VerifyOperation } from './operations/verify.ts'
import type { ChunkFiles } from './peers/bulk/chunk-files.ts'
import { SharedBlobs } from './peers/object/shared-blobs.ts'
import { PeerNetwork } from './peers/network.ts'
import type { ServedData } from './peers/served-data.ts'
import { IndexTrust } from './publish/index-trust.ts'
import { Lies } from './publish/lies.ts'
import { PublishedImages } from './publish/published-images.ts'
import { Publisher } from './publish/publisher.ts'
import { RawPusher } from './publish/raw-pusher.ts'
import { DockerCredentials } from './registry/credentials.ts'
import { HeldCallers } from './registry/held-callers.ts'
import { RegistryTraffic } from './registry/registry-traffic.ts'
import { createImageSource } from './registry/image-source.ts'
import { HotRoom } from './seeds/hot-room.ts'
import { KeptJobs } from './seeds/kept-jobs.ts'
import { Pins } from './seeds/pins.ts'
import { Placements } from './seeds/placements.ts'
import { RegionHosts } from './seeds/region-hosts.ts'
import { SeedJobs } from './seeds/seed-jobs.ts'
import { statePaths } from './state-directory.ts'
import { AnnouncedObjects } from './store/announced-objects.ts'
import { BlobMaps } from './store/blob-maps.ts'
import { Catalog } from './store/catalog.ts'
import { ChunkStore } from './store/chunk-store.ts'
import { DiskReserve } from './store/disk-reserve.ts'
import { roomOf, type Room } from './store/disk-room.ts'
import { ImportTransactions } from './store/import-transaction.ts'
import { Inventory } from './store/inventory.ts'
import { PowerLossCheck } from './store/power-loss-check.ts'
import { Scrubber } from './store/scrubber.ts'
import { StoreRoom } from './store/store-room.ts'
import { TrackedCatalog } from './store/tracked-catalog.ts'
import { UseScores } from './store/use-scores.ts'

/** Sees to it that only this user gets to what is in the state directory, whatever stood there before. @throws invalid */
async function closeToOthers(stateDir: string, log: Log): Promise<void> {
  const { chunks, catalog, trees, native, writable, scratch, drives, templates, identity } = statePaths(stateDir)
  for (const directory of [chunks, catalog, trees, native, writable, scratch, drives, templates]) {
    const { formerMode } = await makePrivateDirectory(directory).catch((error: unknown) => {
      // It is made when there is room for something in it.
      if (isDiskFull(error)) return { formerMode: undefined }
      throw systemError(`cannot use the state directory ${stateDir}`, error)
    })
    if (formerMode !== undefined)
      log.warn('directory was open to other users; it is closed', { directory, mode: formerMode.toString(8) })
  }
  const { formerMode } = await makeFilePrivate(identity)
  if (formerMode !== undefined)
    log.warn('private key of this host was open to other users, who may have it; remove it to get a new one', {
      file: identity,
      mode: formerMode.toString(8),
    })
  const above = await changeableAncestor(stateDir)
  if (above !== undefined)
    log.warn('other users can put another directory in the place of the state directory', { stateDir, above })
}

/** The mounting that this process can do, which depends on how it got its FUSE descriptor. */
export interface MountBackend {
  driver: FuseDriver
  placement: Placement
  /** Images that the kernel reads without the daemon; undefined where this process cannot mount. */
  natives: NativeImages | undefined
}

export interface DaemonParts {
  log: Log
  version: string
  /**
   * @param options `chunkDirectory`: where the driver finds the chunks of this host; `suspect`: a chunk's file may be damaged;
   * `storeRoom`: what files may take on the disk
   */
  openMountBackend: (options: {
    chunkDirectory: string
    suspect: (chunk: Digest) => Promise<void>
    storeRoom: StoreRoom
  }) => MountBackend
  /** The control socket of the supervisor, if there is one. */
  control: InheritedSocket | undefined
  replacements: Replacements
}

/**
 * Rate at which the store is read and hashed in the background (bytes a second): less than two hundredths of a core, and
 * a fiftieth of a disk of 200 MB/s.
 */
const scrubBytesPerSecond = 4 * 1024 * 1024

/**
 * Starts the node of one host; this function alone knows all parts. It opens them in the order in which they depend on each
 * other, so each has all it needs when it is constructed. Then it starts what is served: mounts, peers, the control socket.
 * @returns stops the daemon when it is disposed of, in reverse order; mounts stay, for the next daemon
 * @throws conflict where the state is in use; invalid for addresses that cannot be listened on
 */
export async function startDaemon(
  { log, version, openMountBackend, control: inherited, replacements }: DaemonParts,
  config: Config,
): Promise<AsyncDisposable> {
  await using stack = new AsyncDisposableStack()
  const paths = statePaths(config.stateDir)
  await closeToOthers(config.stateDir, log)
  const stopping = new AbortController()
  const { signal } = stopping

  // The host's own state, and those it can ask.
  const reserve = stack.use(await DiskReserve.open({ log }, { path: paths.reserve }))
  const catalog = stack.use(await Catalog.open({ reserve, log }, { directory: paths.catalog }))
  const storeRoom = stack.use(
    new StoreRoom(
      { disk: async () => await roomOf(paths.chunks), log },
      {
        ...(config.storeLimit > 0 && { limitBytes: config.storeLimit }),
        keepFree: parseKeepFree(config.storeKeepFree),
      },
    ),
  )
  const useScores = new UseScores({ capacityBytes: () => storeRoom.limitBytes })
  const storeParts = { reserve, room: storeRoom, uses: useScores, log }
  const chunks = stack.use(await ChunkStore.open(storeParts, { directory: paths.chunks }))
  await storeRoom.start()
  const uses = new ImageUses({ catalog, log })
  await uses.open()
  const bandwidths = {
    upload: new Bandwidth(),
    download: new Bandwidth(),
    registry: new Bandwidth(),
    seed: new Bandwidth(),
    neighbour: new Bandwidth(),
    guest: new Bandwidth(),
    hot: new Bandwidth(),
  }
  const bandwidthLimits = stack.use(
    new LimitsOperation(
      { bandwidths, file: paths.limits, log },
      {
        upload: config.uploadLimit,
        download: config.downloadLimit,
        registry: config.registryLimit,
        seed: config.seedLimit,
        neighbour: config.neighbourBandwidth,
        guest: config.neighbourBandwidth,
        hot: config.hotBandwidth,
      },
    ),
  )
  await bandwidthLimits.start()
  const registryOptions = {
    credentials: new DockerCredentials({ log }),
    insecureRegistries: config.insecureRegistry,
    mirrors: config.registryMirror,
    hostsDirectories: config.registryHostsDir,
    certificates: { authorityFiles: config.registryCa },
    bandwidths: [bandwidths.registry, bandwidths.download],
    limits: { connections: config.registryConnections, requestsPerSecond: config.registryRequestsPerSecond },
    userAgent: `p2pfs/${version}`,
    log,
  }
  const registries = { host: new RegistryTraffic(), members: new RegistryTraffic() }
  // Not for what peers ask for: they get nothing with the credentials of callers.
  const callers = new HeldCallers()
  const registry = stack.use(createImageSource({ ...registryOptions, callers, traffic: registries.host }))
  await registry.start()
  // Of its own, with its own connections, tokens and pauses: what peers ask for does not hold up this host's reads.
  const registryForPeers = stack.use(
    createImageSource({
      ...registryOptions,
      traffic: registries.members,
      limits: {
        connections: Math.ceil(config.registryConnections / 2),
        requestsPerSecond: Math.ceil(config.registryRequestsPerSecond / 2),
      },
      forOthers: { named: config.peerRegistry },
      // What goes wrong there is in terms of what a peer asks for.
      log: { ...log, warn: log.debug, info: log.debug },
    }),
  )
  await registryForPeers.start()
  const network = await PeerNetwork.open(
    { log, upload: bandwidths.upload, download: bandwidths.download, guestBandwidth: bandwidths.guest },
    {
      region: config.region,
      name: config.name,
      listen: config.listen,
      bootstrap: config.bootstrap,
      ...(config.fullMesh > 0 && { fullMesh: config.fullMesh }),
      identityFile: paths.identity,
      regionKeyFile: config.regionKeyFile || undefined,
      memberFile: config.regionMembers || undefined,
      guestKeyFile: config.guestKeyFile || undefined,
      bulk:
        config.bulk === 'off'
          ? undefined
          : { mode: config.bulk === 'plain' ? 'plain' : 'tls', listen: config.bulkListen || undefined },
    },
  )
  const { membership, availability, objects } = network
  const neighbours: NeighbourRegion[] = []
  for (const { region, bootstrap, keyFile } of neighbourOptions(config)) {
    const { region: ownRegion, name } = config
    const options = { region, bootstrap, keyFile, identityFile: paths.identity, own: { region: ownRegion, name } }
    neighbours.push(stack.use(await NeighbourRegion.open({ log, bandwidth: bandwidths.neighbour }, options)))
  }
  const near = new NeighbourObjects({ neighbours, region: objects, bandwidth: bandwidths.neighbour })
  const inventory = new Inventory({ chunks, region: availability })
  const announced = new AnnouncedObjects({ catalog, region: network.location })
  const blobMaps = new BlobMaps({ catalog, inventory })
  const transactions = new ImportTransactions({ inventory })

  // Trust, publications, and the ways to read a layer.
  const readDeadlineMs = config.readDeadline * 1000
  const limits = { maxLayerBytes: config.maxLayerSize, maxMetadataBytes: config.maxLayerMetadata }
  const own = network.peerId
  const lies = await Lies.open({ catalog })
  const trust = new IndexTrust({ own, membership, lies, log }, { keys: config.trustIndexKey })
  const profiles = new BootProfiles({ catalog, region: near, log })
  const blobs = new SharedBlobs({ spans: network.spans, region: objects, log })
  const published = new PublishedImages({
    catalog,
    registry,
    blobs,
    trust,
    transactions,
    blobMaps,
    profiles,
    near,
    log,
  })
  const answers = new RegionAnswers({ region: objects, membership, log })
  const wholeReads = new WholeReads()
  const indexes = new LayerIndexes({ catalog, region: objects, answers, trust })
  const reads = new AwaitedReads()
  const reader = new LayerReader({ registry, indexes, blobMaps, inventory, limits, reads })
  const layerTransactions = new LayerTransactions({ catalog, transactions, inventory })
  const ranges = new LayerRanges({ catalog, blobMaps, registry, answers, published, log }, { readDeadlineMs })
  const streams = new SegmentStreams({
    catalog,
    reader,
    indexes,
    transactions: layerTransactions,
    published,
    wholeReads,
    inventory,
  })

  // The sources of chunks.
  const { download } = bandwidths
  const { spans } = network
  const peers = new PeerSource({ availability, chunks: network.chunks, bulk: network.bulk, spans, download, log })
  const stream = new StreamSource({ streams, inventory, signal, log })
  const range = new RangeSource({ layers: ranges, stream, wholeReads, inventory, signal, log })
  const neighboursFirst = new NeighboursFirst({ neighbours, registry: range, bandwidth: bandwidths.neighbour })
  const fetcher = new Fetcher({
    inventory,
    peers,
    registry: neighbours.length > 0 ? neighboursFirst : range,
    log,
    reads,
  })
  const relays = new ChunkRelays({ inventory, fetcher, spans: network.spans })
  stack.defer(async () => await fetcher.settled())

  // Images, and their imports.
  const importer = new Importer({ registry, reader, indexes, transactions: layerTransactions, published, limits })
  const rawImporter = new RawImporter({ transactions, inventory })
  const imports = new RunningImports({ location: network.location })
  const stewards = new Stewards({
    peerId: own,
    membership,
    imports: network.imports,
    objects,
    trust,
    indexes,
    ranges,
    fetcher,
    log,
  })
  const rebuild = new LayerRebuild({ registry, limits })
  const falseStatements = new FalseStatements({ own, catalog, lies, membership, log })
  const signer = { key: own, sign: async (bytes: Uint8Array) => await network.sign(bytes) }
  const verifier = new BackgroundVerifier(
    { catalog, registry, rebuild, trust, lies: falseStatements, membership, signer, log },
    { enabled: config.verifyBelieved === 'on' },
  )
  const resolver = new ImageResolver(
    {
      catalog,
      region: objects,
      registry,
      published,
      trust,
      verifier,
      lies: falseStatements,
      identity: network,
      importer,
      imports,
      stewards,
      inventory,
      log,
    },
    { resolveBudgetMs: config.resolveBudget * 1000, tagMaxAgeMs: config.tagMaxAge * 1000 },
  )
  const peerImports = new PeerImports(
    {
      catalog,
      registry: registryForPeers,
      reader: reader.from(registryForPeers),
      resolver,
      imports,
      room: async () => await roomForPins(),
      log,
    },
    { policy: config.importForPeers as PeerImportPolicy },
  )

  // Seeds: what the region is to hold ahead of need.
  const pins = new Pins({ own, catalog })
  const kept = new KeptJobs({ own, catalog, today: Date.now })
  await pins.open()
  await kept.open()
  const noRegistry: ChunkSource = {
    fetch: async () => await Promise.reject(new P2pfsError('missing', 'members are not read for from this registry')),
  }
  const seedFetcher = new LimitedFetcher({ fetcher, inventory, bandwidth: bandwidths.seed })
  const isMounted = (rootfs: Digest): boolean =>
    mounts.rootfs(rootfs) !== undefined || mounts.list().some(({ rootfsDigest }) => rootfsDigest === rootfs)
  // Half of what the store may take is for what this host itself reads.
  const hotDiskBytes = Math.min(config.hotDisk, config.storeLimit > 0 ? config.storeLimit / 2 : Infinity)
  const hotRoom = new HotRoom({ pins, catalog, inventory, isMounted, log }, { diskBytes: hotDiskBytes })
  const roomForPins = async (): Promise<Room> => await storeRoom.forPins(pins.pinnedBytes)
  const keptChunks = new KeptChunks({ own, catalog, pins, inventory, transactions, imports, availability })
  const placements = new Placements(
    {
      own,
      resolver,
      profiles,
      inventory,
      pins,
      hotRoom,
      fetcher: seedFetcher,
      regionFetcher: new LimitedFetcher({
        fetcher: new Fetcher({ inventory, peers, registry: noRegistry, log, reads }),
        inventory,
        bandwidth: bandwidths.seed,
      }),
      readsFor: async (reference) => await peerImports.readsFor(reference),
      room: roomForPins,
      hotBandwidth: bandwidths.hot,
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

  // Mounts, and what users ask for.
  const suspect = async (chunk: Digest): Promise<void> => {
    // Reading it finds out, and withdraws it.
    await inventory.get(chunk)
  }
  const { driver, placement, natives } = openMountBackend({ chunkDirectory: inventory.directory, suspect, storeRoom })
  const boots = new Boots({ profiles, availability, log }, { enabled: config.bootProfiles === 'on' })
  const noteUse = (rootfs: Digest): void => uses.note(rootfs)
  const mounts = new Mounts({ catalog, driver, placement, fetcher, inventory, boots, noteUse, log }, { readDeadlineMs })
  const nativeBuilder = natives && stack.use(new NativeBuilder({ images: natives, inventory, catalog, mounts, log }))
  const eviction = stack.use(
    new Eviction({
      chunks,
      inventory,
      room: storeRoom,
      uses: useScores,
      kept: keptChunks,
      reads: mounts,
      prime: async () => await primeScores({ uses, catalog, chunks }),
      ...(nativeBuilder && { removeCopy: async () => await nativeBuilder.removeUnused() }),
      log,
    }),
  )
  const sweep = new Sweep({ catalog, chunks, inventory, mounts, pins, kept: keptChunks, uses })
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
  const loopDelay = stack.use(new EventLoopDelay())
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
    loopDelay,
    seeder,
    pins,
    hot,
    hotRoom,
    storeRoom,
  }
  const status = new StatusOperation(shown, {
    version,
    name: config.name,
    region: config.region,
    hotDiskBytes,
    isHotOn: config.hotImages === 'on',
  })
  const listSeeds = new ListSeedsOperation({ jobs })
  const room = async (): Promise<Room> => await roomOf(paths.chunks)
  const figures = figuresOf({ ...shown, version, replacements, timedMounts, wholeReads, registries, room })
  const readiness = new Readiness()
  const probes = new ProbeAnswers({ metrics: new Metrics(figures), readiness })
  if (config.metricsListen !== '') {
    const totals = (): ByteTotals => byteTotals(shown)
    const history = stack.use(new ByteHistory({ totals }))
    history.start()
    const view = new PageView({ status, seeds: listSeeds, network, catalog, history, readiness, room })
    const answers = [probes, new StatusPage({ view }, { signal })]
    await stack.use(new MetricsListener({ answers, log }, parseListenAddress(config.metricsListen))).start()
  }
  const control = new ControlServer(
    {
      operations: {
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
      },
      plain: probes,
      log,
    },
    { socket: config.control, inherited, group: config.controlGroup },
  )

  // Mounts of the daemon before, then everything that is served. Reads are served last: a miss finds everything in place.
  const tracked = new TrackedCatalog({ catalog, inventory })
  await tracked.trackRootfs()
  await mounts.restore()
  stack.use(network)
  const served: ServedData = {
    chunk: async (digest) => await inventory.get(digest),
    relayedChunk: async (digest, options) => await relays.chunk(digest, options),
    holders: (digest) => {
      const request = inventory.requestOf(digest)
      return request === undefined ? [] : availability.holders(request.table, request.index)
    },
    imageRecord: async (name) => await catalog.image(name),
    rootfsManifest: async (digest) => await catalog.rootfsBytes(digest),
    layerIndex: async (diffId) => await catalog.layerBytes(diffId),
    sharedBlob: (digest) => blobs.find(digest),
    blobMap: async (digest) => await catalog.blobMapBytes(digest),
    bootProfile: async (subject) => await profiles.nearest(subject),
    isImporting: (manifestDigest) => imports.has(manifestDigest),
    importedImage: async (request, options) => await peerImports.importFor(request, options),
    seeds: {
      placed: async (request, options) => await placements.place(request, options),
      keptJob: async (job, peer) => await jobs.keptJob(job, peer),
      released: async (job, peer) => await pins.release(job, peer),
      mounted: (images, source) => hot.told(images, source),
      jobs: () => kept.list(),
    },
  }
  const files: ChunkFiles = {
    writing: inventory.writing,
    get isFull() {
      return chunks.isFull
    },
    adopt: async (chunks) => await inventory.adopt(chunks, 'peer'),
    failed: (error) => void chunks.failedToWrite(error),
    suspect: (digest) => void suspect(digest).catch(() => undefined),
  }
  await network.start(served, files)
  stack.defer(async () => await driver.stop())
  stack.defer(async () => await mounts.close())
  await mounts.serve()
  stack.defer(() => stopping.abort(new P2pfsError('closed', 'the daemon is stopping')))
  const powerLossCheck = stack.use(new PowerLossCheck({ inventory, log }))
  powerLossCheck.start()
  const scrubber = stack.use(new Scrubber({ inventory, log }, { bytesPerSecond: scrubBytesPerSecond }))
  scrubber.start()
  nativeBuilder?.start()
  stack.use(verifier)
  verifier.start()
  stack.use(jobs)
  jobs.start()
  stack.use(hot)
  hot.start()
  stack.defer(async () => await control.stop())
  await control.start()
  readiness.begin()
  stack.defer(() => readiness.end())
  profiles.open().catch((error: unknown) => log.warn('boot profiles cannot be read', { error }))
  announced.start({ onError: (error) => log.warn('records of this host are not offered to peers', { error }) })
  eviction.start()
  tracked
    .trackLayers()
    .then(() => keptChunks.layersTracked())
    .catch((error: unknown) => log.warn('layers of unfinished imports and windows are not offered to peers', { error }))
  log.info('daemon ready', {
    peer: own,
    region: config.region,
    addresses: network.multiaddrs(),
    chunks: inventory.count,
    mounts: mounts.list().length,
    control: config.control,
  })
  const running = stack.move()
  return {
    [Symbol.asyncDispose]: async () => {
      await running.disposeAsync()
      log.info('daemon stopped')
    },
  }
}
