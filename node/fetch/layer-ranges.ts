import type { BlobMap } from '../../protocol/blob-map.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ChunkRequest } from '../model/chunk-request.ts'
import type { SeekableSegment, Stretch } from './range-source.ts'
import { chunksOf, decodeSpan, spanOf, tarOf, type Span } from '../rootfs/blob-range.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import type { Log } from '../base/log.ts'
import type { PublishedImages } from '../publish/published-images.ts'
import { layersOf, type ImageSource, type LayerDescriptor } from '../registry/image-source.ts'
import { parseReference } from '../registry/reference.ts'
import type { Catalog } from '../store/catalog.ts'

/** How long the region may take to answer for a map, milliseconds. */
const mapTimeoutMs = 3_000

/** Window regions that are known, of layers that are read; the oldest is forgotten. */
const maxWindowRegions = 256

interface WindowsOf {
  record: ImageRecord
  map: BlobMap
}

export interface LayerRangesParts {
  catalog: Pick<Catalog, 'images' | 'rootfs' | 'blobMap' | 'putBlobMap'>
  registry: Pick<ImageSource, 'range'>
  region: { fetchBlobMap: (digest: Digest, options: { signal: AbortSignal }) => Promise<BlobMap | undefined> }
  /** Gets a chunk of windows: from this host, its region, or the registry by {@link LayerRanges.seekable}. */
  fetchWindow: (request: ChunkRequest, options: { signal: AbortSignal }) => Promise<Uint8Array>
  /** What the registry has besides layers. */
  published: Pick<PublishedImages, 'of' | 'windows'>
  /** Called for each blob map that this host gets to know. */
  onBlobMap: (map: BlobMap) => void
  log: Log
}

/** Reads layers out of their blobs in the registry at random, by their blob maps. */
export class LayerRanges {
  readonly #parts: LayerRangesParts
  /** Requests, and bytes as the registry sent them. */
  readonly read = { requests: 0, bytes: 0 }
  /** Chunks that came of that. */
  readonly chunks = { bytes: 0, chunks: 0 }
  /** Of layers that were read, by their tables. */
  readonly #windows = new Map<Digest, WindowsOf>()

  constructor(parts: LayerRangesParts) {
    this.#parts = parts
  }

  async putBlobMap(map: BlobMap): Promise<void> {
    await this.#parts.catalog.putBlobMap(map)
    this.#parts.onBlobMap(map)
  }

  /** Takes the map of a blob and its windows from the region, where they are there to be had. */
  async take(digest: Digest, { signal }: { signal: AbortSignal }): Promise<void> {
    const windows = (await this.#toldMap(digest))?.windows
    for (let index = 0; index < (windows?.count ?? 0); index++) {
      await this.#parts.fetchWindow(
        { digest: windows!.digestAt(index), lengthBytes: windows!.lengthAt(index), table: windows!.id, index },
        { signal },
      )
    }
  }

  /** How to read a region at random: of a layer whose blob's map this host or its region has; or of the windows for that. */
  async seekable(table: Digest): Promise<SeekableSegment | undefined> {
    const windows = this.#windows.get(table)
    if (windows !== undefined) return await this.#windowRegion(windows)
    for (const record of await this.#parts.catalog.images()) {
      const manifest = await this.#parts.catalog.rootfs(record.rootfsDigest)
      const reference = parseReference(record.reference)
      const at = manifest?.layers.findIndex(({ chunks }) => chunks.id === table) ?? -1
      if (manifest === undefined || at < 0 || reference.kind === 'local') continue
      const layer = layersOf(record.manifest, manifest.config)[at]!
      const map = await this.blobMap(layer.digest, record)
      if (map?.diffId === layer.diffId && map.sizeBytes === layer.sizeBytes)
        return this.#region(record, layer, map, manifest.layers[at]!.chunks)
    }
    return undefined
  }

