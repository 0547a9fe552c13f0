import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageNameRequest, PinRequest, PinResult } from '../control/api.ts'
import type { Log } from '../base/log.ts'
import { sizeOf, tablesOf } from '../model/rootfs-chunks.ts'
import { foreverMs, operatorPinJob } from '../seeds/operator-pin.ts'
import type { Pins } from '../seeds/pins.ts'
import type { Catalog } from '../store/catalog.ts'
import type { Room } from '../store/disk-room.ts'
import type { Inventory } from '../store/inventory.ts'
import { imagesHere } from './images-here.ts'

export interface PinParts {
  /** Peer id of this host. */
  own: string
  catalog: Pick<Catalog, 'images' | 'rootfs'>
  pins: Pick<Pins, 'put' | 'end' | 'list'>
  inventory: Pick<Inventory, 'localBytes'>
  /** The room for all pinned images together: see `StoreRoom.forPins`. */
  room: () => Promise<Room>
  log: Log
}

/** `p2pfs pin`: keeps what this host has of an image, and what it comes to have of it. */
export class PinOperation {
  readonly #parts: PinParts

  constructor(parts: PinParts) {
    this.#parts = parts
  }

  async run({ ttlMs, ...request }: PinRequest): Promise<PinResult> {
    const { own, catalog, pins, inventory, room, log } = this.#parts
    const records = await imagesHere(catalog, request)
    const untilMs = ttlMs === undefined ? foreverMs : Date.now() + ttlMs
    const images: PinResult['images'] = []
    for (const { reference, platform, format, manifestDigest, rootfsDigest } of records) {
      const manifest = await catalog.rootfs(rootfsDigest)
      if (manifest === undefined) continue
      const sizeBytes = sizeOf(manifest)
      const isNew = !pins.list().some((pin) => pin.rootfsDigest === rootfsDigest)
      const free = await room()
      if (isNew && sizeBytes > free.freeBytes)
        throw new P2pfsError(
          'busy',
          `${reference} has ${sizeBytes} bytes; with what is pinned already that is more than the store may take ` +
            '(--store-limit, --store-keep-free)',
          { sizeBytes, freeBytes: free.freeBytes },
        )
      // It ends earlier than before, where that is what is wanted.
      await pins.end({ job: operatorPinJob, rootfsDigest })
      await pins.put(
        {
          reference,
          platform,
          format,
          manifestDigest,
          rootfsDigest,
          job: operatorPinJob,
          extent: 'full',
          untilMs,
          peer: own,
          sizeBytes,
        },
        free,
      )
      const localBytes = inventory.localBytes(tablesOf(manifest))
      images.push({ reference, platform, format, digest: rootfsDigest, sizeBytes, localBytes })
      log.info('image pinned', { image: reference, digest: rootfsDigest })
    }
    return { images, ...(ttlMs !== undefined && { until: new Date(untilMs).toISOString() }) }
  }
}

/** `p2pfs unpin`. */
export class UnpinOperation {
  readonly #parts: Pick<PinParts, 'catalog' | 'pins' | 'log'>

  constructor(parts: Pick<PinParts, 'catalog' | 'pins' | 'log'>) {
    this.#parts = parts
  }

  /** Also a pin of what the name stood for when it was pinned. */
  async run(request: ImageNameRequest): Promise<PinResult> {
    const { catalog, pins, log } = this.#parts
    const named = await imagesHere(catalog, request)
    const names = new Set(named.map(({ reference, platform, format }) => `${reference} ${platform} ${format}`))
    const pinned = pins
      .list()
      .filter(
        ({ job, reference, platform, format }) =>
          job === operatorPinJob && names.has(`${reference} ${platform} ${format}`),
      )
    if (pinned.length === 0)
      throw new P2pfsError('missing', `${request.image} is not pinned by p2pfs pin; p2pfs images says what is pinned`, {
        image: request.image,
      })
    for (const pin of pinned) {
      await pins.end(pin)
      log.info('image is no longer pinned', { image: pin.reference, digest: pin.rootfsDigest })
    }
    return {
      images: pinned.map(({ reference, platform, format, rootfsDigest: digest, sizeBytes }) => ({
        reference,
        platform,
        format,
        digest,
        sizeBytes,
      })),
    }
  }
}
