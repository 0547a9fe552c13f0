import type { Digest } from '../../protocol/digest.ts'
import type { ImageList, ListedImage, PinReason } from '../control/api.ts'
import type { ImageUses } from '../disk/image-uses.ts'
import { isOfLocal } from '../disk/local-reference.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import type { Mounts } from '../mount/mounts.ts'
import { foreverMs, operatorPinJob } from '../seeds/operator-pin.ts'
import type { Pins } from '../seeds/pins.ts'
import type { Catalog } from '../store/catalog.ts'
import type { Inventory } from '../store/inventory.ts'
import { namesToShow } from '../store/same-image.ts'

export interface ListImagesParts {
  /** Peer id of this host. */
  own: string
  catalog: Pick<Catalog, 'images' | 'rootfs'>
  inventory: Pick<Inventory, 'localBytes'>
  mounts: Pick<Mounts, 'list'>
  pins: Pick<Pins, 'list'>
  uses: Pick<ImageUses, 'lastOf'>
}

/** `p2pfs images`. */
export class ListImagesOperation {
  readonly #parts: ListImagesParts

  constructor(parts: ListImagesParts) {
    this.#parts = parts
  }

  async run(): Promise<ImageList> {
    const { own, catalog, inventory, mounts, uses } = this.#parts
    const records = namesToShow(await catalog.images())
    const tables = new Map<Digest, ReturnType<typeof tablesOf>>()
    /** How many images have each segment. */
    const owners = new Map<Digest, number>()
    for (const { rootfsDigest } of records) {
      const manifest = tables.has(rootfsDigest) ? undefined : await catalog.rootfs(rootfsDigest)
      if (manifest === undefined) continue
      tables.set(rootfsDigest, tablesOf(manifest))
      for (const id of new Set(tablesOf(manifest).map((table) => table.id))) owners.set(id, (owners.get(id) ?? 0) + 1)
    }
    const images: ListedImage[] = []
    for (const { reference, platform, format, rootfsDigest: digest, attestation } of records) {
      const segments = tables.get(digest)
      if (segments === undefined) continue
      const mounted = mounts.list().filter(({ rootfsDigest }) => rootfsDigest === digest)
      const lastMs = mounted.length > 0 ? Date.now() : uses.lastOf(digest)
      images.push({
        reference,
        platform,
        format,
        digest,
        sizeBytes: segments.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
        localBytes: inventory.localBytes(segments),
        sharedBytes: inventory.localBytes(segments.filter(({ id }) => (owners.get(id) ?? 0) > 1)),
        ...(lastMs !== undefined && { lastUsedAt: new Date(lastMs).toISOString() }),
        pins: [...this.#pinsOf(digest), ...(isOfLocal(reference) && attestation.key === own ? [onlyHere] : [])],
        mounts: mounted.map(({ directory }) => directory),
      })
    }
    return { images: images.toSorted((a, b) => (b.lastUsedAt ?? '').localeCompare(a.lastUsedAt ?? '')) }
  }

  #pinsOf(digest: Digest): PinReason[] {
    return this.#parts.pins.list().flatMap(({ rootfsDigest, job, untilMs, demand }): PinReason[] => {
      if (rootfsDigest !== digest) return []
      const until = untilMs >= foreverMs ? {} : { until: new Date(untilMs).toISOString() }
      if (job === operatorPinJob) return [{ why: 'pin', ...until }]
      return [{ why: demand === undefined ? 'seed' : 'hot', job, ...until }]
    })
  }
}

/** An image that was made here stays: nobody else need have it. */
const onlyHere: PinReason = { why: 'local' }
