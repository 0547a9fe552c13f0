import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { ChunkTable } from '../protocol/chunk-table.ts'
import type { Digest } from '../protocol/digest.ts'
import { P2pfsError } from '../protocol/errors.ts'
import type { RootfsManifest } from '../protocol/rootfs-manifest.ts'
import type { Config } from './config.ts'
import type { MountRequest, MountResult, SeedRequest, SeedResult, Status, UmountRequest } from './control/api.ts'
import { ControlServer, type OperationOptions } from './control/server.ts'
import { Fetcher } from './fetch/fetcher.ts'
import { PeerSource } from './fetch/peer-source.ts'
import { RegionSource } from './fetch/region-source.ts'
import { ImageOrigins } from './image-origins.ts'
import type { Log } from './log.ts'
import type { FuseDriver } from './mount/fuse-driver.ts'
import { Mounts, type Placement } from './mounts.ts'
import { PeerExchange } from './peers/exchange.ts'
import { createImageSource } from './registry/image-source.ts'
import { parseReference, type Reference } from './registry/reference.ts'
import { Images, type KnownImage } from './seed/images.ts'
import { seedRootfs } from './seed/seeder.ts'
import { Catalog } from './store/catalog.ts'
import { ChunkStore } from './store/chunk-store.ts'
import { Holdings } from './store/holdings.ts'

