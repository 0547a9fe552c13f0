import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError } from '../../protocol/errors.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ChunkRequest, FetchedChunk, FetchPriority, RemoteSource } from '../model/chunk-request.ts'
import { ReadAhead } from './read-ahead.ts'
import { chunkFlags, createBlockImage, type BlockImage } from './fuse/block-image.ts'
import { withinDeadline } from './read-deadline.ts'

export interface MountedRootfsParts {
  has: (digest: Digest) => boolean
  /** Where a chunk came from while this process ran. */
  sourceOf: (digest: Digest) => RemoteSource | undefined
  fetch: (request: ChunkRequest, options: { signal: AbortSignal; priority: FetchPriority }) => Promise<FetchedChunk>
  /** What a read waits at most. */
  readDeadlineMs: number
}

/**
 * When the read-ahead of the kernel fails, it asks again at once for the page that its reader wants, several times where filesystems
 * are on top of each other: one and the same read, of which only the first part may take the whole deadline. Milliseconds.
 */
const askedAgain = { withinMs: 2_000, deadlineMs: 500 }

/** A rootfs that is mounted: turns reads that miss into fetches, and reads ahead of those that are sequential. */
export class MountedRootfs {
  readonly image: BlockImage
  readonly digest: Digest
  readonly manifest: RootfsManifest
  readonly #parts: MountedRootfsParts
  readonly #regions: { first: number; chunks: RootfsManifest['metadata'] }[] = []
  readonly #state: Uint8Array
  readonly #readAhead: ReadAhead
  readonly #prefetching = new Set<number>()
  /** Chunks whose deadline has passed, until when a read of them counts as the same one. */
  readonly #late = new Map<number, number>()
  readonly #closed = new AbortController()
  /** Reads that wait for a chunk. */
  waiting = 0
  /** What is being fetched ahead in an order that is known: there is no need to guess what comes after one of these. */
  planned: ReadonlySet<number> = new Set()

  constructor(parts: MountedRootfsParts, manifest: RootfsManifest, digest: Digest) {
    this.#parts = parts
    this.manifest = manifest
    this.digest = digest
    this.image = createBlockImage(manifest, digest)
    this.#state = new Uint8Array(this.image.state)
    let first = 0
    for (const chunks of [manifest.metadata, ...manifest.layers.map((layer) => layer.chunks)]) {
      this.#regions.push({ first, chunks })
      for (let i = 0; i < chunks.count; i++) {
        const source = parts.sourceOf(chunks.digestAt(i))
        if (source !== undefined) this.#state[first + i] = chunkFlags[source]
      }
      first += chunks.count
    }
    this.#readAhead = new ReadAhead({
      offsets: new Float64Array(this.image.offsets),
      prefetch: (index) => this.#prefetch(index),
      mark: (index) => void Atomics.or(this.#state, index, chunkFlags.mark),
    })
  }

  /** A read waits for this chunk. @throws timeout where nobody delivers it within the deadline; invalid; the signal's reason */
  async miss(chunkIndex: number, { signal }: { signal: AbortSignal }): Promise<Uint8Array> {
    // A read over several chunks comes here whole when one of them is missing.
    const here = this.has(chunkIndex)
    this.waiting++
    const chunk = this.#patiently(chunkIndex, AbortSignal.any([signal, this.#closed.signal])).finally(
      () => this.waiting--,
    )
    if (!here && !this.planned.has(chunkIndex)) this.#readAhead.touch(chunkIndex)
    return await chunk
  }

  /** A reader came to a chunk that read-ahead had marked. */
  reached(chunkIndex: number): void {
    this.#readAhead.touch(chunkIndex)
  }

  /** A chunk of a region, maybe of this image, has come. */
  arrived(table: Digest, index: number, source: RemoteSource): void {
    for (const { first, chunks } of this.#regions)
      if (chunks.id === table) Atomics.or(this.#state, first + index, chunkFlags[source])
  }

  /** What came of this image while this process ran, by where it came from, in chunks that are here or were. */
  arrivals(): Record<RemoteSource, { bytes: number; chunks: number }> {
    const arrivals = { peer: { bytes: 0, chunks: 0 }, registry: { bytes: 0, chunks: 0 } }
    const offsets = new Float64Array(this.image.offsets)
    for (const [i, flags] of this.#state.entries()) {
      const source =
        (flags & chunkFlags.peer) !== 0 ? 'peer' : (flags & chunkFlags.registry) !== 0 ? 'registry' : undefined
      if (source === undefined) continue
      arrivals[source].bytes += offsets[i + 1]! - offsets[i]!
      arrivals[source].chunks++
    }
    return arrivals
  }

  /** Gives up whatever is being fetched for this mount. */
  close(): void {
    this.#closed.abort()
  }

  async #patiently(chunkIndex: number, signal: AbortSignal): Promise<Uint8Array> {
    const now = performance.now()
    for (const [index, untilMs] of this.#late) if (untilMs <= now) this.#late.delete(index)
    const { readDeadlineMs } = this.#parts
    const isAskedAgain = this.#late.has(chunkIndex)
    const deadlineMs = isAskedAgain ? Math.min(askedAgain.deadlineMs, readDeadlineMs) : readDeadlineMs
    try {
      return await withinDeadline(async (options) => await this.fetch(chunkIndex, 'demand', options.signal), {
        signal,
        deadlineMs,
        statedMs: readDeadlineMs,
      })
    } catch (error) {
      if (!isAskedAgain && isP2pfsError(error, 'timeout'))
        this.#late.set(chunkIndex, performance.now() + askedAgain.withinMs)
      throw error
    }
  }

  #prefetch(index: number): void {
    if (this.#prefetching.has(index) || this.has(index)) return
    this.#prefetching.add(index)
    this.fetch(index, 'ahead', this.#closed.signal)
      // The read that needs the chunk will try again, and report.
      .catch(() => undefined)
      .finally(() => this.#prefetching.delete(index))
  }

  has(index: number): boolean {
    return this.#parts.has(this.request(index).digest)
  }

  /** @throws what the fetch throws */
  async fetch(index: number, priority: FetchPriority, signal: AbortSignal): Promise<Uint8Array> {
    const { bytes, source } = await this.#parts.fetch(this.request(index), { signal, priority })
    if (source !== 'local') Atomics.or(this.#state, index, chunkFlags[source])
    return bytes
  }

  /** The chunk of this number in the image. */
  request(index: number): ChunkRequest {
    const region = this.#regions.findLast(({ first, chunks }) => first <= index && chunks.count > 0)!
    const at = index - region.first
    const { chunks } = region
    return { digest: chunks.digestAt(at), lengthBytes: chunks.lengthAt(at), table: chunks.id, index: at }
  }
}
