import type { Digest } from '../../protocol/digest.ts'
import type { RemoteSource } from '../model/chunk-request.ts'

/** The sources of chunks that came while this process ran. It has as many entries as the store got chunks in that time. */
export class ChunkProvenance {
  readonly #sources = new Map<Digest, RemoteSource>()

  note(digest: Digest, source: RemoteSource): void {
    this.#sources.set(digest, source)
  }

  /** Undefined for a chunk that was here before. */
  sourceOf(digest: Digest): RemoteSource | undefined {
    return this.#sources.get(digest)
  }
}
