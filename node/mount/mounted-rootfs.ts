import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { BootingRootfs } from '../boot/booting-rootfs.ts'
import type { Fetcher } from '../fetch/fetcher.ts'
import type { ChunkRequest, FetchedChunk, FetchPriority, RemoteSource, Source } from '../model/chunk-request.ts'
import type { Amount } from '../model/progress.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import { chunkFlags, createBlockImage, type BlockImage } from './fuse/block-image.ts'
import { ReadAhead } from './read-ahead.ts'
import { withinDeadline } from './read-deadline.ts'
import type { WaitingReads } from './waiting-reads.ts'
import type { ArrivalListener, Inventory } from '../store/inventory.ts'

export interface MountedRootfsParts {
  fetcher: Pick<Fetcher, 'fetch' | 'fetchToStore'>
  inventory: Pick<Inventory, 'has' | 'sourcesOf' | 'onArrival'>
  waiting: Pick<WaitingReads, 'during'>
}

export interface MountedRootfsOptions {
  /** The longest that a read waits (ms). */
  readDeadlineMs: number
}

/**
 * When a read of the kernel's read-ahead fails, the kernel at once asks again for the page that its reader wants,
 * several times if filesystems are stacked. All that is one read for its reader, so only the first request may take the
 * whole deadline: one that comes within `withinMs` of a failure has `deadlineMs` (ms).
 */
const repeated = { withinMs: 2_000, deadlineMs: 500 }
/** Late chunks that are remembered: more than reads of the kernel are under way at once. */
const maxLate = 4_096

/** A mounted rootfs: turns reads that miss into fetches, and reads ahead of sequential readers. */
export class MountedRootfs implements BootingRootfs {
  readonly image: BlockImage
  readonly digest: Digest
  readonly manifest: RootfsManifest
  readonly #parts: MountedRootfsParts
  readonly #readDeadlineMs: number
  /** The chunk tables in the order of the image, and the position of the first chunk of each. */
  readonly #segments: { first: number; chunks: RootfsManifest['metadata'] }[] = []
  readonly #state: Uint8Array
  readonly #checkedAtMs: Float64Array
  readonly #arrivals: Disposable
  readonly #readAhead: ReadAhead
  readonly #prefetching = new Set<number>()
  /** Chunks whose read has failed by its deadline. */
  readonly #late = new ExpiringMap<number>({ maxEntries: maxLate })
  readonly #closed = new AbortController()
  #planned: ReadonlySet<number> = new Set()
  #waitingChunks = 0

