import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import { orAbort, SingleFlight } from '../base/single-flight.ts'
import { Urgency } from '../base/urgency.ts'
import type { ChunkRequest } from '../model/chunk-request.ts'
import type { ChunkSource } from './fetcher.ts'

/** A stretch of a region's blob that can be read and decoded by itself. */
export interface Stretch {
  /** In the blob, bytes. */
  start: number
  end: number
  /** In what it decodes to, bytes. */
  tarStart: number
  tarEnd: number
}

/** A region whose blob can be read anywhere. */
export interface SeekableSegment {
  table: ChunkTable
  /** What to read for this chunk; undefined for one that is all zero. */
  stretchOf: (chunkIndex: number) => Stretch | undefined
  /** What to read for all between two stretches. */
  join: (first: Stretch, last: Stretch) => Stretch
  /**
   * Reads it with one request and decodes it: all chunks that are whole in it.
   * @throws unsupported where the registry has no ranges; missing where what decoding needs is not here; invalid
   */
  read: (
    stretch: Stretch,
    options: { signal: AbortSignal; urgency: Urgency; again: boolean },
  ) => Promise<Iterable<{ index: number; bytes: Uint8Array }>>
}

export interface RangeSourceParts {
  /** Undefined where nothing tells how to read the region at random. */
  seekable: (table: Digest) => Promise<SeekableSegment | undefined>
  /** For regions that cannot be read at random. */
  stream: ChunkSource
  keep: (digest: Digest, bytes: Uint8Array) => Promise<void>
  /** Ends all reads: the daemon stops. */
  signal: AbortSignal
  log: Log
}

/** Reads under way for one region: two hide the latency, more would only hold memory. */
const readsAtOnce = 2
/** Besides, for chunks that somebody waits for: they find a read free whatever else is under way. */
const urgentReadsAtOnce = 2
/** One read makes at most this much, unless a single chunk needs more; beyond the second the region is streamed. Bytes. */
const maxReadBytes = 16 * 1024 * 1024
const maxStretchBytes = 64 * 1024 * 1024
/** One that somebody waits for makes no more than this for the sake of others, bytes. */
const maxUrgentReadBytes = 2 * 1024 * 1024
/** Between two stretches that one read has: what a window costs, and a request at 10 MB/s and a few milliseconds. Bytes of the blob. */
const maxGapBytes = 32 * 1024
/** How long a registry that turned out not to have ranges is not asked for them, milliseconds: a proxy on the way may have been the reason. */
const streamedMs = 300_000

/** Regions whose way of reading is remembered; the oldest is forgotten. */
const maxRegionsHeld = 32

interface Wanted {
  index: number
  stretch: Stretch
  urgency: Urgency
  /** Fires when nobody wants it any more. */
  signal: AbortSignal
  found: PromiseWithResolvers<Uint8Array>
}

/**
 * The last resort where the registry is read at random: a chunk costs one request for the stretch that it is in, and all
 * chunks of that stretch are kept. Those that are wanted while reads are under way are read together.
 */
export class RangeSource implements ChunkSource {
  readonly #parts: RangeSourceParts
  readonly #regions = new Map<Digest, SegmentReads>()
  readonly #held = new Map<Digest, SeekableSegment>()
  readonly #finding = new SingleFlight<SeekableSegment | undefined>()
  /** Regions whose registry turned out not to have ranges, and until when that is believed. */
  readonly #streamed = new Map<Digest, number>()
  readonly #now: () => number

  constructor(parts: RangeSourceParts, { now = Date.now }: { now?: () => number } = {}) {
    this.#parts = parts
    this.#now = now
  }

