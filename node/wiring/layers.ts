import { AwaitedReads } from '../base/awaited-reads.ts'
import { LayerIndexes } from '../layers/layer-indexes.ts'
import { LayerRanges } from '../layers/layer-ranges.ts'
import { LayerReader } from '../layers/layer-reader.ts'
import { LayerTransactions } from '../layers/layer-transactions.ts'
import { RegionAnswers } from '../layers/region-answers.ts'
import { SegmentStreams } from '../layers/segment-streams.ts'
import { WholeReads } from '../layers/whole-reads.ts'
import type { LayerLimits } from '../rootfs/layer-limits.ts'
import type { DaemonContext } from './context.ts'
import type { HoldingsParts } from './holdings.ts'
import type { PublicationParts } from './publications.ts'
import type { RegionParts } from './region.ts'
import type { RegistryParts } from './registries.ts'
import type { StorageParts } from './storage.ts'

export interface LayerParts {
  limits: LayerLimits
  indexes: LayerIndexes
  reader: LayerReader
  layerTransactions: LayerTransactions
  ranges: LayerRanges
  streams: SegmentStreams
  wholeReads: WholeReads
  /** The reads of this host that somebody waits for. */
  reads: AwaitedReads
}

interface Below {
  storage: StorageParts
  registries: RegistryParts
  region: RegionParts
  holdings: HoldingsParts
  publications: PublicationParts
}

/** Makes the ways to read a layer: its index, the whole of it, and any range. */
export function makeLayers(
  { config, log }: DaemonContext,
  { storage: { catalog }, registries: { registry }, region: { network }, holdings, publications }: Below,
): LayerParts {
  const { inventory, blobMaps, transactions } = holdings
  const { trust, published } = publications
  const { membership, objects } = network
  const limits = { maxLayerBytes: config.maxLayerSize, maxMetadataBytes: config.maxLayerMetadata }
  const answers = new RegionAnswers({ region: objects, membership, log })
  const wholeReads = new WholeReads()
  const indexes = new LayerIndexes({ catalog, region: objects, answers, trust })
  const reads = new AwaitedReads()
  const reader = new LayerReader({ registry, indexes, blobMaps, inventory, limits, reads })
  const layerTransactions = new LayerTransactions({ catalog, transactions, inventory })
  const readDeadlineMs = config.readDeadline * 1000
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
  return { limits, indexes, reader, layerTransactions, ranges, streams, wholeReads, reads }
}
