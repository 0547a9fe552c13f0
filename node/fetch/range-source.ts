import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { BoundedMap } from '../base/bounded-map.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import { hashBytes } from '../base/hashing.ts'
import type { Log } from '../base/log.ts'
import { release } from '../base/release.ts'
import { orAbort, SingleFlight } from '../base/single-flight.ts'
import { Urgency } from '../base/urgency.ts'
import type { LayerRanges } from '../layers/layer-ranges.ts'
import type { BlobRange, RangeReadOptions, SeekableSegment } from '../layers/seekable-segment.ts'
import type { WholeReads } from '../layers/whole-reads.ts'
import type { ChunkRequest, Delivery, FetchChunk } from '../model/chunk-request.ts'
import type { WholeReadReason } from '../model/whole-read.ts'
import type { Inventory } from '../store/inventory.ts'
import { HeldByPeerError, type ChunkSource, type SourceOptions } from './source.ts'
import type { StreamSource } from './stream-source.ts'

export interface RangeSourceParts {
  /** Tells how to read a segment at any place. */
  layers: Pick<LayerRanges, 'seekable'>
  /** For segments that cannot be read so. */
  stream: Pick<StreamSource, 'fetch'>
  /** Is told which layers can be read at random again. */
  wholeReads: Pick<WholeReads, 'overcome'>
  /** `put` keeps chunks that come besides those that were asked for. */
  inventory: Pick<Inventory, 'put'>
  /** Ends all reads: the daemon stops. */
  signal: AbortSignal
  log: Log
}

/** Reads under way for one segment: two hide the latency, more would only hold memory. */
const readsAtOnce = 2
/** Further reads, for chunks that somebody waits for: they find a read free whatever else is under way. */
const urgentReadsAtOnce = 2
/** One read decodes to at most this much (bytes), unless a single chunk needs more. */
const maxReadBytes = 16 * 1024 * 1024
/** A segment is streamed if a single chunk of it needs more than this (bytes). */
const maxRangeBytes = 64 * 1024 * 1024
/** A read that somebody waits for decodes to no more than this for the sake of other chunks (bytes). */
const maxUrgentReadBytes = 2 * 1024 * 1024
/**
 * The gap between two ranges of one read (bytes of the blob): what a window costs, and a request at 10 MB/s and a few
 * milliseconds.
 */
const maxGapBytes = 32 * 1024
/**
 * How long a layer that could not be read at random is not tried so (ms). A proxy on the way may have been the reason,
 * and windows that were lost may be published.
 */
const streamedMs = 300_000

/** Segments whose way of reading is remembered. */
const maxSegmentsHeld = 32
/** Segments that are remembered to be streamed: more layers than a host reads in that time. */
const maxStreamed = 1024

interface Wanted {
  index: number
  range: BlobRange
  urgency: Urgency
  fetchChunk: FetchChunk
  isHeld: (() => boolean) | undefined
  /** Fires when nobody wants it any more. */
  signal: AbortSignal
  found: PromiseWithResolvers<Uint8Array>
}

/**
 * Reads the registry at any place: a chunk costs one request for the range that it is in, and all chunks of that range
 * are kept. Chunks that are wanted while reads are under way are read together.
 *
 * A segment is streamed only where that is proved to be the only way: the registry has no ranges, nobody has its blob
 * map or its windows, or its bytes were wrong twice. A source that does not answer now proves nothing: the fetch fails,
 * and whoever waits tries again.
 */
export class RangeSource implements ChunkSource {
  readonly #parts: RangeSourceParts
  readonly #reads = new Map<Digest, SegmentReads>()
  readonly #held = new BoundedMap<Digest, SeekableSegment>({ maxEntries: maxSegmentsHeld })
  readonly #finding = new SingleFlight<SeekableSegment | undefined>()
  readonly #streamed: ExpiringMap<Digest, WholeReadReason>

  constructor(parts: RangeSourceParts, { now = () => performance.now() }: { now?: () => number } = {}) {
    this.#parts = parts
    this.#streamed = new ExpiringMap({ maxEntries: maxStreamed, now })
  }