  #region(record: ImageRecord, layer: LayerDescriptor, map: BlobMap, table: ChunkTable): SeekableSegment {
    const reference = parseReference(record.reference)
    this.#rememberWindows(record, map)
    return {
      table,
      stretchOf: (chunkIndex) => {
        const wanted = tarOf(map, table, chunkIndex)
        return wanted === undefined ? undefined : spanOf(map, wanted.tarStart, wanted.tarEnd)
      },
      join: (first, last) => spanOf(map, first.tarStart, last.tarEnd),
      read: async ({ tarStart, tarEnd }, { signal, urgency, again }) => {
        const span = spanOf(map, tarStart, tarEnd)
        const options = { signal, urgency, originOnly: again }
        // At once: a window that only the registry has costs no second round trip.
        const [window, bytes] = await Promise.all([
          this.#window(map, span, signal),
          this.#parts.registry.range(reference, layer, { start: span.start, end: span.end }, options),
        ])
        const tar = await decodeSpan(map, span, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), window)
        this.read.requests++
        this.read.bytes += bytes.length
        return this.#counted(chunksOf(map, table, tar, span.tarStart))
      },
    }
  }

  #rememberWindows(record: ImageRecord, map: BlobMap): void {
    this.#windows.set(map.windows.id, { record, map })
    const [oldest] = this.#windows.keys()
    if (this.#windows.size > maxWindowRegions && oldest !== undefined) this.#windows.delete(oldest)
  }

  /** The windows of a blob, where they are published. */
  async #windowRegion({ record, map: { digest, windows } }: WindowsOf): Promise<SeekableSegment | undefined> {
    const published = await this.#parts.published.windows(record, { blob: digest, table: windows.id })
    if (published === undefined) return undefined
    const stretch = (first: number, last: number): Stretch => ({
      start: windows.offsets[first]!,
      end: windows.offsets[last + 1]!,
      tarStart: windows.offsets[first]!,
      tarEnd: windows.offsets[last + 1]!,
    })
    return {
      table: windows,
      stretchOf: (index) => stretch(index, index),
      join: (first, last) => ({ ...first, end: last.end, tarEnd: last.tarEnd }),
      read: async ({ start, end }, { again, ...options }) => {
        const bytes = await published({ start, end }, { ...options, originOnly: again })
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

  /** From this host or its region, else as it was published. @throws missing where none has the window */
  async #window(
    { windows, digest }: BlobMap,
    { checkpoint: { window } }: Span,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    if (window.lengthBytes === 0) return new Uint8Array(0)
    const index = windows.indexOf(window.offset)
    const request = { digest: windows.digestAt(index), lengthBytes: windows.lengthAt(index), table: windows.id, index }
    try {
      const at = window.offset - windows.offsets[index]!
      return (await this.#parts.fetchWindow(request, { signal })).subarray(at, at + window.lengthBytes)
    } catch (cause) {
      if (signal.aborted) throw cause
      throw new P2pfsError(
        'missing',
        `the windows of blob ${digest} are neither here, nor in the region, nor published in the registry`,
        { cause },
      )
    }
  }

  /** How to read a blob of the image: from this host or its region, else as it was published. */
  async blobMap(digest: Digest, record: ImageRecord): Promise<BlobMap | undefined> {
    const told = await this.#toldMap(digest)
    // What was published comes into the catalog.
    if (told !== undefined || (await this.#parts.published.of(record)) === undefined) return told
    return await this.#parts.catalog.blobMap(digest)
  }

  async #toldMap(digest: Digest): Promise<BlobMap | undefined> {
    const { catalog, region, log } = this.#parts
    const known = await catalog.blobMap(digest)
    if (known !== undefined) return known
    try {
      const found = await region.fetchBlobMap(digest, { signal: AbortSignal.timeout(mapTimeoutMs) })
      if (found !== undefined) await this.putBlobMap(found)
      return found
    } catch (error) {
      log.debug('region does not answer for the map of a blob', { error, digest })
      return undefined
    }
  }
}
