import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageNameRequest, RemoveImageResult } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import type { Sweep } from '../disk/sweep.ts'
import type { Log } from '../base/log.ts'
import type { Mounts } from '../mount/mounts.ts'
import { operatorPinJob } from '../seeds/operator-pin.ts'
import type { Pins } from '../seeds/pins.ts'
import type { Catalog } from '../store/catalog.ts'
import type { Inventory } from '../store/inventory.ts'
import { imagesHere } from './images-here.ts'

/** How long the answer waits until the room is free (ms); it is a little later otherwise. */
const reclaimMs = 10_000

export interface RemoveImageParts {
  catalog: Pick<Catalog, 'images' | 'deleteImage'>
  mounts: Pick<Mounts, 'whileUnused'>
  pins: Pick<Pins, 'list'>
  sweep: Pick<Sweep, 'run'>
  inventory: Pick<Inventory, 'flush'>
  log: Log
}

/** `p2pfs rm`: forgets an image, and removes what no other image here needs. */
export class RemoveImageOperation {
  readonly #parts: RemoveImageParts

  constructor(parts: RemoveImageParts) {
    this.#parts = parts
  }

  async run(request: ImageNameRequest, { signal }: OperationOptions): Promise<RemoveImageResult> {
    const { catalog, mounts, sweep, inventory, log } = this.#parts
    const records = await imagesHere(catalog, request)
    // All or none: nothing is removed where one of them is in use.
    for (const { rootfsDigest } of records) {
      this.#refusePinned(rootfsDigest, request.image)
      await mounts.whileUnused(rootfsDigest, async () => undefined)
    }
    for (const record of records)
      await mounts.whileUnused(record.rootfsDigest, async () => await catalog.deleteImage(record))
    const only = new Set(records.map(({ rootfsDigest }) => rootfsDigest))
    const { chunks } = await sweep.run({ only, signal })
    await inventory.flush({ signal: AbortSignal.any([signal, AbortSignal.timeout(reclaimMs)]) }).catch(() => undefined)
    for (const { reference, platform, format, rootfsDigest: digest } of records)
      log.info('image removed', { image: reference, platform, format, digest })
    return {
      removed: records.map(({ reference, platform, format, rootfsDigest: digest }) => ({
        reference,
        platform,
        format,
        digest,
      })),
      freed: chunks,
    }
  }

  /** @throws conflict where somebody wants it here; hot images are here unasked */
  #refusePinned(rootfs: Digest, image: string): void {
    const pin = this.#parts.pins
      .list()
      .find(({ rootfsDigest, demand }) => rootfsDigest === rootfs && demand === undefined)
    if (pin === undefined) return
    const command = pin.job === operatorPinJob ? `p2pfs unpin ${image}` : `p2pfs seeds cancel ${pin.job}`
    throw new P2pfsError('conflict', `${image} is pinned; ${command} first`, { image })
  }
}
