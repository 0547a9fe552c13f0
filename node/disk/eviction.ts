import { setImmediate, setTimeout as sleep } from 'node:timers/promises'
import type { Digest } from '../../protocol/digest.ts'
import { blockBytes } from '../base/room-counter.ts'
import type { Log } from '../base/log.ts'
import { Semaphore } from '../base/semaphore.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import type { Inventory } from '../store/inventory.ts'
import type { StoreRoom } from '../store/store-room.ts'
import type { UseScores } from '../store/use-scores.ts'
import { coldest } from './coldest.ts'
import type { KeptChunks } from './kept-chunks.ts'

/** How often it is looked at what reads have used, and whether there is too little room (ms). */
const lookMs = 1_000
/**
 * Between the withdrawal of chunks and their removal (ms): changes are gathered for a tenth of a second, and are on
 * their way for some.
 */
const withdrawalMs = 150
/** Chunks that are withdrawn together: 64 MiB at most. */
const batchChunks = 256
/**
 * Chunks are chosen among so many times as many bytes as are to go, and among so many at least: what is cheap to get
 * again goes first there.
 */
const window = { times: 2, leastBytes: 512 * 2 ** 20 } as const
/** Chunks whose cost is found out in one go: some milliseconds. */
const judgedAtOnce = 256
/** How long the end of the process waits for a sync that gives room back (ms). */
const syncMs = 60_000

export interface EvictionParts {
  chunks: Pick<
    ChunkStore,
    'stored' | 'digestOf' | 'scoreOf' | 'noteUse' | 'bytesOf' | 'discardedBytes' | 'flush' | 'countFiles'
  >
  inventory: Pick<Inventory, 'withdraw' | 'restore' | 'discard'>
  room: StoreRoom
  uses: Pick<UseScores, 'evicted'>
  kept: Pick<KeptChunks, 'judge'>
  /** Tells the listener the chunks that reads have used since the last call. */
  reads: { takeUses: (listener: (chunk: Digest) => void) => void }
  /** Scores what was here before this process, once, ahead of the first eviction. */
  prime?: () => Promise<void>
  /**
   * Files of whole images, which are made anew from chunks: removes one that no mount uses. @returns whether there was
   * one
   */
  removeCopy?: () => Promise<boolean>
  log: Log
}

interface Candidate {
  digest: Digest
  bytes: number
  score: number
}

/** The result of a pass. */
export interface Evicted {
  chunks: number
  bytes: number
}

/**
 * Removes chunks that are worth little when there is too little room, in the background: those that nobody needs, and
 * then by their score and what it costs to get them again.
 *
 * 1. Once a second, the chunks that reads have used get a better score.
 * 2. When the room is low, copies for native reads go first; then the chunks that are worth least are chosen.
 * 3. The region is told that these are gone, and some of it hears that before they are.
 * 4. Their files lose their names, and are removed after a sync, which is brought forward where room is short.
 */
export class Eviction implements AsyncDisposable {
  readonly #parts: EvictionParts
  readonly #stopping = new AbortController()
  #running: Promise<void> = Promise.resolve()
  #wake: PromiseWithResolvers<void> = Promise.withResolvers()
  #isPrimed = false
  #isSyncing = false
  /** One at a time: what one has chosen is not chosen by another. */
  readonly #turn = new Semaphore(1)

  constructor(parts: EvictionParts) {
    this.#parts = parts
  }

  start(): void {
    this.#parts.room.onPressure(() => this.#wake.resolve())
    this.#running = this.#run().catch((error: unknown) => {
      if (!this.#stopping.signal.aborted) this.#parts.log.error('chunks are no longer evicted', { error })
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort()
    this.#wake.resolve()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    await this.#parts.chunks.countFiles({ signal })
    for (;;) {
      signal.throwIfAborted()
      await this.#look().catch((error: unknown) => {
        signal.throwIfAborted()
        this.#parts.log.warn('chunks cannot be evicted now', { error })
      })
      const timer = new AbortController()
      await Promise.race([this.#wake.promise, sleep(lookMs, undefined, { signal: timer.signal, ref: false })]).finally(
        () => timer.abort(),
      )
      this.#wake = Promise.withResolvers()
    }
  }

