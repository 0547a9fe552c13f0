import type { PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { P2pfsError } from '../../protocol/errors.ts'
import { Bandwidth } from '../../node/base/bandwidth.ts'
import type { Log } from '../../node/base/log.ts'
import { ProfileReplay } from '../../node/boot/replay.ts'
import { ChunkRelays } from '../../node/fetch/chunk-relays.ts'
import { Fetcher } from '../../node/fetch/fetcher.ts'
import { PeerSource } from '../../node/fetch/peer-source.ts'
import { RangeSource } from '../../node/fetch/range-source.ts'
import type { ChunkRequest } from '../../node/model/chunk-request.ts'
import type { ChunkFiles } from '../../node/peers/bulk/chunk-files.ts'
import { PeerNetwork, type PeerNetworkOptions } from '../../node/peers/network.ts'
import type { ServedData } from '../../node/peers/served-data.ts'
import type { SimulatedImage } from './simulated-image.ts'
import { SimulatedHost } from './simulated-host.ts'
import type { SimulatedNetwork } from './simulated-network.ts'
import type { SimulatedRegistry } from './simulated-registry.ts'
import { SimulatedStore } from './simulated-store.ts'

export interface SimulatedNodeParts {
  network: SimulatedNetwork<SimulatedHost>
  registry: SimulatedRegistry
  image: SimulatedImage
  log: Log
  /** CPU time for each chunk that is kept (ms). */
  cpuPerChunkMs: number
}

export interface SimulatedNodeOptions {
  index: number
  /** Its identity: another one where a host comes back as a new one. */
  key: PrivateKey
  bootstrap: readonly string[]
  /** Knowledge of the region that it begins with. */
  known: PeerNetworkOptions['known']
  fullMesh: number | undefined
}

/** The region of all hosts. */
export const regionName = 'simulated'

export function nameOf(index: number): string {
  return `host-${index}`
}

/** One host: the product's parts, put together as `startDaemon` does, over a modelled network, disk and registry. */
export class SimulatedNode {
  readonly host: SimulatedHost
  readonly peers: PeerNetwork
  readonly store: SimulatedStore
  readonly fetcher: Fetcher
  readonly #image: SimulatedImage
  readonly #log: Log
  readonly #served: ServedData
  readonly #stopping = new AbortController()
  #isReplaying = false
  /** Whether it answers wants with wrong bytes. */
  isLiar = false

  static create(
    parts: SimulatedNodeParts,
    { index, key, bootstrap, known, fullMesh }: SimulatedNodeOptions,
  ): SimulatedNode {
    let host: SimulatedHost | undefined
    const peers = PeerNetwork.over(
      {
        key,
        log: parts.log,
        upload: new Bandwidth(),
        createHost: ({ isBarred }) => {
          host = new SimulatedHost(parts.network, { index, peerId: peerIdFromPrivateKey(key), isBarred })
          return host.asLibp2p
        },
      },
      {
        region: regionName,
        name: nameOf(index),
        listen: ['/ip4/0.0.0.0/tcp/4100'],
        bootstrap,
        bulk: undefined,
        known,
        ...(fullMesh !== undefined && { fullMesh }),
      },
    )
    return new SimulatedNode(parts, peers, host!)
  }

  private constructor(
    { registry, image, log, cpuPerChunkMs }: SimulatedNodeParts,
    peers: PeerNetwork,
    host: SimulatedHost,
  ) {
    const { signal } = this.#stopping
    this.host = host
    this.peers = peers
    this.#image = image
    this.#log = log
    const { availability } = peers
    this.store = new SimulatedStore({
      image,
      region: availability,
      work: (done) => host.cpu.do(cpuPerChunkMs, done),
    })
    const inventory = this.store
    const source = new PeerSource({ availability, chunks: peers.chunks, bulk: peers.bulk, spans: peers.spans, log })
    const cannotStream = async (): Promise<never> =>
      await Promise.reject(new P2pfsError('unavailable', 'layers of a simulation are read at random only'))
    const range = new RangeSource({
      layers: registry.clientOf(host),
      stream: { fetch: cannotStream },
      wholeReads: { overcome: () => undefined },
      inventory,
      signal,
      log,
    })
    this.fetcher = new Fetcher({ inventory, peers: source, registry: range, log })
    const relays = new ChunkRelays({ inventory, fetcher: this.fetcher, spans: peers.spans })
    const nothing = async (): Promise<undefined> => await Promise.resolve(undefined)
    const refused = async (): Promise<never> => await Promise.reject(new P2pfsError('denied', 'not simulated'))
    this.#served = {
      chunk: async (digest) => this.#maybeLie(await inventory.get(digest)),
      relayedChunk: async (digest, options) => this.#maybeLie(await relays.chunk(digest, options)),
      holders: (digest) => {
        const request = inventory.requestOf(digest)
        return request === undefined ? [] : availability.holders(request.table, request.index)
      },
      imageRecord: nothing,
      rootfsManifest: nothing,
      sharedBlob: () => undefined,
      layerIndex: nothing,
      blobMap: nothing,
      bootProfile: nothing,
      registryWord: () => undefined,
      isImporting: () => false,
      importedImage: refused,
      seeds: { placed: refused, keptJob: refused, released: refused, jobs: () => [], mounted: () => undefined },
    }
  }

  async start(): Promise<void> {
    // No bulk connections, so no files.
    await this.peers.start(this.#served, undefined as unknown as ChunkFiles)
  }

  /** Ends: `crash` tells nobody, as a loss of power does. */
  async stop({ crash }: { crash: boolean }): Promise<void> {
    if (crash) this.host.crash()
    this.#stopping.abort(new P2pfsError('closed', 'host stopped'))
    await this.peers.stop()
  }

  get signal(): AbortSignal {
    return this.#stopping.signal
  }

  /** The host tracks the segments of the image, as from the begin of a mount on. */
  track(): void {
    this.store.track()
  }

  /** Begins to fetch what the boot reads, ahead of it; once on each host. */
  replay(): void {
    if (this.#isReplaying) return
    this.#isReplaying = true
    // It ends with its host.
    this.#replayBoot(this.signal).catch(() => undefined)
  }

  /** One read that somebody waits for. @throws what the fetcher throws */
  async read(request: ChunkRequest): Promise<void> {
    if (this.store.has(request.digest)) return
    await this.fetcher.fetch(request, { signal: this.signal, priority: 'demand' })
  }

  /** As `Boot` does, without the recording and the search for a profile. */
  async #replayBoot(signal: AbortSignal): Promise<void> {
    const { availability } = this.peers
    const { boot, tables } = this.#image
    await Promise.all(tables.map(async ({ id }) => await availability.whenAsked(id, { signal })))
    const target = {
      has: (chunk: number) => this.store.has(boot[chunk]!.digest),
      lengthAt: (chunk: number) => boot[chunk]!.lengthBytes,
      isHeld: (chunk: number) => availability.holders(boot[chunk]!.table, boot[chunk]!.index).length > 0,
      fetch: async (chunk: number, options: { signal: AbortSignal }) =>
        await this.fetcher.fetchToStore(boot[chunk]!, { ...options, priority: 'boot' }),
    }
    await new ProfileReplay({ target, log: this.#log }, [...boot.keys()]).run({ signal })
  }

  #maybeLie(bytes: Uint8Array | undefined): Uint8Array | undefined {
    if (!this.isLiar || bytes === undefined) return bytes
    const wrong = bytes.slice()
    wrong[0]! ^= 0xff
    return wrong
  }
}
