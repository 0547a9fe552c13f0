import type { BlobMap } from '../../protocol/blob-map.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import { BoundedMap } from '../base/bounded-map.ts'
import type { Log } from '../base/log.ts'
import type { FetchChunk } from '../model/chunk-request.ts'
import { requestOf } from '../model/rootfs-chunks.ts'
import type { RegionObjects } from '../peers/object/region-objects.ts'
import type { PublishedImages } from '../publish/published-images.ts'
import { layersOf, type ImageSource, type LayerDescriptor } from '../registry/image-source.ts'
import { parseReference } from '../registry/reference.ts'
import { checkpointOf, chunksOf, decodeRange, rangeOf, tarOf, type BlobRange } from '../rootfs/blob-range.ts'
import type { Catalog } from '../store/catalog.ts'
import type { SeekableSegment } from './seekable-segment.ts'
import type { BlobMaps } from '../store/blob-maps.ts'

/** How long the region may take to answer for a blob map (ms). */
const mapTimeoutMs = 3_000

/** Window segments of layers that are read, remembered with the image that has them. */
const maxWindowSegments = 256

interface WindowSegment {
  record: ImageRecord
  map: BlobMap
}

export interface LayerRangesParts {
  catalog: Pick<Catalog, 'images' | 'rootfs'>
  blobMaps: Pick<BlobMaps, 'get' | 'put'>
  registry: Pick<ImageSource, 'range'>
  region: Pick<RegionObjects, 'fetchBlobMap'>
  published: Pick<PublishedImages, 'of' | 'windows'>
  log: Log
}

/** Reads layers out of their blobs in the registry at any place, by their blob maps. */
export class LayerRanges {
  readonly #parts: LayerRangesParts
  /** Requests to the registry, and bytes as it sent them. */
  readonly read = { requests: 0, bytes: 0 }
  /** Chunks that these bytes decoded to. */
  readonly chunks = { bytes: 0, chunks: 0 }
  readonly #windowSegments = new BoundedMap<Digest, WindowSegment>({ maxEntries: maxWindowSegments })

  constructor(parts: LayerRangesParts) {
    this.#parts = parts
  }

  /** Takes the map of a blob from the region, and the windows from wherever they are. */
  async take(digest: Digest, { signal, fetchChunk }: { signal: AbortSignal; fetchChunk: FetchChunk }): Promise<void> {
    const map = await this.#mapHereOrFromRegion(digest)
    if (map === undefined) return
    for (let index = 0; index < map.windows.count; index++) await fetchChunk(requestOf(map.windows, index), { signal })
  }

  /**
   * How to read a segment at any place: the data segment of a layer whose blob map is here, in the region, or
   * published; or the window segment of such a layer that is being read.
   */
  async seekable(table: Digest): Promise<SeekableSegment | undefined> {
    const windows = this.#windowSegments.get(table)
    if (windows !== undefined) return await this.#windowSegment(windows)
    const { catalog } = this.#parts
    for (const record of await catalog.images()) {
      const manifest = await catalog.rootfs(record.rootfsDigest)
      const reference = parseReference(record.reference)
      const index = manifest?.layers.findIndex(({ chunks }) => chunks.id === table) ?? -1
      if (manifest === undefined || index < 0 || reference.kind === 'local') continue
      const layer = layersOf(record.manifest, manifest.config)[index]!
      const map = await this.blobMap(layer.digest, record)
      if (map?.diffId === layer.diffId && map.sizeBytes === layer.sizeBytes)
        return this.#dataSegment(record, layer, map, manifest.layers[index]!.chunks)
    }
    return undefined
  }

