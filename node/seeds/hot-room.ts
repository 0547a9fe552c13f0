import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import { Semaphore } from '../base/semaphore.ts'
import { chunkRequests, tablesOf } from '../model/rootfs-chunks.ts'
import type { Catalog } from '../store/catalog.ts'
import type { Inventory } from '../store/inventory.ts'
import type { PlacedPin, Pins } from './pins.ts'

export interface HotRoomParts {
  pins: Pick<Pins, 'list' | 'placed' | 'makeRoom' | 'fitHot' | 'noteEvicted'>
  catalog: Pick<Catalog, 'rootfs' | 'rootfsDigests'>
  inventory: Pick<Inventory, 'tablesWith' | 'discard'>
  /** Whether the rootfs is mounted on this host, or still read. */
  isMounted: (rootfs: Digest) => boolean
  log: Log
}

/**
 * The room on the disk of images that are here because they are mounted often: their pins, and the chunks that pins which
 * have ended have left. Images that are neither mounted nor wanted by anybody are evicted, the lightest first.
 */
export class HotRoom {
  readonly #parts: HotRoomParts
  readonly #diskBytes: number
  /** Evictions come one after the other. */
  readonly #turn = new Semaphore(1)

  /** @param options `diskBytes`: what such images may take */
  constructor(parts: HotRoomParts, { diskBytes }: { diskBytes: number }) {
    this.#parts = parts
    this.#diskBytes = diskBytes
  }

  /**
   * Makes room for an image that is about to be placed.
   * @throws busy where what is mounted as often, or mounted here now, takes the room
   */
  async make(
    pin: Pick<PlacedPin, 'job' | 'rootfsDigest' | 'sizeBytes' | 'demand'>,
    { signal }: { signal: AbortSignal },
  ): Promise<void> {
    await this.#parts.pins.makeRoom(pin, this.#diskBytes)
    const leftBytes = await this.#evict(this.#diskBytes - pin.sizeBytes, pin.rootfsDigest, signal)
    if (leftBytes + pin.sizeBytes > this.#diskBytes)
      throw new P2pfsError('busy', 'images that are mounted here take the room for hot images (--hot-disk)', {
        sizeBytes: pin.sizeBytes,
        budgetBytes: this.#diskBytes,
      })
  }

  /** Ends pins and evicts images that are beyond the budget: it has become less, or they have grown. */
  async fit({ signal }: { signal: AbortSignal }): Promise<void> {
    await this.#parts.pins.fitHot(this.#diskBytes)
    await this.#evict(this.#diskBytes, undefined, signal)
  }

  /** Bytes of the images that have come because they were mounted often, pinned or no longer; each counts whole. */
  get usedBytes(): number {
    return this.#used(undefined)
  }

  #used(without: Digest | undefined): number {
    const sizes = new Map<Digest, number>()
    for (const { rootfsDigest, sizeBytes } of this.#parts.pins.placed())
      if (rootfsDigest !== without) sizes.set(rootfsDigest, Math.max(sizeBytes, sizes.get(rootfsDigest) ?? 0))
    return [...sizes.values()].reduce((sum, sizeBytes) => sum + sizeBytes, 0)
  }

  /** @returns what is left, without the image that is placed (bytes) */
  async #evict(budgetBytes: number, placing: Digest | undefined, signal: AbortSignal): Promise<number> {
    if (this.#used(placing) <= budgetBytes) return this.#used(placing)
    return await this.#turn.run(async () => {
      const candidates = this.#parts.pins
        .placed()
        .filter(({ sizeBytes }) => sizeBytes > 0)
        .toSorted((a, b) => a.demand.mounts - b.demand.mounts)
      for (const pin of candidates) {
        if (this.#used(placing) <= budgetBytes) break
        if (pin.rootfsDigest === placing || !this.#isUnused(pin.rootfsDigest)) continue
        await this.#remove(pin, signal)
      }
      return this.#used(placing)
    })
  }

  #isUnused(rootfs: Digest): boolean {
    const { pins, isMounted } = this.#parts
    return !isMounted(rootfs) && !pins.list().some(({ rootfsDigest }) => rootfsDigest === rootfs)
  }

  /** Discards the chunks that no other image of this host has, but those that were evicted before. */
  async #remove(pin: PlacedPin, signal: AbortSignal): Promise<void> {
    const { pins, catalog, inventory, log } = this.#parts
    const manifest = await catalog.rootfs(pin.rootfsDigest)
    const gone = new Set(
      pins
        .placed()
        .filter(({ sizeBytes, rootfsDigest }) => sizeBytes === 0 && this.#isUnused(rootfsDigest))
        .map(({ rootfsDigest }) => rootfsDigest),
    )
    gone.add(pin.rootfsDigest)
    const [needed, released] = [new Set<Digest>(), new Set<Digest>()]
    for (const digest of await catalog.rootfsDigests()) {
      const other = await catalog.rootfs(digest)
      for (const { id } of other === undefined ? [] : tablesOf(other)) (gone.has(digest) ? released : needed).add(id)
      signal.throwIfAborted()
    }
    let chunks = 0
    for (const { digest } of manifest === undefined ? [] : chunkRequests(tablesOf(manifest))) {
      // A segment that no rootfs has yet is one that is imported now.
      if (!inventory.tablesWith(digest).every((table) => released.has(table) && !needed.has(table))) continue
      await inventory.discard(digest)
      signal.throwIfAborted()
      chunks++
    }
    for (const other of pins.placed()) if (other.rootfsDigest === pin.rootfsDigest) await pins.noteEvicted(other)
    log.info('image that was placed because it was mounted often is evicted', { digest: pin.rootfsDigest, chunks })
  }
}
