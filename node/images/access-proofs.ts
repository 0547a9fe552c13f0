import type { Digest } from '../../protocol/digest.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import { SingleFlight } from '../base/single-flight.ts'
import type { ImageSource } from '../registry/image-source.ts'
import { callerOf, repositoryOf, type Reference } from '../registry/reference.ts'

/**
 * So long a caller counts as one who may read an image after its registry has let him (ms): a right that is taken away
 * ends then.
 */
export const accessMs = 60_000
/** Proofs that are remembered. */
const maxProofs = 4096

/** Remembers which callers may read which images. A registry says so when it is asked with the caller's credentials. */
export class AccessProofs {
  readonly #registry: Pick<ImageSource, 'checkAccess'>
  readonly #proven: ExpiringMap<string>
  readonly #asking = new SingleFlight<void>()

  constructor({ registry }: { registry: Pick<ImageSource, 'checkAccess'> }, { now }: { now: () => number }) {
    this.#registry = registry
    this.#proven = new ExpiringMap({ maxEntries: maxProofs, now })
  }

  /**
   * Proves with one request, once in {@link accessMs}, that the caller of the reference may read the image. Nothing
   * stands in for the registry's answer.
   * @throws denied, missing where he may not; the codes of the transport where the registry does not say
   */
  async prove(reference: Reference, image: Digest, { signal }: { signal: AbortSignal }): Promise<void> {
    if (reference.kind !== 'registry') return
    const key = keyOf(reference, image)
    if (this.#proven.has(key)) return
    await this.#asking.run(key, signal, async (signal) => {
      await this.#registry.checkAccess({ ...reference, digest: image }, { signal })
      this.noteAnswer(reference, image)
    })
  }

  /** The registry has just described the image to the caller of the reference. */
  noteAnswer(reference: Reference, image: Digest): void {
    this.#proven.set(keyOf(reference, image), true, accessMs)
  }
}

const keyOf = (reference: Reference, image: Digest): string =>
  `${callerOf(reference)?.key ?? ''} ${repositoryOf(reference)} ${image}`
