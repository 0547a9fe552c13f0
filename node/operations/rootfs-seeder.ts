import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import type { SeedResult } from '../control/api.ts'
import type { KeptChunks } from '../disk/kept-chunks.ts'
import type { Fetcher } from '../fetch/fetcher.ts'
import type { ResolvedRootfs } from '../model/image.ts'
import type { ByteProgress } from '../model/progress.ts'
import { chunkRequests, sizeOf, tablesOf } from '../model/rootfs-chunks.ts'
import { fetchChunks } from '../seeds/fetch-chunks.ts'
import type { Pins } from '../seeds/pins.ts'
import type { Room } from '../store/disk-room.ts'
import type { Inventory } from '../store/inventory.ts'

export interface RootfsSeederParts {
  inventory: Pick<Inventory, 'has' | 'isWhole' | 'localBytes'>
  fetcher: Pick<Fetcher, 'fetchToStore' | 'settled'>
  pins: Pick<Pins, 'claim' | 'pinnedBytes'>
  /** Keeps what comes until it is whole. */
  kept: Pick<KeptChunks, 'hold'>
  /** The room that is left besides all pinned images. */
  room: () => Promise<Room>
  noteUse: (rootfs: Digest) => void
  log: Log
  clock?: Clock
}

/** Makes images whole on this host. */
export class RootfsSeeder {
  readonly #parts: RootfsSeederParts
  readonly #running = new Set<{ reference: string; progress: ByteProgress }>()

  constructor(parts: RootfsSeederParts) {
    this.#parts = parts
  }

  /**
   * Fetches every chunk of the rootfs that this host lacks. Resolves when the image is whole on its disk.
   * @param options `onProgress`: in bytes of the rootfs
   * @throws what the fetch throws, for a chunk that nobody delivers while no other chunk comes for ten seconds either; the
   *   chunks that have come stay
   */
  async seed(
    { record, manifest, origin }: ResolvedRootfs,
    options: { signal: AbortSignal; onProgress: (progress: ByteProgress) => void },
  ): Promise<SeedResult> {
    const { reference, platform, format, rootfsDigest: digest } = record
    await this.#checkRoom(record, manifest)
    using _ = this.#parts.kept.hold(tablesOf(manifest).map(({ id }) => id))
    await this.#parts.pins.claim(digest)
    await this.#fetchAll(reference, manifest, options)
    await this.#parts.fetcher.settled()
    // Again: it may have been placed because it is mounted often meanwhile.
    await this.#parts.pins.claim(digest)
    this.#checkWhole(manifest)
    this.#parts.noteUse(digest)
    this.#parts.log.info('image seeded', { image: reference, format, digest, origin })
    return { reference, platform, format, digest, sizeBytes: sizeOf(manifest), origin }
  }

  /** Those that are under way. */
  list(): ({ reference: string } & ByteProgress)[] {
    return [...this.#running].map(({ reference, progress }) => ({ reference, ...progress }))
  }

  async #fetchAll(
    reference: string,
    manifest: RootfsManifest,
    { signal, onProgress }: { signal: AbortSignal; onProgress: (progress: ByteProgress) => void },
  ): Promise<void> {
    const { fetcher, clock = systemClock } = this.#parts
    const from = { local: 0, peer: 0, neighbour: 0, registry: 0 }
    const progress: ByteProgress = { doneBytes: 0, totalBytes: sizeOf(manifest), from }
    const running = { reference, progress }
    this.#running.add(running)
    try {
      await fetchChunks(chunkRequests(tablesOf(manifest)), { fetcher, clock, signal }, ({ lengthBytes }, source) => {
        progress.doneBytes += lengthBytes
        from[source] += lengthBytes
        onProgress(progress)
      })
    } finally {
      this.#running.delete(running)
    }
  }

  /** @throws unavailable where it can never be whole here: before anything is fetched */
  async #checkRoom({ reference }: ResolvedRootfs['record'], manifest: RootfsManifest): Promise<void> {
    const { inventory, pins, room } = this.#parts
    const tables = tablesOf(manifest)
    if (inventory.isWhole(manifest)) return
    const sizeBytes = sizeOf(manifest)
    const { freeBytes } = await room()
    // Chunks that are here take room of their own, unless a pinned image has them, too.
    const countedBytes = Math.min(inventory.localBytes(tables), pins.pinnedBytes)
    if (sizeBytes - countedBytes <= freeBytes) return
    throw new P2pfsError(
      'unavailable',
      `${reference} has ${sizeBytes} bytes, and the store has room for ${freeBytes} besides what is pinned: give it more with ` +
        '--store-limit or --store-keep-free, or end pins (p2pfs images says what is pinned)',
      { sizeBytes, freeBytes },
    )
  }

  /** @throws unavailable where a chunk is not on the disk */
  #checkWhole(manifest: RootfsManifest): void {
    for (const { digest } of chunkRequests(tablesOf(manifest))) {
      if (this.#parts.inventory.has(digest)) continue
      throw new P2pfsError(
        'unavailable',
        'a fetched chunk could not be kept; the log says why (is the disk full?); then seed again',
        { digest },
      )
    }
  }
}
