import { createHash } from 'node:crypto'
import type { Compression } from '../../protocol/blob-map.ts'
import { parseDigest, type Digest } from '../../protocol/digest.ts'

/** The digest of a layer's blob. A blob that is a plain tar has that of the tar, and is not hashed a second time. */
export class BlobDigest {
  readonly #hash = createHash('sha256')
  /** The bytes that came before the compression was known: a few, or one piece. */
  #first: Uint8Array[] | undefined = []
  #isTar = false

  /** Takes the next bytes of the blob. */
  update(bytes: Uint8Array): void {
    if (this.#first !== undefined) this.#first.push(bytes)
    else if (!this.#isTar) this.#hash.update(bytes)
  }

  /** It is known now how the blob is compressed. */
  start(compression: Compression): void {
    this.#isTar = compression === 'none'
    if (!this.#isTar) for (const bytes of this.#first ?? []) this.#hash.update(bytes)
    this.#first = undefined
  }

  /** @param tarDigest that of the tar in the blob */
  digest(tarDigest: Digest): Digest {
    return this.#isTar ? tarDigest : parseDigest(`sha256:${this.#hash.digest('hex')}`)
  }
}
