import type { Digest } from '../../protocol/digest.ts'
import { holds, nameKey, type Holds } from '../../protocol/messages/location.ts'
import type { Catalog, CatalogObject } from './catalog.ts'

/** Told which keys this host holds: the location of the peer network. */
export interface KeyHolder {
  /** Whether nobody is told: all members are connected to all. */
  readonly isSmall: boolean
  onScale: (listener: (isSmall: boolean) => void) => void
  hold: (key: Digest, said: Holds, urgency: 'soon' | 'later') => void
  release: (key: Digest) => void
}

/** Tells the region which objects of the catalog this host has. */
export class AnnouncedObjects {
  readonly #catalog: Pick<Catalog, 'objects' | 'onObject'>
  readonly #region: KeyHolder

  constructor({ catalog, region }: { catalog: Pick<Catalog, 'objects' | 'onObject'>; region: KeyHolder }) {
    this.#catalog = catalog
    this.#region = region
    catalog.onObject((object, isHere) => {
      if (isHere) region.hold(keyOf(object), holds.much, 'soon')
      else region.release(keyOf(object))
    })
  }

  /**
   * Announces what was there before, when the region is large, or comes to be.
   * @param options `onError`: the records cannot be read
   */
  start({ onError }: { onError: (error: unknown) => void }): void {
    const announce = (isSmall: boolean): void => {
      if (!isSmall) this.#announceAll().catch(onError)
    }
    this.#region.onScale(announce)
    announce(this.#region.isSmall)
  }

  async #announceAll(): Promise<void> {
    for await (const object of this.#catalog.objects()) this.#region.hold(keyOf(object), holds.much, 'later')
  }
}

function keyOf(object: CatalogObject): Digest {
  return object.kind === 'image' ? nameKey(object.name) : object.digest
}
