import type { Fetcher } from '../fetch/fetcher.ts'
import type { Importer } from '../images/importer.ts'
import type { LayerRanges } from '../layers/layer-ranges.ts'
import type { LayerReader } from '../layers/layer-reader.ts'
import type { SegmentStreams } from '../layers/segment-streams.ts'
import type { RemoteSource } from '../model/chunk-request.ts'
import type { Amount } from '../model/progress.ts'
import type { PublishedImages } from '../publish/published-images.ts'

export interface FetchedParts {
  fetcher: Pick<Fetcher, 'fromPeers' | 'fromNeighbours'>
  reader: Pick<LayerReader, 'chunks'>
  importer: Pick<Importer, 'chunks'>
  ranges: Pick<LayerRanges, 'chunks'>
  streams: Pick<SegmentStreams, 'chunks'>
  published: Pick<PublishedImages, 'chunks'>
}

/** The chunks that this host has fetched; imports count as registry. */
export function fetchedOf(parts: FetchedParts): Record<RemoteSource, Amount> {
  const { fetcher, reader, importer, ranges, streams, published } = parts
  const registry = { bytes: 0, chunks: 0 }
  for (const { chunks } of [reader, importer, ranges, streams, published]) {
    registry.bytes += chunks.bytes
    registry.chunks += chunks.chunks
  }
  return { peer: fetcher.fromPeers, neighbour: fetcher.fromNeighbours, registry }
}
