import type { Digest } from '../../protocol/digest.ts'

/** Where the chunks came from that came while this process ran: as many entries as the store got chunks in that time. */
export class ChunkProvenance {
  readonly #sources = new Map<Digest, 'peer' | 'registry'>()

  note(digest: Digest, source: 'peer' | 'registry'): void {
    this.#sources.set(digest, source)
  }

  /** Undefined for what was here before, or was made here. */
  sourceOf(digest: Digest): 'peer' | 'registry' | undefined {
    return this.#sources.get(digest)
  }
}
