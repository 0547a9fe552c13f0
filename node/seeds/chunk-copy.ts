import { Bitmap } from '../../protocol/bitmap.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { SeedProgress } from '../../protocol/seed-job.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import { Semaphore } from '../base/semaphore.ts'
import type { Fetcher } from '../fetch/fetcher.ts'
import type { ChunkRequest } from '../model/chunk-request.ts'
import { chunkRequests } from '../model/rootfs-chunks.ts'
import type { Inventory } from '../store/inventory.ts'
import { fetchChunks } from './fetch-chunks.ts'

/** Chunks that are read from the disk and hashed at once: 1 MiB of memory, and no more than a share of the disk. */
const hashedAtOnce = 4
/** Chunks that the disk loses while others come are fetched again so many times. */
const maxRounds = 3

export interface ChunkCopyParts {
  inventory: Pick<Inventory, 'has' | 'scrub'>
  fetcher: Pick<Fetcher, 'fetchToStore' | 'settled'>
  /** Resolves when so many more bytes may be fetched; at once where it is not given. */
  pace?: ((bytes: number, options: { signal: AbortSignal }) => Promise<void>) | undefined
  clock?: Clock
}

/**
 * The chunks of a rootfs on this host, or some of them, with proof: which of them are on the disk, and which were hashed
 * since this began. A chunk that comes is hashed as it comes, one that was here is read and hashed.
 */
export class ChunkCopy {
  readonly #tables: readonly ChunkTable[]
  readonly #wanted: Bitmap | undefined
  readonly #verified: Bitmap
  /** Positions that were counted as held. Reads and evictions change what is here while others come. */
  readonly #held: Bitmap
  readonly #hashing = new Semaphore(hashedAtOnce)

  /**
   * @param tables of the rootfs, in order; a chunk's position counts through all of them
   * @param options `wanted`: positions; all where it is not given. `verified`: positions that were hashed before; it is
   * updated
   */
  constructor(tables: readonly ChunkTable[], { wanted, verified }: { wanted?: Bitmap | undefined; verified: Bitmap }) {
    this.#tables = tables
    this.#wanted = wanted
    this.#verified = verified
    this.#held = new Bitmap(countOf(tables))
  }

  /**
   * Fetches and hashes what is not here and hashed yet. Resolves when all is.
   * @throws what the fetch throws; unavailable where the disk does not keep a chunk; the signal's reason
   */
  async complete(
    parts: ChunkCopyParts,
    { signal, onProgress }: { signal: AbortSignal; onProgress: (progress: SeedProgress) => void },
  ): Promise<SeedProgress> {
    const { inventory, fetcher } = parts
    for (let round = 0; round < maxRounds; round++) {
      const progress = this.count(inventory)
      onProgress(progress)
      if (progress.verified === progress.total) return progress
      await this.#getAll(parts, progress, { signal, onProgress })
      await fetcher.settled()
    }
    const progress = this.count(inventory)
    if (progress.verified === progress.total) return progress
    throw new P2pfsError('unavailable', 'fetched chunks could not be kept; the log says why (is the disk full?)')
  }

  /** Counts the chunks that are here now. A chunk that has gone is no longer verified. */
  count(inventory: Pick<Inventory, 'has'>): SeedProgress {
    const progress = { held: 0, verified: 0, total: 0 }
    for (const { position, request } of this.#chunks()) {
      progress.total++
      if (!inventory.has(request.digest)) {
        this.#held.clear(position)
        this.#verified.clear(position)
      } else {
        this.#held.set(position)
        progress.held++
        if (this.#verified.get(position)) progress.verified++
      }
    }
    return progress
  }

  /** The size of all these chunks, here or not. */
  get sizeBytes(): number {
    let sizeBytes = 0
    for (const { request } of this.#chunks()) sizeBytes += request.lengthBytes
    return sizeBytes
  }

  async #getAll(
    { inventory, fetcher, pace, clock = systemClock }: ChunkCopyParts,
    progress: SeedProgress,
    { signal, onProgress }: { signal: AbortSignal; onProgress: (progress: SeedProgress) => void },
  ): Promise<void> {
    const before =
      pace &&
      (async ({ digest, lengthBytes }: ChunkRequest, options: { signal: AbortSignal }): Promise<void> => {
        if (!inventory.has(digest)) await pace(lengthBytes, options)
      })
    const options = { fetcher, before, clock, signal }
    await fetchChunks(this.#missing(inventory), options, async ({ position, digest }, source) => {
      // One that was here is read; a damaged one is discarded, and comes in the next round.
      const isVerified = source !== 'local' || (await this.#hashing.run(async () => await inventory.scrub(digest))) > 0
      if (!isVerified) return
      // Each position once, whatever was here in between: peers take a host that says otherwise for a broken one.
      if (!this.#held.get(position)) progress.held++
      if (!this.#verified.get(position)) progress.verified++
      this.#held.set(position)
      this.#verified.set(position)
      onProgress(progress)
    })
  }

  /** Chunks that are not here and hashed when it is their turn. */
  *#missing(inventory: Pick<Inventory, 'has'>): Generator<ChunkRequest & { position: number }> {
    for (const { position, request } of this.#chunks())
      if (!inventory.has(request.digest) || !this.#verified.get(position)) yield { ...request, position }
  }

  *#chunks(): Generator<{ position: number; request: ChunkRequest }> {
    let position = 0
    for (const request of chunkRequests(this.#tables)) {
      if (this.#wanted?.get(position) !== false) yield { position, request }
      position++
    }
  }
}

/** How many chunks the tables have. */
export function countOf(tables: readonly ChunkTable[]): number {
  return tables.reduce((sum, { count }) => sum + count, 0)
}
