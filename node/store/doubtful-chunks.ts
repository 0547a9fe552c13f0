import type { Digest } from '../../protocol/digest.ts'
import type { ChunkDirectory } from './chunk-directory.ts'
import { DigestMap } from './digest-map.ts'
import type { GroupSync } from './group-sync.ts'

export interface DoubtfulChunksParts {
  files: Pick<ChunkDirectory, 'statNow'>
  sync: Pick<GroupSync, 'isDoubtful' | 'noteWritten' | 'settle'>
}

/** Chunk files that a power loss may have damaged: after an unclean boot all whose times nobody has looked at. */
export class DoubtfulChunks {
  readonly #parts: DoubtfulChunksParts
  readonly #digests = new DigestMap()

  constructor(parts: DoubtfulChunksParts) {
    this.#parts = parts
  }

  get size(): number {
    return this.#digests.size
  }

  has(digest: Digest): boolean {
    return this.#digests.has(digest)
  }

  digests(): IterableIterator<Digest> {
    return this.#digests.keys()
  }

  add(digest: Digest): void {
    this.#digests.set(digest, 0)
  }

  /**
   * Looks at the times of files, and removes those of before the last sync, which are certain. It blocks. @returns
   * these
   */
  takeCertain(digests: Iterable<Digest>): Digest[] {
    const certain: Digest[] = []
    for (const digest of digests) {
      if (!this.#digests.has(digest)) continue
      const found = this.#parts.files.statNow(digest)
      if (found === undefined || this.#parts.sync.isDoubtful(found.mtimeMs)) continue
      this.#digests.delete(digest)
      certain.push(digest)
    }
    return certain
  }

  /** A chunk was found to be right, or is gone: it is in doubt no longer. */
  end(digest: Digest): void {
    if (!this.#digests.delete(digest)) return
    this.#parts.sync.noteWritten(0)
    void this.settled()
  }

  /** Resolves when the record says that nothing is in doubt; at once where something is. */
  async settled(): Promise<void> {
    if (this.#digests.size === 0) await this.#parts.sync.settle().catch(() => undefined)
  }
}