  async fetch(request: ChunkRequest, options: { signal: AbortSignal; urgency: Urgency }): Promise<Uint8Array> {
    const { signal } = options
    const region = this.#isStreamed(request.table) ? undefined : await this.#seekable(request.table, signal)
    if (region === undefined) return await this.#parts.stream.fetch(request, options)
    const stretch = region.stretchOf(request.index)
    if (stretch === undefined) return checked(new Uint8Array(request.lengthBytes), request.digest)
    if (stretch.tarEnd - stretch.tarStart > maxStretchBytes) return await this.#parts.stream.fetch(request, options)
    let reads = this.#regions.get(request.table)
    if (reads === undefined) {
      reads = new SegmentReads(region, this.#parts, () => this.#regions.delete(request.table))
      this.#regions.set(request.table, reads)
    }
    try {
      return await orAbort(reads.want(request.index, stretch, options), signal)
    } catch (error) {
      if (signal.aborted || !isP2pfsError(error, 'unsupported', 'invalid', 'missing')) throw error
      this.#parts.log.warn('layer cannot be read at random; it is streamed', { error, table: request.table })
      if (error.code === 'unsupported') this.#streamed.set(request.table, this.#now() + streamedMs)
      return await this.#parts.stream.fetch(request, options)
    }
  }

  #isStreamed(table: Digest): boolean {
    const now = this.#now()
    for (const [id, untilMs] of this.#streamed) if (untilMs <= now) this.#streamed.delete(id)
    return this.#streamed.has(table)
  }

  /** Finding out takes large records from the disk: once for all that ask, and kept for those that are read now. */
  async #seekable(table: Digest, signal: AbortSignal): Promise<SeekableSegment | undefined> {
    return this.#held.get(table) ?? (await this.#finding.run(table, signal, async () => await this.#find(table)))
  }

  async #find(table: Digest): Promise<SeekableSegment | undefined> {
    const region = await this.#parts.seekable(table)
    if (region === undefined) return undefined
    this.#held.set(table, region)
    const [oldest] = this.#held.keys()
    if (this.#held.size > maxRegionsHeld && oldest !== undefined) this.#held.delete(oldest)
    return region
  }
}

/** The reads of one region. */
class SegmentReads {
  readonly #region: SeekableSegment
  readonly #parts: RangeSourceParts
  readonly #onIdle: () => void
  /** Bounded by the fetches that are under way. */
  #waiting: Wanted[] = []
  #running = 0

  constructor(region: SeekableSegment, parts: RangeSourceParts, onIdle: () => void) {
    this.#region = region
    this.#parts = parts
    this.#onIdle = onIdle
  }

  async want(
    index: number,
    stretch: Stretch,
    { signal, urgency }: { signal: AbortSignal; urgency: Urgency },
  ): Promise<Uint8Array> {
    const found = Promise.withResolvers<Uint8Array>()
    // Its reader may be gone when it fails.
    found.promise.catch(() => undefined)
    const wanted = { index, stretch, signal, urgency, found }
    this.#waiting.push(wanted)
    signal.addEventListener('abort', () => this.#forget(wanted), { once: true })
    urgency.onRaise(() => this.#next())
    // Those that are asked for together are read together.
    setImmediate(() => this.#next())
    return await found.promise
  }

  #forget(wanted: Wanted): void {
    this.#waiting = this.#waiting.filter((one) => one !== wanted)
    if (this.#running === 0 && this.#waiting.length === 0) this.#onIdle()
  }

  #next(): void {
    while (this.#waiting.length > 0) {
      const isUrgent = this.#waiting.some(({ urgency }) => urgency.isUrgent)
      if (this.#running >= readsAtOnce + (isUrgent ? urgentReadsAtOnce : 0)) return
      const group = this.#takeGroup()
      this.#running++
      void this.#read(group).finally(() => {
        this.#running--
        this.#next()
        if (this.#running === 0 && this.#waiting.length === 0) this.#onIdle()
      })
    }
  }

  /** The one that has waited longest, of those that somebody waits for if there are any; and those beside it, as far as one read goes. */
  #takeGroup(): { wanted: Wanted[]; stretch: Stretch } {
    const oldest = this.#waiting.find(({ urgency }) => urgency.isUrgent) ?? this.#waiting[0]!
    const maxBytes = oldest.urgency.isUrgent ? maxUrgentReadBytes : maxReadBytes
    const sorted = this.#waiting.toSorted((a, b) => a.stretch.start - b.stretch.start)
    const at = sorted.indexOf(oldest)
    let { stretch } = oldest
    const grow = (other: Stretch): boolean => {
      if (other.start - stretch.end > maxGapBytes || stretch.start - other.end > maxGapBytes) return false
      const joined = this.#region.join(
        other.start < stretch.start ? other : stretch,
        other.end > stretch.end ? other : stretch,
      )
      if (joined.tarEnd - joined.tarStart > maxBytes) return false
      stretch = joined
      return true
    }
    for (let i = at + 1; i < sorted.length && grow(sorted[i]!.stretch); i++);
    for (let i = at - 1; i >= 0 && grow(sorted[i]!.stretch); i--);
    const isWithin = ({ stretch: { start, end } }: Wanted): boolean => start >= stretch.start && end <= stretch.end
    const wanted = this.#waiting.filter(isWithin)
    this.#waiting = this.#waiting.filter((one) => !isWithin(one))
    return { wanted, stretch }
  }

