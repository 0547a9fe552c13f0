import type { SeedImage } from '../../protocol/seed-job.ts'
import { BoundedMap } from '../base/bounded-map.ts'
import type { ImageResolver } from '../images/resolver.ts'
import { isPinned } from '../images/decisions.ts'
import { parseReference, type Reference } from '../registry/reference.ts'
import { nameKey } from './mount-counts.ts'

/** Names whose last look is remembered; more are looked at sooner. */
const maxNames = 1024

export interface MovedTagsParts {
  resolver: Pick<ImageResolver, 'resolveForSeed' | 'refresh'>
  /** Whether this host reads the image's registry for what members want. */
  readsFor: (reference: string) => Promise<boolean>
  /** The clock (ms). */
  now: () => number
}

/** Looks what the tags of images that are mounted stand for now. */
export class MovedTags {
  readonly #parts: MovedTagsParts
  readonly #lookedAtMs: BoundedMap<string, number>

  constructor(parts: MovedTagsParts) {
    this.#parts = parts
    this.#lookedAtMs = new BoundedMap({ maxEntries: maxNames })
  }

  /**
   * Asks the registry, where the operator has it read for members, and not within so long after the last time (ms). An image
   * that nobody has is imported, once for the region, as for a seed.
   * @returns the image that the name stands for now, where it is another one
   * @throws what the resolver throws
   */
  async look(
    image: SeedImage,
    { notWithinMs, signal }: { notWithinMs: number; signal: AbortSignal },
  ): Promise<SeedImage | undefined> {
    const { resolver } = this.#parts
    const reference = await this.#due(image, notWithinMs)
    if (reference === undefined) return undefined
    const { platform, format } = image
    const options = { signal, onProgress: () => undefined }
    const known = await resolver.refresh(reference, { platform, format }, options)
    const { record, resolution } = known
      ? { ...known, resolution: 'registry' }
      : await resolver.resolveForSeed(reference, { platform, format }, options)
    if (resolution !== 'registry' || record.manifestDigest === image.manifestDigest) return undefined
    const { manifestDigest, rootfsDigest } = record
    return { reference: image.reference, platform, format: record.format, manifestDigest, rootfsDigest }
  }

  /**
   * Asks whether the tag of an image that is mounted now and then still stands for it, so that mounts need not. One that has
   * moved is left to those who mount it.
   * @returns whether the registry was asked
   * @throws what the registry client throws
   */
  async refresh(
    image: SeedImage,
    { notWithinMs, signal }: { notWithinMs: number; signal: AbortSignal },
  ): Promise<boolean> {
    const reference = await this.#due(image, notWithinMs)
    if (reference === undefined) return false
    const { platform, format } = image
    await this.#parts.resolver.refresh(reference, { platform, format }, { signal, onProgress: () => undefined })
    return true
  }

  /** The name, where it is to be asked for now. */
  async #due(image: SeedImage, notWithinMs: number): Promise<Reference | undefined> {
    const { readsFor, now } = this.#parts
    const name = nameKey(image)
    if (now() - (this.#lookedAtMs.get(name) ?? -Infinity) < notWithinMs) return undefined
    const reference = parseReference(image.reference)
    if (reference.kind !== 'registry' || isPinned(reference) || !(await readsFor(image.reference))) return undefined
    this.#lookedAtMs.set(name, now())
    return reference
  }
}
