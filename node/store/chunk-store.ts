import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { diskFull, isDiskFull, isStoreFull } from '../base/disk-full.ts'
import { hashBytes } from '../base/hashing.ts'
import type { Log } from '../base/log.ts'
import { blockBytes, blocksOf } from '../base/room-counter.ts'
import { Semaphore } from '../base/semaphore.ts'
import type { ChunkFileWriting, WrittenChunk } from '../base/chunk-file-writer.ts'
import { ChunkDirectory } from './chunk-directory.ts'
import { DiscardedFiles } from './discarded-files.ts'
import { DoubtfulChunks } from './doubtful-chunks.ts'
import { roomOf } from './disk-room.ts'
import type { DiskReserve } from './disk-reserve.ts'
import { GroupSync, type GroupSyncOptions, type GroupSyncParts } from './group-sync.ts'
import { readUncached } from './read-uncached.ts'
import { StoreRoom } from './store-room.ts'
import { StoredChunks, type StoredChunk } from './stored-chunks.ts'
import { syncFilesystem } from './sync-filesystem.ts'
import { ThreadWriting } from './thread-writing.ts'
import type { UseScores } from './use-scores.ts'
import { Writeback } from './writeback.ts'

/** Files being written at once: enough for the disk's own queue, few enough to leave threads for reads. */
const writesInFlight = 8
/** Files that are looked at in one go when what is here is counted: a millisecond. */
const countedAtOnce = 256

export interface ChunkStoreParts {
  /** Tells when the disk has no room for chunks. */
  reserve: Pick<DiskReserve, 'isFull' | 'release'>
  /** Counts and limits the room of the chunks; no limit by default. */
  room?: StoreRoom
  /** Scores chunks by their use. */
  uses?: Pick<UseScores, 'arrived' | 'used'>
  log: Log
  /** Puts everything of the path's filesystem on the disk; syncfs(2) by default. */
  syncFilesystem?: GroupSyncParts['syncFilesystem']
}

export type ChunkStoreOptions = GroupSyncOptions

/** The change time of a file that nobody has checked. */
const unchecked = 0

/**
 * The chunks on this host's disk: one file each, named by its digest. The directory is the truth: no second record of
 * what is here exists that a crash could set against it.
 *
 * A chunk is written under a temporary name, then renamed, so as long as the host runs a name stands for whole content.
 * Groups of chunks are synced in the background. After a power loss, chunks that had not been are in doubt: they are
 * not counted
 *
 * as here until their bytes were found to be right. A chunk that the disk has damaged is found out when it is read: its
 * bytes are hashed, unless this process has found the same unchanged file to be right.
 */
export class ChunkStore implements AsyncDisposable {
  readonly directory: string
  readonly #log: Log
  readonly #reserve: ChunkStoreParts['reserve']
  readonly #files: ChunkDirectory
  readonly #discarded: DiscardedFiles
  readonly #room: StoreRoom
  readonly #uses: ChunkStoreParts['uses']
  readonly #sync: GroupSync
  readonly #writeback: Writeback
  readonly #doubtful: DoubtfulChunks
  /** The chunks here, each with the inode change time (ms) at which its bytes were last found to be right. */
  readonly #present = new StoredChunks()
  readonly #writing = new Map<Digest, Promise<void>>()
  readonly #discarding = new Map<Digest, Promise<void>>()
  readonly #writes = new Semaphore(writesInFlight)
  /** Chunks that threads which may be killed have been told to write, and that are not adopted yet: how many each. */
  readonly #granted = new Map<Digest, number>()

  private constructor(parts: ChunkStoreParts, { directory }: ChunkStoreOptions, sync: GroupSync) {
    const { log, reserve, room = new StoreRoom({ disk: async () => await roomOf(directory), log }) } = parts
    this.directory = directory
    this.#room = room
    this.#uses = parts.uses
    this.#reserve = reserve
    this.#sync = sync
    this.#writeback = new Writeback({ log })
    this.#files = new ChunkDirectory({ log }, { path: directory })
    this.#doubtful = new DoubtfulChunks({ files: this.#files, sync })
    const discarded = { directory: join(directory, 'discarded'), prefix: this.#files.prefix }
    this.#discarded = new DiscardedFiles({ sync, room, log }, discarded)
    this.#log = log
  }

  /** Makes the directories, removes what a crash left unfinished, and lists the chunks that are here. */
  static async open(parts: ChunkStoreParts, options: ChunkStoreOptions): Promise<ChunkStore> {
    await mkdir(options.directory, { recursive: true, mode: 0o700 })
    const sync = await GroupSync.open({ syncFilesystem, ...parts }, options)
    const store = new ChunkStore(parts, options, sync)
    await store.#open()
    return store
  }

  async #open(): Promise<void> {
    await this.#files.prepare()
    await this.#discarded.open()
    for await (const digests of this.#files.list()) {
      for (const digest of digests) {
        // The times of files in doubt are looked at later: that takes longer than to list all names.
        if (this.#sync.isInDoubt) this.#doubtful.add(digest)
        else this.#present.set(digest, unchecked)
      }
    }
    if (this.#doubtful.size > 0)
      this.#log.info('host stopped before all chunks were synced; each is used again once its file was checked', {
        chunks: this.#doubtful.size,
      })
    await this.settled()
    await this.#discarded.removeFormer()
  }