  async #read({ wanted, stretch }: { wanted: Wanted[]; stretch: Stretch }): Promise<void> {
    const answered = new Set<number>()
    const options = {
      signal: AbortSignal.any([this.#parts.signal, whenAllAbort(wanted.map(({ signal }) => signal))]),
      urgency: Urgency.ofAny(wanted.map(({ urgency }) => urgency)),
    }
    try {
      // Wrong bytes may be a mirror's, or the way's: asked for once more before anybody hears of them.
      const chunks = await this.#chunksOf(stretch, { ...options, again: false }).catch(async (error: unknown) => {
        if (!isP2pfsError(error, 'invalid')) throw error
        return await this.#chunksOf(stretch, { ...options, again: true })
      })
      for (const { index, found } of wanted) {
        const bytes = chunks.get(index)
        answered.add(index)
        if (bytes === undefined)
          found.reject(new P2pfsError('invalid', 'a stretch of the layer lacks a chunk that it should have', { index }))
        else found.resolve(bytes)
      }
      // Those that were wanted are kept by whoever fetches them.
      for (const index of answered) chunks.delete(index)
      await this.#keep(chunks)
    } catch (error) {
      for (const { found } of wanted) found.reject(error)
    }
  }

  /** Nobody waits for these: what cannot be kept is read again when somebody does. */
  async #keep(chunks: ReadonlyMap<number, Uint8Array>): Promise<void> {
    try {
      for (const [index, bytes] of chunks) await this.#parts.keep(this.#region.table.digestAt(index), bytes)
    } catch (error) {
      this.#parts.log.warn('chunks that were read besides cannot be kept', { error, table: this.#region.table.id })
    }
  }

  async #chunksOf(stretch: Stretch, options: Parameters<SeekableSegment['read']>[1]): Promise<Map<number, Uint8Array>> {
    const chunks = new Map<number, Uint8Array>()
    for (const { index, bytes } of await this.#region.read(stretch, options)) {
      chunks.set(index, checked(bytes, this.#region.table.digestAt(index)))
    }
    return chunks
  }
}

/** Of one or more. */
function whenAllAbort(signals: readonly AbortSignal[]): AbortSignal {
  const all = new AbortController()
  const check = (): void => {
    if (signals.every(({ aborted }) => aborted)) all.abort(signals[0]!.reason)
  }
  for (const signal of signals) signal.addEventListener('abort', check, { once: true })
  check()
  return all.signal
}

function checked(bytes: Uint8Array, digest: Digest): Uint8Array {
  if (digestOf(bytes) !== digest)
    throw new P2pfsError('invalid', 'the registry delivers other bytes than the layer had when it was indexed', {
      digest,
    })
  return bytes
}
