import type { ChunkStore } from '../../node/store/chunk-store.ts'
import { digestOf, type Digest } from '../../protocol/digest.ts'

/** The chunk store for tests that need no disk: chunks are in memory. */
export class MemoryChunkStore implements Pick<ChunkStore, 'count' | 'has' | 'put' | 'get' | 'discard'> {
  readonly #chunks = new Map<Digest, Uint8Array>()

  get count(): number {
    return this.#chunks.size
  }

  has(digest: Digest): boolean {
    return this.#chunks.has(digest)
  }

  async put(digest: Digest, bytes: Uint8Array): Promise<boolean> {
    if (this.#chunks.has(digest)) return false
    this.#chunks.set(digest, Buffer.from(bytes))
    return true
  }

  async get(digest: Digest): Promise<Uint8Array | undefined> {
    const bytes = this.#chunks.get(digest)
    if (bytes === undefined || digestOf(bytes) === digest) return bytes
    await this.discard(digest)
    return undefined
  }

  async discard(digest: Digest): Promise<void> {
    this.#chunks.delete(digest)
  }

  /** Flips a bit of a chunk, as a bad disk would. */
  spoil(digest: Digest): void {
    const spoilt = Buffer.from(this.#chunks.get(digest) ?? [])
    spoilt[0]! ^= 1
    this.#chunks.set(digest, spoilt)
  }
}