/** Where things are below the state directory. */
export function statePaths(stateDir: string): Record<'chunks' | 'catalog' | 'identity' | 'mountPoint', string> {
  return {
    chunks: join(stateDir, 'chunks'),
    catalog: join(stateDir, 'catalog'),
    identity: join(stateDir, 'identity.key'),
    mountPoint: join(stateDir, 'mnt'),
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
  readonly #exchange: PeerExchange
  readonly #origins: ImageOrigins
  readonly #fetcher: Fetcher
  readonly #images: Images
  readonly #control: ControlServer
  #backend: MountBackend | undefined
  #mounts: Mounts | undefined

  constructor({ log, version, createBackend }: DaemonParts, config: Config) {
    this.#config = config
    this.#log = log
    this.#version = version
    this.#createBackend = createBackend
    const paths = statePaths(config.stateDir)
    const catalog = new Catalog({ directory: paths.catalog })
    const store = new ChunkStore({ log }, { directory: paths.chunks })
    const registry = createImageSource({ insecureRegistries: config.insecureRegistry, userAgent: `p2pfs/${version}`, log })
    const holdings = this.#holdings
    const exchange = new PeerExchange(
      {
        local: {
          chunk: async (digest, { signal }) => await store.getVerified(digest, { signal }),
          image: async (reference, platform) => await catalog.image(reference, platform),
          rootfs: async (digest) => await catalog.rootfsBytes(digest),
          layer: async (diffId) => await catalog.layerBytes(diffId),
          tables: () => holdings.tables(),
        },
        log,
      },
      { region: config.region, name: config.name, listen: config.listen, bootstrap: config.bootstrap, keyFile: paths.identity },
    )
    const keep = async (digest: Digest, bytes: Uint8Array): Promise<void> => {
      await store.put(digest, bytes)
      for (const { table, index } of holdings.add(digest)) exchange.announceHave(table, [index])
    }
    const origins = new ImageOrigins({ catalog, registry, region: exchange, keep })
    const local = { get: async (digest: Digest, options: { signal?: AbortSignal }) => await store.get(digest, options), put: keep }
    this.#fetcher = new Fetcher({
      local,
      peers: new PeerSource({ peers: exchange, log }),
      registry: new RegionSource({
        streamOf: async (table) => await origins.streamOf(table),
        keep,
        get: local.get,
        signal: this.#stopping.signal,
      }),
      log,
    })
    this.#images = new Images({
      catalog,
      region: exchange,
      registry,
      importImage: async (reference, image, options) => await origins.importImage(reference, image, options),
      onManifest: (manifest) => this.#know(manifest),
      log,
    })
    this.#catalog = catalog
    this.#store = store
    this.#exchange = exchange
    this.#origins = origins
    this.#control = new ControlServer(
      {
        operations: {
          seed: async (request, options) => await this.#seed(request, options),
          mount: async (request, options) => await this.#mount(request, options),
          umount: async (request) => await this.#umount(request),
          status: async () => await this.#status(),
        },
        log,
      },
      { socket: config.control },
    )
  }

  /**
   * Opens the state, takes up the mounts that stand, serves them, then meets the region, then takes requests.
   * @throws conflict where the state is in use; invalid for addresses that cannot be listened on
   */
  async start(): Promise<void> {
    await mkdir(this.#config.stateDir, { recursive: true, mode: 0o700 })
    await this.#catalog.open()
    await this.#store.open()
    for (const digest of await this.#catalog.rootfsDigests()) {
      const manifest = await this.#catalog.rootfs(digest)
      if (manifest !== undefined) this.#know(manifest)
    }
    const mountPoint = statePaths(this.#config.stateDir).mountPoint
    this.#backend = await this.#createBackend({
      chunkDirectory: this.#store.directory,
      onMiss: async (name, index, options) => await this.#miss(name, index, options),
      onMark: (name, index) => this.#mounts?.image(name)?.reached(index),
    })
    this.#mounts = new Mounts(
      {
        catalog: this.#catalog,
        ...this.#backend,
        has: (digest) => this.#store.has(digest),
        fetch: async (request, options) => await this.#fetcher.fetch(request, options),
        log: this.#log,
      },
      { mountPoint },
    )
    await this.#mounts.restore()
    await this.#exchange.start()
    // Last: a read that misses finds everything in place.
    await this.#backend.driver.start()
    await this.#control.start()
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
    this.#mounts?.close()
    await this.#exchange.stop()
    await this.#fetcher.settled()
    await this.#catalog.close()
    this.#log.info('daemon stopped')
  }

  #know(manifest: RootfsManifest): void {
    for (const table of tablesOf(manifest)) {
      const held = this.#holdings.addTable(table, (digest) => this.#store.has(digest))
      if (held !== undefined) this.#exchange.announce(table.id, held)
    }
  }

  async #miss(name: string, chunkIndex: number, { signal }: { signal: AbortSignal }): Promise<Uint8Array> {
    const mounted = this.#mounts?.image(name)
    if (mounted === undefined) throw new P2pfsError('closed', 'read of a rootfs that is not mounted')
    return await mounted.miss(chunkIndex, { signal })
  }

  #parse(request: { image: string; platform?: string }): { reference: Reference; platform: string } {
    return { reference: parseReference(request.image), platform: request.platform ?? this.#config.platform }
  }

  async #seed(request: SeedRequest, { signal, onProgress }: OperationOptions): Promise<SeedResult> {
    const { reference, platform } = this.#parse(request)
    const known = await this.#images.forSeed(reference, platform, {
      signal,
      onProgress: (progress) => onProgress({ step: 'import', ...progress }),
    })
    await seedRootfs(
      known.manifest,
      {
        has: (digest) => this.#store.has(digest),
        fetch: async (chunk, options) => await this.#fetcher.fetch(chunk, options),
        settled: async () => await this.#fetcher.settled(),
      },
      { signal, onProgress: (progress) => onProgress({ step: 'fetch', ...progress }) },
    )
    this.#log.info('image seeded', { image: known.record.reference, digest: known.record.rootfsDigest, origin: known.origin })
    return {
      reference: known.record.reference,
      platform,
      digest: known.record.rootfsDigest,
      sizeBytes: sizeOf(known.manifest),
      origin: known.origin,
    }
  }

  async #mount(request: MountRequest, { signal, onProgress }: OperationOptions): Promise<MountResult> {
    const { reference, platform } = this.#parse(request)
    const { record, manifest, origin }: KnownImage = await this.#images.forMount(reference, platform, {
      signal,
      onProgress: (progress) => onProgress({ step: 'import', ...progress }),
    })
    const { directory } = request
    await this.#mounts?.mount(
      manifest,
      { directory, rootfsDigest: record.rootfsDigest, reference: record.reference, platform, mountedAt: new Date().toISOString() },
      { signal },
    )
    this.#log.info('image mounted', { image: record.reference, directory, digest: record.rootfsDigest, origin })
    return {
      rootfs: join(directory, 'rootfs.img'),
      format: manifest.format,
      digest: record.rootfsDigest,
      sizeBytes: sizeOf(manifest),
      origin,
      config: JSON.parse(manifest.config) as unknown,
    }
  }

  async #umount({ directory }: UmountRequest): Promise<Record<string, never>> {
    await this.#mounts?.umount(directory)
    this.#log.info('mount ended', { directory })
    return {}
  }

  async #status(): Promise<Status> {
    const images: Status['images'] = []
    for (const record of await this.#catalog.images()) {
      const manifest = await this.#catalog.rootfs(record.rootfsDigest)
      if (manifest === undefined) continue
      const { reference, platform, rootfsDigest: digest } = record
      images.push({ reference, platform, digest, sizeBytes: sizeOf(manifest), localBytes: this.#localBytes(manifest) })
    }
    const sent = this.#exchange.totals()
    return {
      version: this.#version,
      daemonPid: process.pid,
      uptimeSeconds: Math.round((performance.now() - this.#startedAt) / 1000),
      name: this.#config.name,
      region: this.#config.region,
      peerId: this.#exchange.peerId,
      addresses: this.#exchange.multiaddrs(),
      peers: this.#exchange.peers().map((peer) => ({
        peer: peer.peer,
        name: peer.name,
        addresses: peer.addresses,
        connectedSeconds: Math.round(peer.connectedMs / 1000),
        sent: { bytes: peer.bytesSent, chunks: peer.chunksSent },
        received: { bytes: peer.bytesReceived, chunks: peer.chunksReceived },
      })),
      images,
      mounts: (this.#mounts?.list() ?? []).map(({ directory, reference, rootfsDigest: digest, mountedAt }) => ({ directory, reference, digest, mountedAt })),
      chunks: this.#store.count,
      served: this.#backend!.driver.counters().served,
      fetched: { peer: this.#fetcher.fromPeers, registry: this.#origins.fromRegistry },
      sent: { bytes: sent.bytesSent, chunks: sent.chunksSent },
    }
  }

  #localBytes(manifest: RootfsManifest): number {
    let bytes = 0
    for (const table of tablesOf(manifest)) {
      for (let i = 0; i < table.count; i++) if (this.#store.has(table.digestAt(i))) bytes += table.lengthAt(i)
    }
    return bytes
  }
}

function tablesOf(manifest: RootfsManifest): ChunkTable[] {
  return [manifest.metadata, ...manifest.layers.map(({ chunks }) => chunks)]
}

function sizeOf(manifest: RootfsManifest): number {
  return tablesOf(manifest).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
}
