import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { attest } from '../protocol/attestation.ts'
import type { BlobMap } from '../protocol/blob-map.ts'
import type { ChunkTable } from '../protocol/chunk-table.ts'
import type { Digest } from '../protocol/digest.ts'
import { P2pfsError } from '../protocol/errors.ts'
import { rootfsDigest, type RootfsManifest } from '../protocol/rootfs-manifest.ts'
import { Boot } from './boot/boot.ts'
import { BootProfiles } from './boot/profiles.ts'
import type { Config } from './config.ts'
import type { MountReport, Status } from './control/api.ts'
import { ControlServer, type InheritedSocket } from './control/server.ts'
import type { ChunkRequest, RemoteSource } from './model/chunk-request.ts'
import { Fetcher } from './fetch/fetcher.ts'
import { PeerSource } from './fetch/peer-source.ts'
import { StreamSource } from './fetch/stream-source.ts'
import { RangeSource } from './fetch/range-source.ts'
import { buildRootfs } from './rootfs/rootfs-build.ts'
import { Importer } from './images/importer.ts'
import type { Log } from './base/log.ts'
import type { FuseDriver } from './mount/fuse/driver.ts'
import type { Placement } from './mount/placement/placement.ts'
import { reportMount } from './operations/mount-report.ts'
import type { MountedRootfs } from './mount/mounted-rootfs.ts'
import { Mounts } from './mount/mounts.ts'
import { ImageOperations } from './operations/operations.ts'
import { PeerNetwork } from './peers/network.ts'
import { IndexTrust } from './publish/index-trust.ts'
import { PublishedImages } from './publish/published-images.ts'
import { Publisher } from './publish/publisher.ts'
import { createImageSource, type ImageSource } from './registry/image-source.ts'
import { LayerRanges } from './fetch/layer-ranges.ts'
import { tablesOf } from './model/rootfs-chunks.ts'
import { ImageResolver } from './images/resolver.ts'
import { RunningImports } from './images/running-imports.ts'
import { Stewards } from './images/stewards.ts'
import { collectStatus } from './operations/status.ts'
import { ChunkProvenance } from './store/chunk-provenance.ts'
import { Catalog } from './store/catalog.ts'
import { ChunkStore } from './store/chunk-store.ts'
import { Holdings } from './store/holdings.ts'
import { ImportTransactions } from './store/import-transaction.ts'
import { Verification } from './operations/verify.ts'

/** Where things are below the state directory. */
export function statePaths(
  stateDir: string,
): Record<'chunks' | 'catalog' | 'identity' | 'mountPoint' | 'trees' | 'writable' | 'scratch' | 'templates', string> {
  return {
    chunks: join(stateDir, 'chunks'),
    catalog: join(stateDir, 'catalog'),
    identity: join(stateDir, 'identity.key'),
    /** The FUSE filesystem. */
    mountPoint: join(stateDir, 'mnt'),
    /** Kernel mounts of images, and overlays on them. */
    trees: join(stateDir, 'trees'),
    writable: join(stateDir, 'writable'),
    /** Drives, and what they are copied from. */
    scratch: join(stateDir, 'scratch'),
    templates: join(stateDir, 'templates'),
  }
}

/** What mounts stand on; made by whoever knows how this process got its FUSE descriptor. */
export interface MountBackend {
  driver: FuseDriver
  placement: Placement
}

export interface DaemonParts {
  log: Log
  version: string
  /** The control socket of the supervisor, if there is one. */
  control: InheritedSocket | undefined
  /** Reads of mounts come in through the two functions; `chunkDirectory` is where local chunks are. */
  createBackend: (reads: {
    chunkDirectory: string
    onMiss: (name: string, chunkIndex: number, options: { signal: AbortSignal }) => Promise<Uint8Array>
    onMark: (name: string, chunkIndex: number) => void
  }) => Promise<MountBackend>
}

/** The node of one host: puts all parts together; alone knows all of them. */
export class Daemon {
  readonly #config: Config
  readonly #log: Log
  readonly #version: string
  readonly #startedAt = performance.now()
  readonly #stopping = new AbortController()
  readonly #createBackend: DaemonParts['createBackend']
  readonly #catalog: Catalog
  readonly #store: ChunkStore
  readonly #holdings = new Holdings()
  readonly #arrivals = new ChunkProvenance()
  readonly #imports = new RunningImports()
  readonly #registry: ImageSource
  readonly #exchange: PeerNetwork
  readonly #origins: Importer
  readonly #layers: LayerRanges
  readonly #stream: StreamSource
  readonly #published: PublishedImages
  readonly #fetcher: Fetcher
  readonly #profiles: BootProfiles
  readonly #control: ControlServer
  #backend: MountBackend | undefined
  #mounts: Mounts | undefined

