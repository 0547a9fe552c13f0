import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { digestBytes, digestFromBytes } from '../../../protocol/digest.ts'

/** Chunk files that one thread keeps open: 128 MiB of full-size chunks, for a fraction of the descriptor limit. */
const maxOpen = 512
/** More chunks than any image has: the chunks of all images have different numbers. */
const chunksPerImage = 2 ** 26

/** Reads of local chunks, for one thread: they block. The files that were used last are kept open. */
export class ChunkFiles {
  readonly #directory: string
  /** Descriptors in the order of their last use, the oldest first. */
  readonly #open = new Map<number, number>()

  constructor(directory: string) {
    this.#directory = directory
  }

  /**
   * Reads `length` bytes from `within` of a chunk on into `target`, from `start` on.
   * @param image the number of the image, unlike that of all others
   * @param digests 32 raw bytes per chunk of the image
   * @returns false if the chunk is not here, or its file does not have its length
   */
  read(
    image: number,
    chunk: number,
    digests: Buffer,
    chunkBytes: number,
    target: Buffer,
    start: number,
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
      if (readSync(fd, target, start, length, within) === length) return true
    } catch {
      // A chunk on a disk that fails counts as one that is not here: it is fetched, or the read fails there.
    }
    // A chunk that is fetched again is another file.
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
    try {
      if (fstatSync(fd).size === chunkBytes) return fd
    } catch {
      // As a file of another length.
    }
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
