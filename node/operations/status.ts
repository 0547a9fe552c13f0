import type { Digest } from '../../protocol/digest.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { Config } from '../config.ts'
import type { MountReport, Status } from '../control/api.ts'
import type { Amount } from '../model/progress.ts'
import { sizeOf } from './inspect.ts'
import type { Mounts } from '../mount/mounts.ts'
import type { PeerNetwork } from '../peers/network.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import type { RunningImports } from '../images/running-imports.ts'
import type { Catalog } from '../store/catalog.ts'
import type { Holdings } from '../store/holdings.ts'

export interface StatusParts {
  version: string
  uptimeMs: number
  config: Pick<Config, 'name' | 'region'>
  catalog: Pick<Catalog, 'images' | 'rootfs'>
  holdings: Pick<Holdings, 'localBytes'>
  exchange: Pick<PeerNetwork, 'peerId' | 'multiaddrs' | 'peers' | 'totals'>
  imports: Pick<RunningImports, 'list'>
  mounts: ReturnType<Mounts['list']>
  report: (digest: Digest, manifest: RootfsManifest) => MountReport
  /** Of the registry by who fetched. */
  fetched: { peer: Amount; registry: readonly Amount[] }
  counters: Pick<Status, 'chunks' | 'served' | 'readAtRandom'>
}

/** What `p2pfs status` shows. */
export async function collectStatus({
  version,
  uptimeMs,
  config,
  catalog,
  holdings,
  exchange,
  imports,
  report,
  fetched,
  counters,
  ...parts
}: StatusParts): Promise<Status> {
  const images: Status['images'] = []
  for (const { reference, platform, format, rootfsDigest: digest } of await catalog.images()) {
    const manifest = await catalog.rootfs(digest)
    if (manifest !== undefined)
      images.push({
        reference,
        platform,
        format,
        digest,
        sizeBytes: sizeOf(manifest),
        localBytes: holdings.localBytes(tablesOf(manifest)),
      })
  }
  const mounts: Status['mounts'] = []
  for (const record of parts.mounts) {
    const { id: _id, platform: _platform, identity: _identity, rootfsDigest: digest, ...mount } = record
    const manifest = await catalog.rootfs(digest)
    if (manifest !== undefined) mounts.push({ ...mount, digest, ...report(digest, manifest) })
  }
  const sent = exchange.totals()
  return {
    version,
    daemonPid: process.pid,
    uptimeSeconds: Math.round(uptimeMs / 1000),
    name: config.name,
    region: config.region,
    peerId: exchange.peerId,
    addresses: exchange.multiaddrs(),
    peers: exchange.peers().map(peerOf),
    images,
    imports: imports.list(),
    mounts,
    ...counters,
    fetched: { peer: fetched.peer, registry: fetched.registry.reduce(total) },
    sent: { bytes: sent.bytesSent, chunks: sent.chunksSent },
  }
}

function peerOf({
  peer,
  name,
  addresses,
  ...known
}: ReturnType<PeerNetwork['peers']>[number]): Status['peers'][number] {
  return {
    peer,
    name,
    addresses,
    connectedSeconds: Math.round(known.connectedMs / 1000),
    sent: { bytes: known.bytesSent, chunks: known.chunksSent },
    received: { bytes: known.bytesReceived, chunks: known.chunksReceived },
  }
}

function total(one: Amount, other: Amount): Amount {
  return { bytes: one.bytes + other.bytes, chunks: one.chunks + other.chunks }
}