  constructor({ log, version, createBackend, control }: DaemonParts, config: Config) {
    this.#config = config
    this.#log = log
    this.#version = version
    this.#createBackend = createBackend
    const paths = statePaths(config.stateDir)
    const catalog = new Catalog({ directory: paths.catalog })
    const registry = createImageSource({
      insecureRegistries: config.insecureRegistry,
      mirrors: config.registryMirror,
      certificates: { authorityFiles: config.registryCa },
      limits: { connections: config.registryConnections, requestsPerSecond: config.registryRequestsPerSecond },
      userAgent: `p2pfs/${version}`,
      log,
    })
    this.#registry = registry
    const holdings = this.#holdings
    const onLost = (digest: Digest): void => {
      for (const { table, index } of holdings.remove(digest)) exchange.withdraw(table, [index])
    }
    const store = new ChunkStore({ log, onLost }, { directory: paths.chunks })
    const exchange = new PeerNetwork(
      {
        local: {
          chunk: async (digest, { signal }) => await store.getVerified(digest, { signal }),
          image: async (name) => await catalog.image(name),
          rootfs: async (digest) => await catalog.rootfsBytes(digest),
          layer: async (diffId) => await catalog.layerBytes(diffId),
          blobMap: async (digest) => await catalog.blobMapBytes(digest),
          profile: async (subject) => await this.#profiles.nearest(subject),
          tables: () => holdings.tables(),
          importing: (digest) => this.#imports.has(digest),
          import: async (request, options) => await images.importForPeer(request, options),
        },
        log,
      },
      {
        region: config.region,
        name: config.name,
        listen: config.listen,
        bootstrap: config.bootstrap,
        keyFile: paths.identity,
      },
    )
    /** Keeps a chunk and tells the peers. */
    const put = async (digest: Digest, bytes: Uint8Array, source: RemoteSource): Promise<boolean> => {
      const fresh = await store.put(digest, bytes)
      if (fresh) this.#arrivals.note(digest, source)
      for (const { table, index } of holdings.add(digest)) {
        exchange.announceHave(table, [index])
        this.#mounts?.arrived(table, index, source)
      }
      return fresh
    }
    /** The same for what a registry delivers. */
    const keep = async (digest: Digest, bytes: Uint8Array): Promise<void> => void (await put(digest, bytes, 'registry'))
    const isKnown = (digest: Digest): boolean => holdings.knows(digest)
    const ledger = new ImportTransactions({
      put: async (digest, bytes) => await put(digest, bytes, 'registry'),
      discard: async (digest) => await store.discard(digest),
      isKnown,
    })
    const limits = { maxLayerBytes: config.maxLayerSize, maxMetadataBytes: config.maxLayerMetadata }
    const trust = new IndexTrust(
      { own: () => exchange.peerId, members: () => exchange.peers().map(({ peer }) => peer), log },
      { keys: config.trustIndexKey },
    )
    const published = new PublishedImages({
      catalog,
      registry,
      trust,
      ledger,
      onProfile: (bytes) => this.#profiles.addPublished(bytes),
      putBlobMap: async (map) => await layers.putBlobMap(map),
      rootfsOf: async (indexes, manifest) =>
        rootfsDigest(await buildRootfs(indexes, manifest, { put: async () => undefined })),
      rootfs: async (digest) => await catalog.rootfs(digest),
      now: () => performance.now(),
      log,
    })
    const layers: LayerRanges = new LayerRanges({
      catalog,
      registry,
      region: exchange.objects,
      published,
      fetchWindow: async (request, { signal }) =>
        (await this.#fetcher.fetch(request, { signal, priority: 'demand' })).bytes,
      onBlobMap: (map) => this.#knowTable(map.windows),
      log,
    })
    const putBlobMap = async (map: BlobMap): Promise<void> => await layers.putBlobMap(map)
    const origins = new Importer({
      catalog,
      registry,
      region: exchange.objects,
      published,
      trust,
      putBlobMap,
      ledger,
      isKnown,
      onLayerRead: (chunks) => this.#knowTable(chunks, { provisional: true }),
      onLayerRolledBack: (table) => exchange.withdraw(table, holdings.dropProvisional(table)),
      limits,
    })
    const local = { get: async (digest: Digest, options: { signal?: AbortSignal }) => await store.get(digest, options) }
    const stream = new StreamSource({
      streamOf: async (table) => await origins.streamOf(table),
      keep,
      get: local.get,
      signal: this.#stopping.signal,
      log,
    })
    this.#stream = stream
    this.#fetcher = new Fetcher({
      local: { ...local, put: async (digest, bytes, source) => void (await put(digest, bytes, source)) },
      peers: new PeerSource({ peers: exchange, log }),
      registry: new RangeSource({
        seekable: async (table) => await layers.seekable(table),
        stream,
        keep,
        signal: this.#stopping.signal,
        log,
      }),
      log,
    })
    const stewards = new Stewards({
      region: exchange,
      objects: exchange.objects,
      accepts: (peer) => trust.accepts(peer),
      takeLayer: async ({ digest, diffId }, { signal }) => {
        if ((await origins.knownLayer(diffId, signal)) !== undefined) await layers.take(digest, { signal })
      },
      log,
    })
    const images: ImageResolver = new ImageResolver({
      catalog,
      region: exchange.objects,
      registry,
      isWhole: (manifest) => tablesOf(manifest).every(({ id }) => holdings.isWhole(id)),
      published,
      trust,
      attest: async (statement) =>
        await attest(statement, { key: exchange.peerId, sign: async (bytes) => await exchange.sign(bytes) }),
      importImage: async (reference, image, format, options) =>
        await origins.importImage(reference, image, format, options),
      imports: this.#imports,
      stewards,
      onManifest: (manifest) => this.#know(manifest),
      log,
    })
    this.#catalog = catalog
    this.#store = store
    this.#exchange = exchange
    this.#origins = origins
    this.#layers = layers
    const publisher = new Publisher({
      blobMap: async (digest, record) => await layers.blobMap(digest, record),
      layerIndex: async (diffId, { signal }) => await origins.layerIndexBytes(diffId, signal),
      registry,
      fetch: async (request, options) => await this.#fetcher.fetch(request, options),
      own: () => exchange.peerId,
      isUnverified: async (rootfs) => await catalog.isUnverified(rootfs),
      remember: async (publication) => await published.remember(publication),
      log,
    })
    this.#published = published
    const verification = new Verification({
      catalog,
      registry,
      region: exchange.objects,
      own: () => exchange.peerId,
      trust,
      limits,
    })
    this.#profiles = new BootProfiles({ catalog, region: exchange.objects, log })
    const operations = new ImageOperations(
      {
        catalog,
        store,
        holdings,
        fetcher: this.#fetcher,
        images,
        origins,
        published,
        publisher,
        profiles: this.#profiles,
        verification,
        mounts: () => this.#mounts,
        report: (digest, manifest) => this.#report(digest, manifest),
        status: async () => await this.#status(),
        log,
      },
      config,
    )
    this.#control = new ControlServer({ operations, log }, { socket: config.control, inherited: control })
  }

  /**
   * Opens the state, takes up the mounts that stand, serves them, then meets the region, then takes requests.
   * @throws conflict where the state is in use; invalid for addresses that cannot be listened on
   */
  async start(): Promise<void> {
    try {
      await this.#open()
    } catch (error) {
      await this.#backend?.driver.stop()
      throw error
    }
  }

  async #open(): Promise<void> {
    await this.#registry.start()
    await mkdir(this.#config.stateDir, { recursive: true, mode: 0o700 })
    await this.#catalog.open()
    await this.#store.open()
    for (const digest of await this.#catalog.rootfsDigests()) {
      const manifest = await this.#catalog.rootfs(digest)
      if (manifest !== undefined) this.#know(manifest)
    }
    this.#backend = await this.#createBackend({
      chunkDirectory: this.#store.directory,
      onMiss: async (name, index, options) => await this.#miss(name, index, options),
      onMark: (name, index) => this.#mounts?.image(name)?.reached(index),
    })
    this.#mounts = new Mounts({
      catalog: this.#catalog,
      ...this.#backend,
      has: (digest) => this.#store.has(digest),
      sourceOf: (digest) => this.#arrivals.sourceOf(digest),
      fetch: async (request, options) => await this.#fetcher.fetch(request, options),
      readDeadlineMs: this.#config.readDeadline * 1000,
      createBoot: (mounted) => (this.#config.bootProfiles === 'on' ? this.#boot(mounted) : undefined),
      log: this.#log,
    })
    await this.#mounts.restore()
    await this.#exchange.start()
    // Last: a read that misses finds everything in place.
    await this.#backend.driver.start()
    await this.#control.start()
    this.#profiles.open().catch((error: unknown) => this.#log.warn('boot profiles cannot be read', { error }))
    this.#knowMore().catch((error: unknown) =>
      this.#log.warn('layers of no image, and windows, are not announced to peers', { error }),
    )
    this.#log.info('daemon ready', {
      peer: this.#exchange.peerId,
      region: this.#config.region,
      addresses: this.#exchange.multiaddrs(),
      chunks: this.#store.count,
      mounts: this.#mounts.list().length,
      control: this.#config.control,
    })
  }

  /** Stops in the reverse order of {@link start}; mounts stay, for the next daemon. */
  async stop(): Promise<void> {
    await this.#control.stop()
    this.#stopping.abort(new P2pfsError('closed', 'the daemon is stopping'))
    await this.#mounts?.close()
    await this.#backend?.driver.stop()
    await this.#exchange.stop()
    await this.#fetcher.settled()
    await this.#registry.close()
    await this.#catalog.close()
    this.#log.info('daemon stopped')
  }

  #boot(mounted: MountedRootfs): Boot {
    const isHeld = ({ table, index }: ChunkRequest): boolean => this.#exchange.holders(table, index).length > 0
    return new Boot({ profiles: this.#profiles, isHeld, log: this.#log }, mounted)
  }

  #know(manifest: RootfsManifest): void {
    for (const table of tablesOf(manifest)) this.#knowTable(table)
  }

  /** Peers may ask for windows, and for layers of imports that have not ended; not waited for, as it reads every map. */
  async #knowMore(): Promise<void> {
    const known = new Set<Digest>()
    for (const digest of await this.#catalog.rootfsDigests()) {
      for (const { diffId } of (await this.#catalog.rootfs(digest))?.layers ?? []) known.add(diffId)
    }
    for (const diffId of await this.#catalog.layerDiffIds()) {
      const index = known.has(diffId) ? undefined : await this.#catalog.layer(diffId)
      if (index !== undefined) this.#knowTable(index.chunks, { provisional: true })
    }
    for (const digest of await this.#catalog.blobMapDigests()) {
      const map = await this.#catalog.blobMap(digest)
      if (map !== undefined) this.#knowTable(map.windows)
    }
  }

  #knowTable(table: ChunkTable, { provisional = false }: { provisional?: boolean } = {}): void {
    const held = this.#holdings.addTable(table, (digest) => this.#store.has(digest), { provisional })
    if (held !== undefined) this.#exchange.announce(table.id, held)
  }

  async #miss(name: string, chunkIndex: number, { signal }: { signal: AbortSignal }): Promise<Uint8Array> {
    const mounted = this.#mounts?.image(name)
    if (mounted === undefined) throw new P2pfsError('closed', 'read of a rootfs that is not mounted')
    return await mounted.miss(chunkIndex, { signal })
  }

  #report(digest: Digest, manifest: RootfsManifest): MountReport {
    const parts = {
      mounts: this.#mounts!,
      holdings: this.#holdings,
      isStreamed: (table: Digest) => this.#stream.streamed.has(table),
      isAlone: () => this.#exchange.isAlone(),
    }
    return reportMount(digest, manifest, parts)
  }

  async #status(): Promise<Status> {
    return await collectStatus({
      version: this.#version,
      uptimeMs: performance.now() - this.#startedAt,
      config: this.#config,
      catalog: this.#catalog,
      holdings: this.#holdings,
      exchange: this.#exchange,
      imports: this.#imports,
      mounts: this.#mounts?.list() ?? [],
      report: (digest, manifest) => this.#report(digest, manifest),
      fetched: {
        peer: this.#fetcher.fromPeers,
        registry: [this.#origins.fromRegistry, this.#layers.chunks, this.#published.chunks],
      },
      counters: {
        chunks: this.#store.count,
        served: this.#backend!.driver.counters().served,
        readAtRandom: this.#layers.read,
      },
    })
  }
}
