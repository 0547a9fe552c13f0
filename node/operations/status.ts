import { digestHex } from '../../protocol/digest.ts'
import type { EventLoopDelay } from '../base/event-loop-delay.ts'
import type { BulkLink, Status } from '../control/api.ts'
import type { HotImages } from '../hot/hot-images.ts'
import type { BackgroundVerifier } from '../images/background-verifier.ts'
import type { RunningImports } from '../images/running-imports.ts'
import type { LayerRanges } from '../layers/layer-ranges.ts'
import { sizeOf, tablesOf } from '../model/rootfs-chunks.ts'
import type { FuseDriver } from '../mount/fuse/driver.ts'
import type { Mounts } from '../mount/mounts.ts'
import type { NativeImages } from '../mount/native/native-images.ts'
import type { SegmentFiles } from '../mount/native/segment-files.ts'
import type { NeighbourRegion } from '../neighbours/neighbour-region.ts'
import type { NeighboursFirst } from '../neighbours/neighbours-first.ts'
import type { PeerStatus } from '../peers/membership.ts'
import type { PeerNetwork } from '../peers/network.ts'
import type { HotRoom } from '../seeds/hot-room.ts'
import type { Pins } from '../seeds/pins.ts'
import type { IndexTrust } from '../publish/index-trust.ts'
import type { Catalog } from '../store/catalog.ts'
import type { Inventory } from '../store/inventory.ts'
import { namesToShow } from '../store/same-image.ts'
import type { StoreRoom } from '../store/store-room.ts'
import { fetchedOf, type FetchedParts } from './fetched.ts'
import type { LimitsOperation } from './limits.ts'
import type { RootfsSeeder } from './rootfs-seeder.ts'
import { ListMountsOperation, type ListMountsParts } from './list-mounts.ts'
import { waitingReadsOf } from './waiting-reads.ts'

export interface StatusParts extends ListMountsParts, FetchedParts {
  catalog: Pick<Catalog, 'images' | 'rootfs'>
  inventory: Pick<Inventory, 'count' | 'localBytes'>
  network: Pick<
    PeerNetwork,
    'peerId' | 'multiaddrs' | 'membership' | 'totals' | 'access' | 'strangers' | 'bulk' | 'guests'
  >
  neighbours: readonly Pick<NeighbourRegion, 'region' | 'status'>[]
  neighboursFirst: Pick<NeighboursFirst, 'passedOverMs'>
  imports: Pick<RunningImports, 'list'>
  mounts: ListMountsParts['mounts'] & Pick<Mounts, 'waiting'>
  /** Undefined if no images are read natively. */
  natives: (Pick<NativeImages, 'isReady'> & { segments: Pick<SegmentFiles, 'usedBytes'> }) | undefined
  driver: Pick<FuseDriver, 'counters'>
  ranges: Pick<LayerRanges, 'chunks' | 'read'>
  trust: Pick<IndexTrust, 'beliefIn'>
  verifier: Pick<BackgroundVerifier, 'pending'>
  loopDelay: Pick<EventLoopDelay, 'figures'>
  seeder: Pick<RootfsSeeder, 'list'>
  pins: Pick<Pins, 'list' | 'hotBytes'>
  hotRoom: Pick<HotRoom, 'usedBytes'>
  hot: Pick<HotImages, 'counted'>
  limits: Pick<LimitsOperation, 'report'>
  storeRoom: Pick<StoreRoom, 'usedBytes' | 'limitBytes' | 'evicted'>
}

/** The parts of the status that do not change while the daemon runs. */
type HostFacts = Pick<Status, 'version' | 'name' | 'region'> & { hotDiskBytes: number; isHotOn: boolean }

/** `p2pfs status`. */
export class StatusOperation {
  readonly #parts: StatusParts
  readonly #host: HostFacts
  readonly #mounts: ListMountsOperation
  readonly #startedAtMs = performance.now()

  constructor(parts: StatusParts, host: HostFacts) {
    this.#parts = parts
    this.#host = host
    this.#mounts = new ListMountsOperation(parts)
  }