  /** For threads that write chunk files; {@link adopt} tells of what they have written. */
  get writing(): ChunkFileWriting {
    return { directory: this.directory, epochs: this.#sync.epochs.shared, room: this.#room.counter.shared }
  }

  get count(): number {
    return this.#present.size
  }

  has(digest: Digest): boolean {
    return this.#present.has(digest)
  }

  /** Whether the chunk is here whose raw digest stands at `at` (bytes); see `digestView`. */
  hasAt(digests: DataView, at: number): boolean {
    return this.#present.getAt(digests, at) !== undefined
  }

  /** The digests of all chunks here, as they are when the iteration comes to them. */
  digests(): Iterable<Digest> {
    return this.#present.keys()
  }

  /**
   * Keeps `bytes`, which the caller has found to have this digest. Resolves when they would survive the end of this
   * process; for a power loss, see {@link flush}. The buffer must not change until then.
   * @returns whether this call wrote it: false where it was here, or on its way
   * @throws unavailable where the disk refuses (full, read-only, failing); nothing is left behind then
   */
  async put(digest: Digest, bytes: Uint8Array): Promise<boolean> {
    await this.#sync.room()
    // Somebody who took the trouble to get it may have found that the disk lost it.
    if (this.#present.has(digest) && (await this.#isWhole(digest, bytes.length))) return false
    const writing = this.#writing.get(digest)
    if (writing !== undefined) {
      await writing
      return false
    }
    const mine = this.#takeRoom(digest, bytes.length)
      .then(async () => await this.#writes.run(async () => await this.#write(digest, bytes)))
      .finally(() => this.#writing.delete(digest))
    this.#writing.set(digest, mine)
    await mine
    return true
  }

  /** Whether there is no room for chunks. */
  get isFull(): boolean {
    return this.#reserve.isFull || this.#room.isFull
  }

  /** Another thread could not write a chunk. */
  async failedToWrite(error: Error): Promise<void> {
    if (isStoreFull(error)) this.#room.press()
    else if (isDiskFull(error)) await this.#giveUpReserve()
    else this.#log.error('chunk cannot be kept; it will be fetched again', { error })
  }

  /** The writes of a thread that may be killed at any instruction; to be disposed of when it is dead. */
  openThreadWriting(): ThreadWriting {
    const { epochs } = this.#sync
    const cell = epochs.giveCell()
    return new ThreadWriting(
      {
        lacks: async (digest, lengthBytes) => await this.#lacks(digest, lengthBytes),
        takeRoom: async (digest, lengthBytes) => await this.#takeRoom(digest, lengthBytes),
        giveRoom: (lengthBytes) => this.#room.give(blocksOf(lengthBytes)),
        adopt: (chunk) => this.adopt(chunk),
        isTaken: (digest) => this.#present.has(digest) || this.#writing.has(digest),
        discard: async (digest) => await this.discard(digest),
        failed: async (cause) => await this.#failure(cause),
        release: () => epochs.takeCell(cell),
      },
      this.#granted,
      { directory: this.directory, epochs: epochs.shared, cell },
    )
  }

  /** Whether a chunk is to be written; when it may be. @throws unavailable where the disk is full */
  async #lacks(digest: Digest, lengthBytes: number): Promise<boolean> {
    await this.#sync.room()
    if (this.#present.has(digest) && (await this.#isWhole(digest, lengthBytes))) return false
    this.#refuseIfFull(digest)
    // The new name would go with the old file's.
    await this.#discarding.get(digest)
    return true
  }

  /** @throws unavailable where the store may not grow */
  async #takeRoom(digest: Digest, lengthBytes: number): Promise<void> {
    try {
      await this.#room.take(lengthBytes)
    } catch (cause) {
      throw new P2pfsError('unavailable', this.#room.whyFull, { cause, digest })
    }
  }

  #refuseIfFull(digest: Digest): void {
    if (!this.#reserve.isFull) return this.#sync.epochs.resume()
    throw new P2pfsError('unavailable', 'the disk is full: no chunk is kept', { cause: diskFull(), digest })
  }

  /** Frees the room of the reserve. Threads are stopped first, since their writes must not fill it. */
  async #giveUpReserve(): Promise<void> {
    this.#sync.epochs.halt()
    await this.#reserve.release()
  }

  async #failure(cause: unknown, digest?: Digest): Promise<P2pfsError> {
    if (isDiskFull(cause) && !isStoreFull(cause)) await this.#giveUpReserve()
    return new P2pfsError('unavailable', `cannot write a chunk below ${this.directory}: ${(cause as Error).message}`, {
      cause,
      ...(digest && { digest }),
    })
  }

  async #write(digest: Digest, bytes: Uint8Array): Promise<void> {
    const blocks = blocksOf(bytes.length)
    try {
      this.#refuseIfFull(digest)
    } catch (error) {
      this.#room.give(blocks)
      throw error
    }
    // The new name would go with the old file's.
    await this.#discarding.get(digest)
    const { epochs } = this.#sync
    const epoch = epochs.begin()
    try {
      await this.#files.write(digest, bytes, epoch)
    } catch (cause) {
      this.#room.give(blocks)
      throw await this.#failure(cause, digest)
    } finally {
      epochs.end(epoch)
    }
    this.#add(digest, bytes.length)
  }

  /**
   * Takes over a chunk file that another thread has written with a `ChunkFileWriter`; its room was taken before.
   * @returns whether it was not here before
   */
  adopt({ digest, lengthBytes, changedAtMs }: WrittenChunk): boolean {
    const isNew = !this.#present.has(digest)
    this.#add(digest, lengthBytes, changedAtMs)
    return isNew
  }

  /** @param lengthBytes 0 for a file that was here before */
  #add(digest: Digest, lengthBytes: number, checkedAtMs: number = unchecked): void {
    const isNew = !this.#present.has(digest)
    this.#present.set(digest, checkedAtMs)
    if (lengthBytes > 0) {
      // It stands in the place of another file, which is gone.
      this.#room.give(this.#present.blocksOf(digest))
      this.#present.setBlocks(digest, blocksOf(lengthBytes))
    }
    if (isNew && this.#uses !== undefined) this.#present.setScore(digest, this.#uses.arrived(digest, lengthBytes))
    this.#sync.noteWritten(lengthBytes)
    if (lengthBytes > 0) this.#writeback.noteWritten(this.#files.fileOf(digest), lengthBytes)
    this.#doubtful.end(digest)
  }

  /** Resolves when more may be adopted: at once, unless the disk is behind. */
  async room(): Promise<void> {
    await this.#sync.room()
  }

  /**
   * Resolves when all chunks that are here would survive a power loss, and the room of those that were discarded is free.
   * @throws unavailable where the disk refuses; the signal's reason
   */
  async flush(options: { signal: AbortSignal }): Promise<void> {
    const removed = this.#discarded.removed()
    await this.#sync.flush(options)
    await removed
  }

  /** Syncs what is not yet. Nothing may be written any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#writing.values())
    this.#writeback[Symbol.dispose]()
    await this.#sync[Symbol.asyncDispose]()
  }

  /**
   * The chunk's bytes, which are right; undefined where it is not here, or no longer as it was: it is discarded then.
   * @throws what the disk throws other than that there is no such file
   */
  async get(digest: Digest): Promise<Uint8Array | undefined> {
    const checkedAtMs = this.#present.get(digest)
    if (checkedAtMs === undefined) return this.#doubtful.has(digest) ? await this.#getDoubtful(digest) : undefined
    const found = await this.#files.read(digest)
    if (found === undefined) {
      this.#lose(digest, 'chunk file is gone; the chunk will be fetched again')
      return undefined
    }
    const { bytes, changedAtMs } = found
    if (changedAtMs === checkedAtMs) return bytes
    if ((await hashBytes(bytes)) === digest) {
      if (this.#present.has(digest)) this.#present.set(digest, changedAtMs)
      return bytes
    }
    this.#log.warn('chunk file is damaged and was discarded; the chunk will be fetched again', { digest })
    await this.discard(digest)
    return undefined
  }

  /**
   * The chunks that a power loss may have damaged. {@link examine} ends the doubt, or {@link get}, one way or the
   * other.
   */
  doubtful(): IterableIterator<Digest> {
    return this.#doubtful.digests()
  }

  /**
   * Looks at the times of chunks in doubt; those of before the last sync count as here from now on. It blocks, some
   * microseconds for each.
   * @returns these
   */
  examine(digests: Iterable<Digest>): Digest[] {
    const certain = this.#doubtful.takeCertain(digests)
    for (const digest of certain) this.#present.set(digest, unchecked)
    return certain
  }

  async #getDoubtful(digest: Digest): Promise<Uint8Array | undefined> {
    if (this.examine([digest]).length > 0) return await this.get(digest)
    const bytes = await this.#files.readAndDate(digest, () => this.#sync.epochs.current)
    // Somebody else was faster, or has put it anew.
    if (!this.#doubtful.has(digest)) return await this.get(digest)
    if (bytes !== undefined) {
      this.#add(digest, 0)
      return bytes
    }
    this.#log.info('chunk was lost with the power and is discarded; it will be fetched again', { digest })
    await this.discard(digest)
    return undefined
  }

  /** Resolves when the record says that nothing is in doubt; at once where something is. */
  async settled(): Promise<void> {
    await this.#doubtful.settled()
  }

  /**
   * Reads the chunk from the disk itself, past the page cache, and hashes it; a damaged one is discarded.
   * @returns its length (bytes); undefined where it is not here, or no longer
   * @throws what the disk throws other than that there is no such file
   */
  async scrub(digest: Digest): Promise<number | undefined> {
    if (!this.#present.has(digest)) return undefined
    const bytes = await readUncached(this.#files.fileOf(digest))
    if (bytes !== undefined && (await hashBytes(bytes)) === digest) return bytes.length
    // A chunk that was discarded meanwhile is no loss.
    if (!this.#present.has(digest)) return undefined
    this.#log.warn('chunk file is damaged and was discarded; the chunk will be fetched again', { digest })
    await this.discard(digest)
    return undefined
  }

  async #isWhole(digest: Digest, lengthBytes: number): Promise<boolean> {
    const size = await this.#files.lengthOf(digest)
    // Another caller may have discarded it, or found that it is gone, in the meantime.
    if (!this.#present.has(digest)) return false
    if (size !== lengthBytes) this.#lose(digest, 'chunk file is gone or too short; the chunk is written again')
    return size === lengthBytes
  }

  #lose(digest: Digest, message: string): void {
    this.#log.warn(message, { digest })
    this.#room.give(this.#present.blocksOf(digest))
    this.#present.delete(digest)
  }

  /** Forgets and removes a chunk. Its room on the disk is free after the next sync. */
  async discard(digest: Digest): Promise<void> {
    const blocks = this.#present.blocksOf(digest)
    this.#present.delete(digest)
    const gone = this.#discarded.take(this.#files.fileOf(digest), blocks).finally(() => this.#discarding.delete(digest))
    void gone.then(() => this.#doubtful.end(digest)).catch(() => undefined)
    this.#discarding.set(
      digest,
      gone.catch(() => undefined),
    )
    await gone
  }

  /** Room of discarded files that is free after the next sync (bytes). */
  get discardedBytes(): number {
    return this.#discarded.waitingBytes
  }

  /** Looks at the files whose length nobody knows, some at once. It blocks, a millisecond at a time. */
  async countFiles({ signal }: { signal: AbortSignal }): Promise<void> {
    for (let row = 0; row < this.#present.rows;) {
      for (const end = Math.min(row + countedAtOnce, this.#present.rows); row < end; row++) {
        if (!this.#present.hasRow(row)) continue
        const digest = this.#present.digestOf(row)
        if (this.#present.blocksOf(digest) > 0) continue
        const blocks = blocksOf(this.#files.statNow(digest)?.size ?? 0)
        this.#present.setBlocks(digest, blocks)
        this.#room.counter.count(blocks)
      }
      await setImmediate()
      signal.throwIfAborted()
    }
    this.#room.counted()
  }

  /** All chunks; see {@link digestOf}. Nothing may be added or removed meanwhile. */
  stored(): Iterable<StoredChunk> {
    return this.#present.stored()
  }

  digestOf(row: number): Digest {
    return this.#present.digestOf(row)
  }

  /** The room of the chunk's file on the disk (bytes); 0 where it is not here. */
  bytesOf(digest: Digest): number {
    return this.#present.blocksOf(digest) * blockBytes
  }

  /** Undefined where the chunk is not here. */
  scoreOf(digest: Digest): number | undefined {
    return this.#present.scoreOf(digest)
  }

  setScore(digest: Digest, score: number): void {
    this.#present.setScore(digest, score)
  }

  /** A read has used the chunk, which may not be here. */
  noteUse(digest: Digest): void {
    const score = this.#present.scoreOf(digest)
    if (score !== undefined && this.#uses !== undefined) this.#present.setScore(digest, this.#uses.used(score))
  }
}