  constructor(
    parts: MountedRootfsParts,
    { readDeadlineMs }: MountedRootfsOptions,
    manifest: RootfsManifest,
    digest: Digest,
  ) {
    this.#parts = parts
    this.#readDeadlineMs = readDeadlineMs
    this.manifest = manifest
    this.digest = digest
    this.image = createBlockImage(manifest, digest)
    this.#state = new Uint8Array(this.image.state)
    let first = 0
    for (const chunks of tablesOf(manifest)) {
      this.#segments.push({ first, chunks })
      for (const { index, source } of parts.inventory.sourcesOf(chunks)) this.#state[first + index] = chunkFlags[source]
      first += chunks.count
    }
    this.#checkedAtMs = new Float64Array(this.image.checkedAtMs)
    this.#arrivals = parts.inventory.onArrival((...arrival) => this.#arrived(...arrival))
    this.#readAhead = new ReadAhead({
      offsets: new Float64Array(this.image.offsets),
      prefetch: (index) => this.#prefetch(index),
      setTrigger: (index) => void Atomics.or(this.#state, index, chunkFlags.readAheadTrigger),
    })
  }

  /** Chunks that reads wait for now. */
  get waitingChunks(): number {
    return this.#waitingChunks
  }

  /**
   * A read waits for this chunk.
   * @throws timeout if nobody delivers it within the deadline; invalid; the signal's reason
   */
  async miss(chunkIndex: number, { signal }: { signal: AbortSignal }): Promise<Uint8Array> {
    // A read over several chunks comes here with all of them when one is missing.
    const isHere = this.has(chunkIndex)
    this.#waitingChunks++
    const chunk = this.#fetchWithinDeadline(chunkIndex, AbortSignal.any([signal, this.#closed.signal])).finally(
      () => this.#waitingChunks--,
    )
    if (!isHere && !this.#planned.has(chunkIndex)) this.#readAhead.touch(chunkIndex)
    return await chunk
  }

  /** A reader got to a chunk that read-ahead has made a trigger. */
  reachedTrigger(chunkIndex: number): void {
    this.#readAhead.touch(chunkIndex)
  }

  plan(chunks: ReadonlySet<number>): void {
    this.#planned = chunks
  }

  /** A chunk has come. Its table may be one of this image. A file that is known to be right is not hashed once more. */
  #arrived(...[table, index, source, changedAtMs]: Parameters<ArrivalListener>): void {
    for (const { first, chunks } of this.#segments) {
      if (chunks.id !== table) continue
      if (changedAtMs !== undefined) this.#checkedAtMs[first + index] = changedAtMs
      Atomics.or(this.#state, first + index, chunkFlags[source])
    }
  }

  /** The chunks of this image that came while this process ran, by where they came from. They may be gone again. */
  arrivals(): Record<RemoteSource, Amount> {
    const none = (): Amount => ({ bytes: 0, chunks: 0 })
    const arrivals = { peer: none(), neighbour: none(), registry: none() }
    const sources = ['peer', 'neighbour', 'registry'] as const
    const offsets = new Float64Array(this.image.offsets)
    for (const [i, flags] of this.#state.entries()) {
      const source = sources.find((candidate) => (flags & chunkFlags[candidate]) !== 0)
      if (source === undefined) continue
      arrivals[source].bytes += offsets[i + 1]! - offsets[i]!
      arrivals[source].chunks++
    }
    return arrivals
  }

  /** Calls the listener for each chunk that a read has used since the last call. */
  takeUses(listener: (chunk: Digest) => void): void {
    const { used } = chunkFlags
    let first = 0
    for (const { chunks } of this.#segments) {
      for (let index = 0; index < chunks.count; index++) {
        if ((this.#state[first + index]! & used) === 0) continue
        Atomics.and(this.#state, first + index, ~used)
        listener(chunks.digestAt(index))
      }
      first += chunks.count
    }
  }

  /** One more mount: its reads find in the kernel's cache what others have read, and nobody sees them. */
  noteMounted(): void {
    for (const [chunk, flags] of this.#state.entries())
      if ((flags & chunkFlags.served) !== 0) Atomics.or(this.#state, chunk, chunkFlags.used)
  }

  /** Gives up all fetches for this rootfs. */
  close(): void {
    this.#arrivals[Symbol.dispose]()
    this.#closed.abort(new P2pfsError('closed', 'the rootfs is served no more'))
  }

  has(index: number): boolean {
    return this.#parts.inventory.has(this.request(index).digest)
  }

  async fetchToStore(index: number, priority: FetchPriority, signal: AbortSignal): Promise<void> {
    this.#note(index, await this.#parts.fetcher.fetchToStore(this.request(index), { signal, priority }))
  }

  async #fetch(index: number, signal: AbortSignal): Promise<FetchedChunk> {
    const fetched = await this.#parts.fetcher.fetch(this.request(index), { signal, priority: 'demand' })
    this.#note(index, fetched.source)
    return fetched
  }

  #note(index: number, source: Source): void {
    if (source !== 'local') Atomics.or(this.#state, index, chunkFlags[source])
  }

  request(index: number): ChunkRequest {
    const { first, chunks } = this.#segments.findLast((segment) => segment.first <= index && segment.chunks.count > 0)!
    const indexInTable = index - first
    return {
      digest: chunks.digestAt(indexInTable),
      lengthBytes: chunks.lengthAt(indexInTable),
      table: chunks.id,
      index: indexInTable,
    }
  }

  async #fetchWithinDeadline(chunkIndex: number, signal: AbortSignal): Promise<Uint8Array> {
    const isRepeated = this.#late.has(chunkIndex)
    const deadlineMs = isRepeated ? Math.min(repeated.deadlineMs, this.#readDeadlineMs) : this.#readDeadlineMs
    try {
      const { digest: chunk } = this.request(chunkIndex)
      return await this.#parts.waiting.during(
        { rootfs: this.digest, chunk, deadlineMs },
        async ({ failed }) =>
          await withinDeadline(async (options) => await this.#fetch(chunkIndex, options.signal), {
            signal,
            deadlineMs,
            statedMs: this.#readDeadlineMs,
            onFailure: failed,
          }),
      )
    } catch (error) {
      if (!isRepeated && isP2pfsError(error, 'timeout')) this.#late.set(chunkIndex, true, repeated.withinMs)
      throw error
    }
  }

  #prefetch(index: number): void {
    if (this.#prefetching.has(index) || this.has(index)) return
    this.#prefetching.add(index)
    this.fetchToStore(index, 'ahead', this.#closed.signal)
      // The read that needs the chunk tries again, and reports the failure.
      .catch(() => undefined)
      .finally(() => this.#prefetching.delete(index))
  }
}
