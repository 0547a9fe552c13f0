import type { BlobMap } from '../../protocol/blob-map.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import { BoundedMap } from '../base/bounded-map.ts'
import { release } from '../base/release.ts'
import type { Log } from '../base/log.ts'
import type { FetchChunk } from '../model/chunk-request.ts'
import { requestOf } from '../model/rootfs-chunks.ts'
import type { PublishedImages } from '../publish/published-images.ts'
import {
  layersOf,
  type ByteRange,
  type ImageSource,
  type LayerDescriptor,
  type ReadRangeOptions,
} from '../registry/image-source.ts'
import { parseReference, repositoryOf, type Reference } from '../registry/reference.ts'
import { checkpointOf, chunksOf, decodeRange, rangeOf, tarOf, type BlobRange } from '../rootfs/blob-range.ts'
import type { Catalog } from '../store/catalog.ts'
import { OpenQuestions } from './open-questions.ts'
import type { RegionAnswers } from './region-answers.ts'
import type { SeekableSegment } from './seekable-segment.ts'
import type { BlobMaps } from '../store/blob-maps.ts'

/**
 * Windows that nobody delivers for so long are lost (ms), and the layer is read whole. A holder or a registry that
 * restarts has them again by then.
 */
const maxWindowsLostMs = 10_000
/** The same as a share of the read deadline: a read that has waited in vain can still get its bytes. */
const windowsLostShare = 1 / 6
/** A blob map for which nobody answers for so long is told of (ms): a registry that restarts takes less. */
const unansweredLongMs = 30_000

/** Window segments of layers that are read, remembered with the image that has them. */
const maxWindowSegments = 256

/** Repositories that are asked for a layer that its own one refuses. */
const maxOtherRepositories = 4

type RangeArguments = [range: ByteRange, options: ReadRangeOptions]

interface WindowSegment {
  record: ImageRecord
  map: BlobMap
}

export interface LayerRangesParts {
  catalog: Pick<Catalog, 'images' | 'rootfs'>
  blobMaps: Pick<BlobMaps, 'get' | 'put'>
  registry: Pick<ImageSource, 'range'>
  answers: Pick<RegionAnswers, 'blobMap'>
  published: Pick<PublishedImages, 'of' | 'windows'>
  log: Log
  now?: () => number
}

/** Reads layers out of their blobs in the registry at any place, by their blob maps. */
export class LayerRanges {
  readonly #parts: LayerRangesParts
  readonly #windowsLostMs: number
  /** Requests to the registry, and bytes as it sent them. */
  readonly read = { requests: 0, bytes: 0 }
  /** Chunks that these bytes decoded to. */
  readonly chunks = { bytes: 0, chunks: 0 }
  readonly #windowSegments = new BoundedMap<Digest, WindowSegment>({ maxEntries: maxWindowSegments })
  /** Blob maps that nobody has answered for, and windows that nobody delivers. */
  readonly #open: OpenQuestions

  constructor(parts: LayerRangesParts, { readDeadlineMs }: { readDeadlineMs: number }) {
    this.#parts = parts
    this.#windowsLostMs = Math.min(maxWindowsLostMs, windowsLostShare * readDeadlineMs)
    this.#open = new OpenQuestions(parts)
  }

  /**
   * Takes the map of a blob from the region, and the windows from wherever they are.
   * @throws unavailable where the region does not answer; as `fetchChunk`
   */
  async take(digest: Digest, { signal, fetchChunk }: { signal: AbortSignal; fetchChunk: FetchChunk }): Promise<void> {
    const map = await this.#hereOrInRegion(digest, signal)
    if (map === undefined) return
    for (let index = 0; index < map.windows.count; index++) await fetchChunk(requestOf(map.windows, index), { signal })
  }