  async fetch(request: ChunkRequest, options: SourceOptions): Promise<Delivery> {
    const { signal } = options
    const { table, index, digest, lengthBytes } = request
    const { stream, wholeReads, log } = this.#parts
    const streamed = this.#streamed.get(table)
    if (streamed !== undefined) return await stream.fetch(request, { ...options, reason: streamed })
    const segment = await this.#seekable(table, signal)
    if (segment === undefined) return await stream.fetch(request, { ...options, reason: 'no-map' })
    const range = segment.rangeOf(index)
    if (range === undefined) return await checked(new Uint8Array(lengthBytes), digest)
    if (range.tarEnd - range.tarStart > maxRangeBytes)
      return await stream.fetch(request, { ...options, reason: 'large-chunk' })
    let reads = this.#reads.get(table)
    if (reads === undefined) {
      reads = new SegmentReads(segment, this.#parts, () => this.#reads.delete(table))
      this.#reads.set(table, reads)
    }
    try {
      const bytes = await orAbort(reads.want(index, range, options), signal)
      wholeReads.overcome(table)
      return bytes
    } catch (error) {
      if (signal.aborted || !isP2pfsError(error, 'unsupported', 'invalid')) throw error
      const reason = reasonOf(error)
      log.warn('layer cannot be read at random; it is streamed', { error, table, reason })
      // Wrong bytes are those of one range: the others are still read at random.
      if (error.code === 'unsupported') this.#streamed.set(table, reason, streamedMs)
      return await stream.fetch(request, { ...options, reason })
    }
  }

  /** Finding out takes large records from the disk: it is done once for all that ask, and kept. */
  async #seekable(table: Digest, signal: AbortSignal): Promise<SeekableSegment | undefined> {
    return (
      this.#held.get(table) ??
      (await this.#finding.run(table, signal, async (wanted) => await this.#find(table, wanted)))
    )
  }

  async #find(table: Digest, signal: AbortSignal): Promise<SeekableSegment | undefined> {
    const segment = await this.#parts.layers.seekable(table, { signal })
    if (segment !== undefined) this.#held.set(table, segment)
    return segment
  }
}

function reasonOf({ code, details }: P2pfsError): WholeReadReason {
  if (code === 'invalid') return 'wrong-bytes'
  return details['lacks'] === 'windows' ? 'no-windows' : 'no-ranges'
}

/** The reads of one segment. */
class SegmentReads {
  readonly #segment: SeekableSegment
  readonly #parts: RangeSourceParts
  readonly #onIdle: () => void
  /** Bounded by the fetches that are under way. */
  #waiting: Wanted[] = []
  #running = 0

  constructor(segment: SeekableSegment, parts: RangeSourceParts, onIdle: () => void) {
    this.#segment = segment
    this.#parts = parts
    this.#onIdle = onIdle
  }

