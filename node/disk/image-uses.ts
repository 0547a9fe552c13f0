import type { Digest } from '../../protocol/digest.ts'
import type { Log } from '../base/log.ts'
import type { Catalog } from '../store/catalog.ts'

export interface ImageUsesParts {
  catalog: Pick<Catalog, 'putUse' | 'uses'>
  log: Log
  /** Milliseconds since 1970. */
  today?: () => number
}

/** Keeps the time at which each rootfs was used here the last time, in the catalog too, for the next daemon. */
export class ImageUses {
  readonly #parts: ImageUsesParts
  readonly #today: () => number
  #uses = new Map<Digest, number>()

  constructor(parts: ImageUsesParts) {
    this.#parts = parts
    this.#today = parts.today ?? Date.now
  }

  async open(): Promise<void> {
    this.#uses = await this.#parts.catalog.uses()
  }

  /** It is mounted, unmounted or seeded now. Nobody waits for the record. */
  note(rootfs: Digest): void {
    const nowMs = this.#today()
    this.#uses.set(rootfs, nowMs)
    this.#parts.catalog
      .putUse(rootfs, nowMs)
      .catch((error: unknown) => this.#parts.log.debug('use of an image is not recorded', { error, rootfs }))
  }

  /** Milliseconds since 1970; undefined where nobody knows. */
  lastOf(rootfs: Digest): number | undefined {
    return this.#uses.get(rootfs)
  }

  forget(rootfs: Digest): void {
    this.#uses.delete(rootfs)
  }

  /** The rootfs of which that is known, those that were used the longest time ago first. */
  inOrder(): Digest[] {
    return [...this.#uses].toSorted(([, a], [, b]) => a - b).map(([rootfs]) => rootfs)
  }
}
