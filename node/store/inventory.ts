import type { Bitmap } from '../../protocol/bitmap.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestBytes, type Digest } from '../../protocol/digest.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ChunkRequest, RemoteSource } from '../model/chunk-request.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import { ChunkProvenance } from './chunk-provenance.ts'
import type { ChunkFileWriting, WrittenChunk } from '../base/chunk-file-writer.ts'
import type { ChunkStore } from './chunk-store.ts'
import { digestView } from './digest-key.ts'
import { Holdings } from './holdings.ts'
import type { ThreadWriting } from './thread-writing.ts'

/** Tells the region what this host holds: the availability of the peer network. */
export interface Announcer {
  /** A segment that is new here, and which of its chunks are. */
  announce: (segment: Digest, held: Bitmap) => void
  /** Chunks that have come. */
  announceChunks: (segment: Digest, indexes: readonly number[]) => void
  /** Chunks that are no longer here. */
  withdrawChunks: (segment: Digest, indexes: readonly number[]) => void
  /** A segment that is no longer tracked here. */
  forget: (segment: Digest) => void
}

export interface InventoryParts {
  chunks: Pick<
    ChunkStore,
    | 'directory'
    | 'writing'
    | 'count'
    | 'has'
    | 'hasAt'
    | 'get'
    | 'put'
    | 'adopt'
    | 'openThreadWriting'
    | 'room'
    | 'flush'
    | 'scrub'
    | 'discard'
    | 'digests'
    | 'doubtful'
    | 'examine'
    | 'settled'
  >
  region: Announcer
}

/**
 * Told of a chunk that has come to this host, for each place in a tracked segment where it stands.
 * @param changedAtMs the inode change time (ms) at which its file is known to be right; undefined where it is not known
 */
export type ArrivalListener = (
  segment: Digest,
  index: number,
  source: RemoteSource,
  changedAtMs: number | undefined,
) => void

/**
 * This host's chunks, and what it has told the region of them. Every chunk comes to the disk and goes from it through
 * here, so the bitmaps and the announcements are true.
 */
export class Inventory {
  readonly #chunks: InventoryParts['chunks']
  readonly #region: Announcer
  readonly #holdings = new Holdings()
  readonly #provenance = new ChunkProvenance()
  readonly #listeners = new Set<ArrivalListener>()

  constructor({ chunks, region }: InventoryParts) {
    this.#chunks = chunks
    this.#region = region
  }

  /** The directory of the chunk files. */
  get directory(): string {
    return this.#chunks.directory
  }

  /** For threads that write chunk files; {@link adopt} tells of what they have written. */
  get writing(): ChunkFileWriting {
    return this.#chunks.writing
  }

  /**
   * The writes of a thread that may be killed at any instruction. It is given what it asks for by the store, and {@link
   * adoptFrom} tells of what it has written.
   */
  openThreadWriting(): ThreadWriting {
    return this.#chunks.openThreadWriting()
  }

  get count(): number {
    return this.#chunks.count
  }

