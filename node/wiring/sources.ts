import { P2pfsError } from '../../protocol/errors.ts'
import { ChunkRelays } from '../fetch/chunk-relays.ts'
import { Fetcher } from '../fetch/fetcher.ts'
import { LimitedFetcher } from '../fetch/limited-fetcher.ts'
import { PeerSource } from '../fetch/peer-source.ts'
import { RangeSource } from '../fetch/range-source.ts'
import type { ChunkSource } from '../fetch/source.ts'
import { StreamSource } from '../fetch/stream-source.ts'
import { NeighboursFirst } from '../neighbours/neighbours-first.ts'
import type { BandwidthParts } from './bandwidths.ts'
import type { DaemonContext } from './context.ts'
import type { HoldingsParts } from './holdings.ts'
import type { LayerParts } from './layers.ts'
import type { RegionParts } from './region.ts'

export interface SourceParts {
  neighboursFirst: NeighboursFirst
  /** For reads of mounts. */
  fetcher: Fetcher
  /** For seeds: within their bandwidth. */
  seedFetcher: LimitedFetcher
  /** The same, without a registry. */
  regionFetcher: LimitedFetcher
  relays: ChunkRelays
}

interface Below {
  bandwidths: BandwidthParts
  region: RegionParts
  holdings: HoldingsParts
  layers: LayerParts
}

/** Opens the fetchers of chunks, over peers, neighbour regions and registries. */
export function openSources(
  { log, signal, stack }: DaemonContext,
  { bandwidths: { bandwidths }, region, holdings: { inventory }, layers }: Below,
): SourceParts {
  const { ranges, streams, wholeReads, reads } = layers
  const { network, neighbours } = region
  const { availability, chunks, bulk, spans } = network
  const peers = new PeerSource({ availability, chunks, bulk, spans, download: bandwidths.download, log })
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
  const noRegistry: ChunkSource = {
    fetch: async () =>
      await Promise.reject(new P2pfsError('missing', 'this host reads nothing for members from this registry')),
  }
  const fetcherOfRegion = new Fetcher({ inventory, peers, registry: noRegistry, log, reads })
  const relays = new ChunkRelays({ inventory, fetcher, spans })
  stack.defer(async () => await fetcher.settled())
  return {
    neighboursFirst,
    fetcher,
    seedFetcher: new LimitedFetcher({ fetcher, inventory, bandwidth: bandwidths.seed }),
    regionFetcher: new LimitedFetcher({ fetcher: fetcherOfRegion, inventory, bandwidth: bandwidths.seed }),
    relays,
  }
}