  async run(): Promise<Status> {
    const { inventory, network, imports, verifier, driver, ranges, storeRoom } = this.#parts
    const sent = network.totals()
    const guests = network.guests()
    const peers = network.membership.peers()
    const { served, errors: readErrors } = driver.counters()
    return {
      version: this.#host.version,
      daemonPid: process.pid,
      eventLoopDelayMs: this.#parts.loopDelay.figures(),
      uptimeSeconds: Math.round((performance.now() - this.#startedAtMs) / 1000),
      name: this.#host.name,
      region: this.#host.region,
      peerId: network.peerId,
      addresses: network.multiaddrs(),
      access: network.access,
      strangers: network.strangers,
      members: network.membership.roster.size - 1,
      ...describeBulk(network),
      peers: peers.map((peer) => describePeer(peer, network.bulk.stateOf(peer.peer))),
      neighbours: this.#parts.neighbours.map((neighbour) => {
        const { region, members, known, problem, bytesReceived: bytes, chunksReceived: chunks } = neighbour.status()
        const passedOverSeconds = Math.ceil(this.#parts.neighboursFirst.passedOverMs(region) / 1000)
        const received = { bytes, chunks }
        return { region, members, known, received, passedOverSeconds, ...(problem !== undefined && { problem }) }
      }),
      limits: this.#parts.limits.report(),
      guests: { connected: guests.connected, sent: { bytes: guests.bytesSent, chunks: guests.chunksSent } },
      images: await this.#images(),
      pins: this.#parts.pins
        .list()
        .map(({ reference, rootfsDigest: digest, extent, untilMs, job, sizeBytes, demand }) => {
          const until = new Date(untilMs).toISOString()
          return { reference, digest, extent, until, job, sizeBytes, ...(demand && { demand }) }
        }),
      hot: this.#hot(),
      toVerify: verifier.pending,
      imports: imports.list(),
      seeds: this.#parts.seeder.list(),
      mounts: (await this.#mounts.run()).mounts,
      nativeBytes: this.#parts.natives?.segments.usedBytes ?? 0,
      chunks: inventory.count,
      storeBytes: storeRoom.usedBytes,
      ...(storeRoom.limitBytes < Number.MAX_SAFE_INTEGER && { limitBytes: storeRoom.limitBytes }),
      evicted: storeRoom.evicted,
      served,
      readErrors,
      waitingReads: waitingReadsOf(this.#parts.mounts.waiting, peers),
      fetched: fetchedOf(this.#parts),
      readAtRandom: ranges.read,
      sent: { bytes: sent.bytesSent, chunks: sent.chunksSent },
    }
  }

  #hot(): Status['hot'] {
    const { hot, pins, hotRoom } = this.#parts
    const counted = hot.counted().map(({ image, mounts, hosts, isHot }) => {
      const { reference, platform, format, manifestDigest, rootfsDigest: digest } = image
      return { reference, platform, format, manifestDigest, digest, mounts: Math.round(mounts * 10) / 10, hosts, isHot }
    })
    const { isHotOn: isOn, hotDiskBytes: diskBytes } = this.#host
    return { isOn, counted, usedBytes: pins.hotBytes, placedBytes: hotRoom.usedBytes, diskBytes }
  }

  async #images(): Promise<Status['images']> {
    const { catalog, inventory, trust } = this.#parts
    const images: Status['images'] = []
    for (const record of namesToShow(await catalog.images())) {
      const { reference, platform, format, rootfsDigest: digest } = record
      const manifest = await catalog.rootfs(digest)
      if (manifest === undefined) continue
      const belief = trust.beliefIn(record)
      const localBytes = inventory.localBytes(tablesOf(manifest))
      images.push({
        reference,
        platform,
        format,
        digest,
        ...(belief && { belief }),
        sizeBytes: sizeOf(manifest),
        localBytes,
        isReadyForNative: this.#parts.natives?.isReady(digestHex(digest)) === true,
      })
    }
    return images
  }
}

function describeBulk({ bulk: { mode, port } }: Pick<PeerNetwork, 'bulk'>): Pick<Status, 'bulk'> {
  return mode === undefined ? {} : { bulk: { mode, ...(port !== undefined && { port }) } }
}

function describePeer(peer: PeerStatus, bulk: BulkLink): Status['peers'][number] {
  return {
    peer: peer.peer,
    name: peer.name,
    addresses: peer.addresses,
    connectedSeconds: Math.round(peer.connectedMs / 1000),
    sent: { bytes: peer.bytesSent, chunks: peer.chunksSent },
    received: { bytes: peer.bytesReceived, chunks: peer.chunksReceived },
    bulk,
  }
}