  async want(
    index: number,
    range: BlobRange,
    { signal, urgency, fetchChunk, isHeld }: SourceOptions,
  ): Promise<Uint8Array> {
    const found = Promise.withResolvers<Uint8Array>()
    // The reader may be gone when the read fails.
    found.promise.catch(() => undefined)
    const wanted = { index, range, signal, urgency, fetchChunk, isHeld, found }
    this.#waiting.push(wanted)
    signal.addEventListener('abort', () => this.#forget(wanted), { once: true })
    urgency.onRaise(() => this.#next())
    // Chunks that are asked for in one turn of the event loop are read together.
    setImmediate(() => this.#next())
    return await found.promise
  }

  #forget(wanted: Wanted): void {
    this.#waiting = this.#waiting.filter((waiting) => waiting !== wanted)
    if (this.#running === 0 && this.#waiting.length === 0) this.#onIdle()
  }

  #next(): void {
    while (this.#waiting.length > 0) {
      const isUrgent = this.#waiting.some(({ urgency }) => urgency.isUrgent)
      if (this.#running >= readsAtOnce + (isUrgent ? urgentReadsAtOnce : 0)) return
      this.#leaveToPeers()
      if (this.#waiting.length === 0) break
      const group = this.#takeGroup()
      this.#running++
      void this.#read(group).finally(() => {
        this.#running--
        this.#next()
        if (this.#running === 0 && this.#waiting.length === 0) this.#onIdle()
      })
    }
  }

  /** Gives up what peers have got meanwhile: a read is decided when it starts, not when it is asked for. */
  #leaveToPeers(): void {
    const held = new Set(this.#waiting.filter(({ isHeld }) => isHeld?.() === true))
    if (held.size === 0) return
    this.#waiting = this.#waiting.filter((wanted) => !held.has(wanted))
    for (const { found } of held) found.reject(new HeldByPeerError())
    if (this.#running === 0 && this.#waiting.length === 0) this.#onIdle()
  }

  /**
   * The chunk that has waited longest, of those that somebody waits for if there are any; and the chunks beside it, as
   * far as one read goes.
   */
  #takeGroup(): { wanted: Wanted[]; range: BlobRange } {
    const oldest = this.#waiting.find(({ urgency }) => urgency.isUrgent) ?? this.#waiting[0]!
    const maxBytes = oldest.urgency.isUrgent ? maxUrgentReadBytes : maxReadBytes
    const sorted = this.#waiting.toSorted((a, b) => a.range.start - b.range.start)
    const position = sorted.indexOf(oldest)
    let { range } = oldest
    const grow = (neighbour: BlobRange): boolean => {
      if (neighbour.start - range.end > maxGapBytes || range.start - neighbour.end > maxGapBytes) return false
      const joined = this.#segment.join(
        neighbour.start < range.start ? neighbour : range,
        neighbour.end > range.end ? neighbour : range,
      )
      if (joined.tarEnd - joined.tarStart > maxBytes) return false
      range = joined
      return true
    }
    for (let i = position + 1; i < sorted.length && grow(sorted[i]!.range); i++);
    for (let i = position - 1; i >= 0 && grow(sorted[i]!.range); i--);
    const isWithin = ({ range: { start, end } }: Wanted): boolean => start >= range.start && end <= range.end
    const wanted = this.#waiting.filter(isWithin)
    this.#waiting = this.#waiting.filter((waiting) => !isWithin(waiting))
    return { wanted, range }
  }

  async #read({ wanted, range }: { wanted: Wanted[]; range: BlobRange }): Promise<void> {
    const answered = new Set<number>()
    const options = {
      signal: AbortSignal.any([this.#parts.signal, whenAllAbort(wanted.map(({ signal }) => signal))]),
      urgency: Urgency.ofAny(wanted.map(({ urgency }) => urgency)),
      fetchChunk: wanted[0]!.fetchChunk,
    }
    try {
      // Wrong bytes may come from a mirror or from the way: they are asked for once more before anybody hears of them.
      const chunks = await this.#chunksOf(range, { ...options, again: false }).catch(async (error: unknown) => {
        if (!isP2pfsError(error, 'invalid')) throw error
        return await this.#chunksOf(range, { ...options, again: true })
      })
      for (const { index, found } of wanted) {
        const bytes = chunks.get(index)
        answered.add(index)
        if (bytes === undefined)
          found.reject(new P2pfsError('invalid', 'a range of the layer lacks a chunk that it should have', { index }))
        else found.resolve(bytes)
      }
      // The caller keeps the chunk that it has asked for.
      for (const index of answered) chunks.delete(index)
      await this.#keep(chunks)
    } catch (error) {
      for (const { found } of wanted) found.reject(error)
    }
  }

  /** Nobody waits for these chunks: one that cannot be kept is read again when somebody does. */
  async #keep(chunks: ReadonlyMap<number, Uint8Array>): Promise<void> {
    try {
      for (const [index, bytes] of chunks) {
        await this.#parts.inventory.put(this.#segment.table.digestAt(index), bytes, 'registry')
        release(bytes)
      }
    } catch (error) {
      this.#parts.log.warn('chunks that came with others cannot be kept', { error, table: this.#segment.table.id })
    }
  }

  async #chunksOf(range: BlobRange, options: RangeReadOptions): Promise<Map<number, Uint8Array>> {
    const chunks = new Map<number, Uint8Array>()
    for (const { index, bytes } of await this.#segment.read(range, options)) {
      chunks.set(index, await checked(bytes, this.#segment.table.digestAt(index)))
    }
    return chunks
  }
}

/** A signal that fires when all of one or more signals have. */
function whenAllAbort(signals: readonly AbortSignal[]): AbortSignal {
  const all = new AbortController()
  const check = (): void => {
    if (signals.every(({ aborted }) => aborted)) all.abort(signals[0]!.reason)
  }
  for (const signal of signals) signal.addEventListener('abort', check, { once: true })
  check()
  return all.signal
}

async function checked(bytes: Uint8Array, digest: Digest): Promise<Uint8Array> {
  if ((await hashBytes(bytes)) !== digest)
    throw new P2pfsError('invalid', 'the registry delivers other bytes than the layer had when it was indexed', {
      digest,
    })
  return bytes
}
