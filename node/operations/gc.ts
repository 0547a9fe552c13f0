import type { GcRequest, GcResult } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import type { Eviction } from '../disk/eviction.ts'
import type { Sweep } from '../disk/sweep.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import type { Inventory } from '../store/inventory.ts'
import type { StoreRoom } from '../store/store-room.ts'

/** How long the answer waits until the room is free (ms); it is a little later otherwise. */
const reclaimMs = 10_000

export interface GcParts {
  sweep: Pick<Sweep, 'run'>
  eviction: Pick<Eviction, 'choose' | 'evict'>
  chunks: Pick<ChunkStore, 'bytesOf' | 'discardedBytes'>
  inventory: Pick<Inventory, 'flush'>
  room: Pick<StoreRoom, 'excessBytes' | 'usedBytes' | 'limitBytes'>
}

/** `p2pfs gc`: removes what no image needs, and what is beyond the limit, now. */
export class GcOperation {
  readonly #parts: GcParts

  constructor(parts: GcParts) {
    this.#parts = parts
  }

  async run({ dryRun = false }: GcRequest, { signal }: OperationOptions): Promise<GcResult> {
    const { sweep, eviction, chunks, inventory, room } = this.#parts
    const { rootfs, layers, chunks: unneeded } = await sweep.run({ isDry: dryRun, signal })
    const excessBytes = room.excessBytes(chunks.discardedBytes + (dryRun ? unneeded.bytes : 0))
    let evicted = { bytes: 0, chunks: 0 }
    if (excessBytes > 0) {
      const chosen = dryRun ? await eviction.choose(excessBytes) : []
      evicted = dryRun
        ? { chunks: chosen.length, bytes: chosen.reduce((sum, digest) => sum + chunks.bytesOf(digest), 0) }
        : await eviction.evict(excessBytes)
    }
    if (!dryRun)
      await inventory
        .flush({ signal: AbortSignal.any([signal, AbortSignal.timeout(reclaimMs)]) })
        .catch(() => undefined)
    return {
      dryRun,
      rootfs,
      layers,
      unneeded,
      evicted,
      storeBytes: room.usedBytes,
      ...(room.limitBytes < Number.MAX_SAFE_INTEGER && { limitBytes: room.limitBytes }),
    }
  }
}