  /**
   * How to read a segment at any place: the data segment of a layer whose blob map is here, in the region, or
   * published; or the window segment of such a layer that is being read.
   * @returns undefined where region and registry have answered that there is no map, or no publication of the windows
   * @throws unavailable where one of them has not answered
   */
  async seekable(table: Digest, { signal }: { signal: AbortSignal }): Promise<SeekableSegment | undefined> {
    const windows = this.#windowSegments.get(table)
    if (windows !== undefined) return await this.#windowSegment(windows)
    const { catalog } = this.#parts
    let unanswered: unknown
    for (const record of await catalog.images()) {
      const manifest = await catalog.rootfs(record.rootfsDigest)
      const reference = parseReference(record.reference)
      const index = manifest?.layers.findIndex(({ chunks }) => chunks.id === table) ?? -1
      if (manifest === undefined || index < 0 || reference.kind === 'local') continue
      const layer = layersOf(record.manifest, manifest.config)[index]!
      const map = await this.#findMap(layer.digest, record, signal).catch((error: unknown) => {
        signal.throwIfAborted()
        // The same layer may be in another image, whose registry answers.
        unanswered = error
        return undefined
      })
      if (map?.diffId === layer.diffId && map.sizeBytes === layer.sizeBytes)
        return this.#dataSegment(record, layer, map, manifest.layers[index]!.chunks)
    }
    if (unanswered !== undefined) throw unanswered
    return undefined
  }

  #dataSegment(record: ImageRecord, layer: LayerDescriptor, map: BlobMap, table: ChunkTable): SeekableSegment {
    let reference = parseReference(record.reference)
    const rangeOfAny = async (...[range, options]: RangeArguments): Promise<Uint8Array> => {
      try {
        return await this.#parts.registry.range(reference, layer, range, options)
      } catch (cause) {
        if (options.signal.aborted || !isP2pfsError(cause, 'denied', 'missing')) throw cause
        // The same layer may be in another image, which this host may read.
        const found = await this.#rangeOfOthers(reference, layer, range, options)
        if (found === undefined) throw cause
        reference = found.reference
        return found.bytes
      }
    }
    return {
      table,
      rangeOf: (chunkIndex) => {
        const wanted = tarOf(map, table, chunkIndex)
        return wanted === undefined ? undefined : rangeOf(map, wanted.tarStart, wanted.tarEnd)
      },
      join: (first, last) => rangeOf(map, first.tarStart, last.tarEnd),
      read: async (range, { signal, urgency, again, fetchChunk }) => {
        const { start, end } = range
        this.#windowSegments.set(map.windows.id, { record, map })
        // At once: a window that only the registry has costs no second round trip.
        const window = this.#window(map, range, { signal, fetchChunk })
        window.catch(() => undefined)
        // First: a registry without ranges is one whatever becomes of the window.
        const bytes = await rangeOfAny({ start, end }, { signal, urgency, originOnly: again }).catch(asNotNow)
        const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
        const tar = await decodeRange(map, range, buffer, await window)
        const readBytes = bytes.length
        if (tar.buffer !== bytes.buffer) release(bytes)
        this.read.requests++
        this.read.bytes += readBytes
        return this.#counted(chunksOf(map, table, tar, range.tarStart), tar)
      },
    }
  }

  /** The range out of another repository that has the layer; undefined where none delivers it. */
  async #rangeOfOthers(
    refused: Reference,
    layer: LayerDescriptor,
    ...[range, options]: RangeArguments
  ): Promise<{ reference: Reference; bytes: Uint8Array } | undefined> {
    const { catalog, registry } = this.#parts
    const tried = new Set([repositoryOf(refused)])
    for (const { reference: name, manifest } of await catalog.images()) {
      const reference = parseReference(name)
      const repository = repositoryOf(reference)
      if (reference.kind === 'local' || tried.has(repository) || !manifest.includes(layer.digest)) continue
      if (tried.size > maxOtherRepositories) return undefined
      tried.add(repository)
      try {
        return { reference, bytes: await registry.range(reference, layer, range, options) }
      } catch (error) {
        if (options.signal.aborted || !isP2pfsError(error)) throw error
      }
    }
    return undefined
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
        const bytes = await readPublished({ start, end }, { signal, urgency, originOnly: again }).catch(asNotNow)
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

  /** @param tar what the chunks are copied out of, which nobody needs any more then */
  *#counted(
    chunks: Iterable<{ index: number; bytes: Buffer }>,
    tar: Buffer,
  ): Generator<{ index: number; bytes: Buffer }> {
    try {
      for (const chunk of chunks) {
        this.chunks.bytes += chunk.bytes.length
        this.chunks.chunks++
        yield chunk
      }
    } finally {
      release(tar)
    }
  }

  /** The map of a blob of the image as far as it is to be had now: from this host, from its region, or as published. */
  async blobMap(digest: Digest, record: ImageRecord): Promise<BlobMap | undefined> {
    try {
      return await this.#findMap(digest, record, new AbortController().signal)
    } catch (error) {
      this.#parts.log.debug('nobody answers for a blob map', { error, digest })
      return undefined
    }
  }

  /**
   * The map of a blob of the image.
   * @returns undefined where region and registry have answered that they have none
   * @throws unavailable where one of them has not answered
   */
  async #findMap(digest: Digest, record: ImageRecord, signal: AbortSignal): Promise<BlobMap | undefined> {
    const { blobMaps, published } = this.#parts
    let unanswered: Error | undefined
    const note = (error: unknown): undefined => {
      signal.throwIfAborted()
      unanswered = error as Error
    }
    let map = await this.#hereOrInRegion(digest, signal).catch(note)
    // A publication's maps come into the catalog with it.
    if (map === undefined && (await published.of(record).catch(note)) !== undefined) map = await blobMaps.get(digest)
    if (map === undefined && unanswered !== undefined) throw this.#stillOpen(digest, record, unanswered)
    this.#open.answered(digest)
    return map
  }

  /** Tells of a question that has been open for long, once a period. */
  #stillOpen(digest: Digest, { reference }: ImageRecord, cause: Error): P2pfsError {
    const before = this.#open.openMs(digest)
    const openMs = this.#open.ask(digest)
    if (before < unansweredLongMs && openMs >= unansweredLongMs)
      this.#parts.log.warn('nobody says how to read a layer at random; reads of it wait', {
        error: cause,
        image: reference,
        layer: digest,
      })
    return new P2pfsError(
      'unavailable',
      `nobody has answered for ${Math.round(openMs / 1000)} s how layer ${digest} can be read at random: ` +
        cause.message,
      { cause },
    )
  }

  /** @throws unavailable where the region does not answer */
  async #hereOrInRegion(digest: Digest, signal: AbortSignal): Promise<BlobMap | undefined> {
    const { blobMaps, answers } = this.#parts
    const stored = await blobMaps.get(digest)
    if (stored !== undefined) return stored
    const map = await answers.blobMap(digest, signal)
    if (map !== undefined) await blobMaps.put(map)
    return map
  }

  /**
   * The window from which a range is decoded.
   * @throws unsupported where it is lost: every source has answered that it is not there, for a while
   */
  async #window(
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
      this.#open.answered(windows.id)
      return chunk.subarray(offset, offset + window.lengthBytes)
    } catch (cause) {
      if (signal.aborted || !isP2pfsError(cause, 'missing')) throw cause
      const message = `the windows of blob ${digest} are neither here, nor in the region, nor published in the registry`
      if (this.#open.ask(windows.id) < this.#windowsLostMs) throw new P2pfsError('unavailable', message, { cause })
      throw new P2pfsError('unsupported', message, { cause, lacks: 'windows' })
    }
  }
}

/** A registry that refuses a request (400, say) tells nothing of the bytes: they are not read otherwise for that. */
function asNotNow(cause: unknown): never {
  if (!isP2pfsError(cause, 'invalid') || cause.details['status'] === undefined) throw cause
  throw new P2pfsError('unavailable', cause.message, { cause })
}
