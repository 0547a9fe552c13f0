import { randomBytes } from 'node:crypto'
import { readdir, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Digest } from '../../protocol/digest.ts'
import { temporaryDirectoryOf, type ChunkFileWriting, type WrittenChunk } from '../base/chunk-file-writer.ts'

export interface ThreadWritingParts {
  /** Whether a chunk is to be written; when it may be. */
  lacks: (digest: Digest, lengthBytes: number) => Promise<boolean>
  /** Takes room for a chunk. @throws unavailable where there is none */
  takeRoom: (digest: Digest, lengthBytes: number) => Promise<void>
  giveRoom: (lengthBytes: number) => void
  adopt: (chunk: WrittenChunk) => boolean
  /** Whether the chunk is here, or the store is writing it itself. */
  isTaken: (digest: Digest) => boolean
  discard: (digest: Digest) => Promise<void>
  /** Returns the error to throw where the disk refuses. */
  failed: (cause: unknown) => Promise<Error>
  /** The thread writes no more. */
  release: () => void
}

/**
 * The chunk files that one thread writes. It asks before each, tells when it has written some, and may be killed at any
 * instruction: what it has not told of then is removed when this is disposed of.
 */
export class ThreadWriting implements AsyncDisposable {
  /** For the thread's `ChunkFileWriter`. */
  readonly writing: ChunkFileWriting
  readonly #parts: ThreadWritingParts
  /** The grants of all threads: a file that this thread has not told of may be another thread's. */
  readonly #granted: Map<Digest, number>
  /** The chunks that this thread may write, with the length that room was taken for (bytes). */
  readonly #own = new Map<Digest, number>()
  readonly #prefix = randomBytes(6).toString('hex')
  #isOver = false

  constructor(parts: ThreadWritingParts, granted: Map<Digest, number>, writing: ChunkFileWriting) {
    this.#parts = parts
    this.#granted = granted
    this.writing = { ...writing, prefix: this.#prefix }
  }

  /**
   * Whether the thread is to write the chunk: false where it is here. Resolves when there is room for it.
   * @throws unavailable where the disk is full
   */
  async grant(digest: Digest, lengthBytes: number): Promise<boolean> {
    const { lacks, takeRoom, giveRoom } = this.#parts
    if (!(await lacks(digest, lengthBytes)) || this.#isOver) return false
    if (this.#own.has(digest)) return true
    await takeRoom(digest, lengthBytes)
    if (this.#isOver || this.#own.has(digest)) {
      giveRoom(lengthBytes)
      return !this.#isOver
    }
    this.#granted.set(digest, (this.#granted.get(digest) ?? 0) + 1)
    this.#own.set(digest, lengthBytes)
    return true
  }

  /** Takes over a file that the thread has written. @returns whether the chunk was not here before */
  adopt(chunk: WrittenChunk): boolean {
    this.#forget(chunk.digest)
    return this.#parts.adopt(chunk)
  }

  /** Turns an error of the thread's writer into one for the thread's user. */
  async failed(cause: unknown): Promise<Error> {
    return await this.#parts.failed(cause)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { release, isTaken, discard, giveRoom } = this.#parts
    this.#isOver = true
    const temporary = temporaryDirectoryOf(this.writing.directory)
    for (const name of await readdir(temporary).catch(() => []))
      if (name.startsWith(`${this.#prefix}-`)) await unlink(join(temporary, name)).catch(() => undefined)
    for (const [digest, lengthBytes] of this.#own) {
      this.#forget(digest)
      giveRoom(lengthBytes)
      if (!this.#granted.has(digest) && !isTaken(digest)) await discard(digest).catch(() => undefined)
    }
    release()
  }

  #forget(digest: Digest): void {
    if (!this.#own.delete(digest)) return
    const others = (this.#granted.get(digest) ?? 1) - 1
    if (others === 0) this.#granted.delete(digest)
    else this.#granted.set(digest, others)
  }
}
