import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { digestBytes, digestFromBytes } from '../../../protocol/digest.ts'

/** Chunk files that one thread keeps open: a gigabyte of full-size chunks, for a fraction of the descriptor limit. */
const maxOpen = 512
/** More chunks than any image has: keys of all images fit into one map of numbers. */
const chunksPerImage = 2 ** 26

/** Reads of local chunks, for one thread: blocking, with the last used files kept open. */
export class ChunkFiles {
  readonly #directory: string
  /** In order of use, the oldest first. */
  readonly #open = new Map<number, number>()

  constructor(directory: string) {
    this.#directory = directory
  }

  /**
   * Reads `length` bytes at `within` of a chunk into `target` at `at`.
   * @param image a number of the image's own, for the cache of open files
   * @param digests 32 raw bytes per chunk of the image
   * @returns false where the chunk is not here, or not whole
   */
  read(
    image: number,
    chunk: number,
    digests: Buffer,
    chunkBytes: number,
    target: Buffer,
    at: number,
    length: number,
    within: number,
  ): boolean {
    const key = image * chunksPerImage + chunk
    let fd = this.#open.get(key)
    if (fd === undefined) {
      fd = this.#openFile(chunkFile(this.#directory, digestFromBytes(digests, chunk * digestBytes)), chunkBytes)
      if (fd === undefined) return false
      if (this.#open.size >= maxOpen) this.#closeOldest()
    } else this.#open.delete(key)
    this.#open.set(key, fd)
    try {
      if (readSync(fd, target, at, length, within) === length) return true
    } catch {
      // A disk that fails is as good as a chunk that is not here: it will be fetched, or the read fails there.
    }
    // What comes instead is another file.
    this.#close(key, fd)
    return false
  }

  #openFile(path: string, chunkBytes: number): number | undefined {
    let fd: number
    try {
      fd = openSync(path, 'r')
    } catch {
      return undefined
    }
    if (fstatSync(fd).size === chunkBytes) return fd
    closeSync(fd)
    return undefined
  }

  #closeOldest(): void {
    const [oldest] = this.#open
    if (oldest !== undefined) this.#close(...oldest)
  }

  #close(key: number, fd: number): void {
    this.#open.delete(key)
    closeSync(fd)
  }
}