  async #look(): Promise<void> {
    const { chunks, room, reads } = this.#parts
    reads.takeUses((digest) => chunks.noteUse(digest))
    const bytes = room.excessBytes(chunks.discardedBytes)
    if (bytes > 0) await this.evict(bytes)
    if (chunks.discardedBytes > 0 && (room.isAwaited || chunks.discardedBytes > room.slackBytes / 2)) this.#sync()
  }

  /** Has the room of what was discarded back soon. */
  #sync(): void {
    if (this.#isSyncing) return
    this.#isSyncing = true
    void this.#parts.chunks
      .flush({ signal: AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(syncMs)]) })
      .catch((error: unknown) => this.#parts.log.debug('room of evicted chunks is not free yet', { error }))
      .finally(() => (this.#isSyncing = false))
  }

  /** Removes at least so many bytes, if there are so many that may go. */
  async evict(bytes: number): Promise<Evicted> {
    return await this.#turn.run(async () => await this.#evict(bytes))
  }

  async #evict(bytes: number): Promise<Evicted> {
    const { room, removeCopy, prime, chunks, log } = this.#parts
    const { signal } = this.#stopping
    if (!this.#isPrimed) {
      this.#isPrimed = true
      await prime?.()
    }
    const evicted = { chunks: 0, bytes: 0 }
    const wantedUsedBytes = room.usedBytes - bytes
    while (room.usedBytes > wantedUsedBytes && (await removeCopy?.()) === true) signal.throwIfAborted()
    for (const batch of batches(await this.choose(room.usedBytes - wantedUsedBytes))) {
      await this.#remove(batch, evicted)
      if (room.isAwaited) this.#sync()
    }
    if (evicted.chunks === 0 && chunks.discardedBytes === 0) room.noteStuck()
    if (evicted.chunks > 0) log.debug('chunks were evicted', { ...evicted, usedBytes: room.usedBytes })
    return evicted
  }

  /** The chunks that are worth least, with so many bytes together if there are so many that may go. */
  async choose(bytes: number): Promise<Digest[]> {
    if (bytes <= 0) return []
    const judge = await this.#parts.kept.judge()
    for (let windowBytes = Math.max(window.leastBytes, bytes * window.times); ; windowBytes *= 4) {
      const { coldest: candidates, isAll } = this.#candidates(windowBytes)
      const ranked: (Candidate & { rank: number })[] = []
      for (const [i, candidate] of candidates.entries()) {
        const cost = judge(candidate.digest)
        if (cost !== undefined) ranked.push({ ...candidate, rank: candidate.score + cost })
        if (i % judgedAtOnce === judgedAtOnce - 1) await setImmediate()
      }
      const chosen: Digest[] = []
      let left = bytes
      for (const { digest, bytes: chunkBytes } of ranked.toSorted((a, b) => a.rank - b.rank)) {
        if (left <= 0) break
        chosen.push(digest)
        left -= chunkBytes
      }
      if (left <= 0 || isAll) return chosen
    }
  }

  /** The chunks that are worth least, with so many bytes together; and whether these are all. */
  #candidates(bytes: number): { coldest: Candidate[]; isAll: boolean } {
    const { chunks } = this.#parts
    const rows = coldest(() => chunks.stored(), bytes)
    const ranks = new Map(rows.map((row, i) => [row, i]))
    const candidates: Candidate[] = []
    let isAll = true
    for (const { row, blocks, score } of chunks.stored()) {
      const rank = ranks.get(row)
      if (rank === undefined) isAll = false
      else candidates[rank] = { digest: chunks.digestOf(row), bytes: blocks * blockBytes, score }
    }
    return { coldest: candidates, isAll }
  }

  async #remove(batch: readonly Digest[], evicted: Evicted): Promise<void> {
    const { chunks, inventory, room, uses, kept } = this.#parts
    const { signal } = this.#stopping
    const scores = new Map(batch.map((digest) => [digest, chunks.scoreOf(digest)]))
    inventory.withdraw(batch)
    await sleep(withdrawalMs, undefined, { signal, ref: false })
    this.#parts.reads.takeUses((digest) => chunks.noteUse(digest))
    const judge = await kept.judge()
    for (const digest of batch) {
      const score = chunks.scoreOf(digest)
      // It was used, or is wanted by an import or a pin, since it was chosen.
      if (score === undefined) continue
      if (score !== scores.get(digest) || judge(digest) === undefined) {
        inventory.restore(digest)
        continue
      }
      const bytes = chunks.bytesOf(digest)
      await inventory.discard(digest)
      uses.evicted(digest, score)
      room.noteEvicted(bytes)
      evicted.chunks++
      evicted.bytes += bytes
      signal.throwIfAborted()
    }
  }
}

function* batches(digests: readonly Digest[]): Generator<readonly Digest[]> {
  for (let start = 0; start < digests.length; start += batchChunks) yield digests.slice(start, start + batchChunks)
}