  #dataSegment(record: ImageRecord, layer: LayerDescriptor, map: BlobMap, table: ChunkTable): SeekableSegment {
    const reference = parseReference(record.reference)
    this.#windowSegments.set(map.windows.id, { record, map })
    return {
      table,
      rangeOf: (chunkIndex) => {
        const wanted = tarOf(map, table, chunkIndex)
        return wanted === undefined ? undefined : rangeOf(map, wanted.tarStart, wanted.tarEnd)
      },
      join: (first, last) => rangeOf(map, first.tarStart, last.tarEnd),
      read: async (range, { signal, urgency, again, fetchChunk }) => {
        const { start, end } = range
        // At once: a window that only the registry has costs no second round trip.
        const [window, bytes] = await Promise.all([
          windowOf(map, range, { signal, fetchChunk }),
          this.#parts.registry.range(reference, layer, { start, end }, { signal, urgency, originOnly: again }),
        ])
        const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
        const tar = await decodeRange(map, range, buffer, window)
        this.read.requests++
        this.read.bytes += bytes.length
        return this.#counted(chunksOf(map, table, tar, range.tarStart))
      },
    }
  }

  /** The windows of a blob, where they are published. */
  async #windowSegment({ record, map: { digest, windows } }: WindowSegment): Promise<SeekableSegment | undefined> {
    const readPublished = await this.#parts.published.windows(record, { blob: digest, table: windows.id })
    if (readPublished === undefined) return undefined
    const rangeFrom = (start: number, end: number): BlobRange => ({ start, end, tarStart: start, tarEnd: end })
    return {
      table: windows,
      rangeOf: (index) => rangeFrom(windows.offsets[index]!, windows.offsets[index + 1]!),
      join: (first, last) => rangeFrom(first.start, last.end),
      read: async ({ start, end }, { signal, urgency, again }) => {
        const bytes = await readPublished({ start, end }, { signal, urgency, originOnly: again })
        this.read.requests++
        this.read.bytes += bytes.length
        const first = windows.indexOf(start)
        const chunk = (index: number): Uint8Array =>
          bytes.slice(windows.offsets[index]! - start, windows.offsets[index + 1]! - start)
        return Array.from({ length: windows.indexOf(end - 1) - first + 1 }, (_, i) => ({
          index: first + i,
          bytes: chunk(first + i),
        }))
      },
    }
  }

  *#counted(chunks: Iterable<{ index: number; bytes: Buffer }>): Generator<{ index: number; bytes: Buffer }> {
    for (const chunk of chunks) {
      this.chunks.bytes += chunk.bytes.length
      this.chunks.chunks++
      yield chunk
    }
  }

  /** The map of a blob of the image: from this host or its region, else as it was published. */
  async blobMap(digest: Digest, record: ImageRecord): Promise<BlobMap | undefined> {
    const { blobMaps, published } = this.#parts
    const map = await this.#mapHereOrFromRegion(digest)
    if (map !== undefined || (await published.of(record)) === undefined) return map
    // A publication's maps come into the catalog with it.
    return await blobMaps.get(digest)
  }

  async #mapHereOrFromRegion(digest: Digest): Promise<BlobMap | undefined> {
    const { blobMaps, region, log } = this.#parts
    const stored = await blobMaps.get(digest)
    if (stored !== undefined) return stored
    try {
      const map = await region.fetchBlobMap(digest, { signal: AbortSignal.timeout(mapTimeoutMs) })
      if (map !== undefined) await blobMaps.put(map)
      return map
    } catch (error) {
      log.debug('region does not answer for a blob map', { error, digest })
      return undefined
    }
  }
}

/** The window from which a range is decoded. @throws missing where nobody delivers it */
async function windowOf(
  map: BlobMap,
  range: BlobRange,
  { signal, fetchChunk }: { signal: AbortSignal; fetchChunk: FetchChunk },
): Promise<Uint8Array> {
  const { windows, digest } = map
  const { window } = checkpointOf(map, range)
  if (window.lengthBytes === 0) return new Uint8Array(0)
  const index = windows.indexOf(window.offset)
  const offset = window.offset - windows.offsets[index]!
  try {
    const chunk = await fetchChunk(requestOf(windows, index), { signal })
    return chunk.subarray(offset, offset + window.lengthBytes)
  } catch (cause) {
    if (signal.aborted) throw cause
    throw new P2pfsError(
      'missing',
      `the windows of blob ${digest} are neither here, nor in the region, nor published in the registry`,
      { cause },
    )
  }
}