  /** Whether the chunk is here. One whose time nobody has looked at since an unclean boot is looked at now. */
  has(digest: Digest): boolean {
    if (!this.#chunks.has(digest)) this.examine([digest])
    return this.#chunks.has(digest)
  }

  digests(): Iterable<Digest> {
    return this.#chunks.digests()
  }

  /** The chunk's bytes, checked; undefined where it is not here. A chunk that the disk has lost or damaged is withdrawn. */
  async get(digest: Digest): Promise<Uint8Array | undefined> {
    const bytes = await this.#chunks.get(digest)
    if (bytes === undefined) this.#withdraw(digest)
    // One that was in doubt until now counts from now on.
    else for (const { table, index } of this.#holdings.add(digest)) this.#region.announceChunks(table, [index])
    return bytes
  }

  /**
   * The chunks that a power loss may have damaged: they do not count as here. {@link examine} and {@link get} end the
   * doubt.
   */
  doubtful(): IterableIterator<Digest> {
    return this.#chunks.doubtful()
  }

  /**
   * Looks at the times of chunks in doubt, and tells the region of those that count as here now. It blocks, some
   * microseconds for each.
   */
  examine(digests: Iterable<Digest>): void {
    for (const [table, indexes] of this.#hold(this.#chunks.examine(digests)))
      this.#region.announceChunks(table, indexes)
  }

  /** Resolves when the record says that nothing is in doubt; at once where something is. */
  async settled(): Promise<void> {
    await this.#chunks.settled()
  }

  /**
   * Checks the chunk on the disk anew; a damaged one is discarded and withdrawn. @returns its length (bytes); 0 where
   * it is gone
   */
  async scrub(digest: Digest): Promise<number> {
    const lengthBytes = await this.#chunks.scrub(digest)
    if (lengthBytes === undefined && !this.#chunks.has(digest)) this.#withdraw(digest)
    return lengthBytes ?? 0
  }

  /**
   * Keeps a chunk and tells the region. The bytes have this digest, and do not change until this resolves.
   * @returns whether the chunk was not here before
   * @throws unavailable where the disk refuses
   */
  async put(digest: Digest, bytes: Uint8Array, source: RemoteSource): Promise<boolean> {
    const isNew = await this.#chunks.put(digest, bytes)
    this.#arrived(digest, source, isNew)
    return isNew
  }

  /**
   * Takes over chunk files that another thread has written, with a `ChunkFileWriter` for {@link writing}, and tells the
   * region, once for each segment.
   * @returns resolves when more may be written: at once, unless the disk is behind
   */
  async adopt(chunks: Iterable<WrittenChunk>, source: RemoteSource): Promise<void> {
    this.#adopt(chunks, source, (chunk) => this.#chunks.adopt(chunk))
    await this.#chunks.room()
  }

  /** As {@link adopt}, for a thread of {@link openThreadWriting}. @returns those that were not here before, at once */
  adoptFrom(thread: ThreadWriting, chunks: Iterable<WrittenChunk>, source: RemoteSource): Digest[] {
    return this.#adopt(chunks, source, (chunk) => thread.adopt(chunk))
  }

  #adopt(chunks: Iterable<WrittenChunk>, source: RemoteSource, adopt: (chunk: WrittenChunk) => boolean): Digest[] {
    const fresh: Digest[] = []
    const arrived = new Map<Digest, number[]>()
    for (const chunk of chunks) {
      const { digest, changedAtMs } = chunk
      if (adopt(chunk)) {
        fresh.push(digest)
        this.#provenance.note(digest, source)
      }
      for (const { table, index } of this.#holdings.add(digest)) {
        const indexes = arrived.get(table)
        if (indexes === undefined) arrived.set(table, [index])
        else indexes.push(index)
        for (const listener of this.#listeners) listener(table, index, source, changedAtMs)
      }
    }
    for (const [table, indexes] of arrived) this.#region.announceChunks(table, indexes)
    return fresh
  }

  /** Marks chunks as here. @returns their places, by segment */
  #hold(digests: Iterable<Digest>): Map<Digest, number[]> {
    const places = new Map<Digest, number[]>()
    for (const digest of digests)
      for (const { table, index } of this.#holdings.add(digest)) {
        const indexes = places.get(table)
        if (indexes === undefined) places.set(table, [index])
        else indexes.push(index)
      }
    return places
  }

  #arrived(digest: Digest, source: RemoteSource, isNew: boolean): void {
    if (isNew) this.#provenance.note(digest, source)
    for (const { table, index } of this.#holdings.add(digest)) {
      this.#region.announceChunks(table, [index])
      for (const listener of this.#listeners) listener(table, index, source, undefined)
    }
  }

  /**
   * Resolves when all chunks that are here would survive a power loss, and the room of those that were discarded is free.
   * @throws unavailable where the disk refuses; the signal's reason
   */
  async flush(options: { signal: AbortSignal }): Promise<void> {
    await this.#chunks.flush(options)
  }

  /**
   * Tells the region that chunks are about to be removed; they are here until {@link discard}, or else are {@link
   * restore}d.
   */
  withdraw(digests: Iterable<Digest>): void {
    const places = new Map<Digest, number[]>()
    for (const digest of digests)
      for (const { table, index } of this.#holdings.remove(digest)) {
        const indexes = places.get(table)
        if (indexes === undefined) places.set(table, [index])
        else indexes.push(index)
      }
    for (const [table, indexes] of places) this.#region.withdrawChunks(table, indexes)
  }

  /** Tells the region of a chunk again that is not removed after all. */
  restore(digest: Digest): void {
    if (!this.#chunks.has(digest)) return
    for (const { table, index } of this.#holdings.add(digest)) this.#region.announceChunks(table, [index])
  }

  /** Removes a chunk. */
  async discard(digest: Digest): Promise<void> {
    this.#withdraw(digest)
    await this.#chunks.discard(digest)
  }

  /**
   * Tracks which chunks of a segment are here, and tells the region.
   * @param options `provisional`: no rootfs has the segment yet; {@link untrack} ends it
   */
  track(table: ChunkTable, options: { provisional?: boolean } = {}): void {
    const digests = digestView(table.digests)
    const held = this.#holdings.addTable(table, (index) => this.#chunks.hasAt(digests, index * digestBytes), options)
    if (held !== undefined) this.#region.announce(table.id, held)
  }

  /** Ends the tracking of a provisional segment; nothing happens where a rootfs has the segment. */
  untrack(segment: Digest): void {
    this.#untold(segment, this.#holdings.dropProvisional(segment))
  }

  /** Ends the tracking of a segment that no rootfs has any more. */
  drop(segment: Digest): void {
    this.#untold(segment, this.#holdings.drop(segment))
  }

  #untold(segment: Digest, marked: readonly number[] | undefined): void {
    if (marked === undefined) return
    this.#region.withdrawChunks(segment, marked)
    this.#region.forget(segment)
  }

  /** Calls the listener for every chunk that comes, until the returned handle is disposed of. */
  onArrival(listener: ArrivalListener): Disposable {
    this.#listeners.add(listener)
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) }
  }

  /** How to ask for the chunk, here or not; undefined where no tracked segment has it. */
  requestOf(digest: Digest): ChunkRequest | undefined {
    const place = this.#holdings.placeOf(digest)
    return place && { digest, ...place }
  }

  /** Ids of the tracked segments that have the chunk, here or not. */
  tablesWith(digest: Digest): Digest[] {
    return this.#holdings.tablesWith(digest)
  }

  /** Whether a tracked segment has the chunk, here or not. */
  isReferenced(digest: Digest): boolean {
    return this.#holdings.isReferenced(digest)
  }

  /** Whether a tracked segment is one of an import, and of no rootfs yet. */
  isProvisional(segment: Digest): boolean {
    return this.#holdings.isProvisional(segment)
  }

  /** Whether all chunks of a tracked rootfs are here. */
  isWhole(manifest: RootfsManifest): boolean {
    return tablesOf(manifest).every(({ id }) => this.#holdings.isWhole(id))
  }

  /** Bytes of these tracked segments that are here. */
  localBytes(tables: readonly ChunkTable[]): number {
    return this.#holdings.localBytes(tables)
  }

  /** The chunks of the table that came while this process ran, and where from. They may be gone again. */
  sourcesOf(table: ChunkTable): Iterable<{ index: number; source: RemoteSource }> {
    return this.#provenance.of(table)
  }

  #withdraw(digest: Digest): void {
    for (const { table, index } of this.#holdings.remove(digest)) this.#region.withdrawChunks(table, [index])
  }
}
