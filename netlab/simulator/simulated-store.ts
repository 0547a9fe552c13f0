import { Bitmap } from '../../protocol/bitmap.ts'
import type { Digest } from '../../protocol/digest.ts'
import type { ChunkRequest, RemoteSource } from '../../node/model/chunk-request.ts'
import type { Announcer } from '../../node/store/inventory.ts'
import type { SimulatedImage } from './simulated-image.ts'

/** The chunks of one host, in place of the product's inventory and disk: a bit for each chunk, and no bytes. */
export class SimulatedStore {
  readonly #image: SimulatedImage
  readonly #region: Announcer
  readonly #held: Bitmap
  readonly #byTable = new Map<Digest, Bitmap>()

  readonly #work: (done: () => void) => void

  /** @param parts `work`: takes the CPU time for one chunk that is kept */
  constructor({ image, region, work }: { image: SimulatedImage; region: Announcer; work: (done: () => void) => void }) {
    this.#work = work
    this.#image = image
    this.#region = region
    this.#held = new Bitmap(image.readChunks)
  }

  /** A mount begins: the host tracks the image's segments. */
  track(): void {
    for (const { id, count } of this.#image.tables) {
      if (this.#byTable.has(id)) continue
      const held = new Bitmap(count)
      this.#byTable.set(id, held)
      this.#region.announce(id, held)
    }
  }

  has(digest: Digest): boolean {
    const place = this.#image.placeOf(digest)
    return place !== undefined && this.#held.get(place.number)
  }

  async get(digest: Digest): Promise<Uint8Array | undefined> {
    await Promise.resolve()
    return this.has(digest) ? this.#image.contentOf(digest) : undefined
  }

  async put(digest: Digest, _bytes: Uint8Array, _source: RemoteSource): Promise<boolean> {
    const place = this.#image.placeOf(digest)
    if (place === undefined || this.#held.get(place.number)) return false
    await new Promise<void>(this.#work)
    if (this.#held.get(place.number)) return false
    this.#held.set(place.number)
    this.#byTable.get(place.table)?.set(place.index)
    this.#region.announceChunks(place.table, [place.index])
    return true
  }

  /** As the inventory: undefined where no tracked segment has the chunk. */
  requestOf(digest: Digest): ChunkRequest | undefined {
    const place = this.#image.placeOf(digest)
    return place !== undefined && this.#byTable.has(place.table) ? place : undefined
  }

  get chunks(): number {
    return this.#held.ones
  }
}
