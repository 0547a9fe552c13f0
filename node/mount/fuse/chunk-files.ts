import { hash } from 'node:crypto'
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { digestBytes, digestFromBytes } from '../../../protocol/digest.ts'
import type { ServedImage } from './image-nodes.ts'

/** Chunk files that one thread keeps open: 128 MiB of full-size chunks, for a fraction of the descriptor limit. */
const maxOpen = 512
/** More chunks than any image has: the chunks of all images have different numbers. */
const chunksPerImage = 2 ** 26

/** A piece of a chunk (bytes). */
export interface ChunkPiece {
  chunk: number
  /** Length of the whole chunk. */
  chunkBytes: number
  /** Start of the piece in the chunk. */
  within: number
  lengthBytes: number
}

/**
 * Reads of local chunks, for one thread: they block. The files that were used last are kept open. A chunk is hashed
 * when a thread of this process reads it first, and again whenever its file has changed since.
 */
export class ChunkFiles {
  readonly #directory: string
  /** Descriptors in the order of their last use, the oldest first. */
  readonly #open = new Map<number, number>()
  /** A whole chunk, to be hashed. */
  #whole = Buffer.alloc(256 * 1024)

  constructor(directory: string) {
    this.#directory = directory
  }

  /**
   * Reads a piece of a chunk of the image into `target`, from `start` on.
   * @returns false if the chunk is not here, or its file is not what it should be
   */
  read(
    image: Pick<ServedImage, 'number' | 'digests' | 'checkedAtMs'>,
    piece: ChunkPiece,
    target: Buffer,
    start: number,
  ): boolean {
    const { chunk, chunkBytes } = piece
    const key = image.number * chunksPerImage + chunk
    let fd = this.#open.get(key)
    if (fd === undefined) {
      fd = this.#openFile(chunkFile(this.#directory, digestFromBytes(image.digests, chunk * digestBytes)))
      if (fd === undefined) return false
      if (this.#open.size >= maxOpen) this.#closeOldest()
    } else this.#open.delete(key)
    this.#open.set(key, fd)
    try {
      const { size, ctimeMs } = fstatSync(fd)
      if (size === chunkBytes) {
        const isUnchanged = image.checkedAtMs[chunk] === ctimeMs
        if (isUnchanged && readSync(fd, target, start, piece.lengthBytes, piece.within) === piece.lengthBytes)
          return true
        if (!isUnchanged && this.#check(image, chunk, fd, chunkBytes)) {
          image.checkedAtMs[chunk] = ctimeMs
          this.#whole.copy(target, start, piece.within, piece.within + piece.lengthBytes)
          return true
        }
      }
    } catch {
      // A chunk on a disk that fails counts as one that is not here: it is fetched, or the read fails there.
    }
    // A chunk that is fetched again is another file.
    this.#close(key, fd)
    return false
  }

  /** Reads the whole chunk. @returns whether its bytes are right */
  #check({ digests }: Pick<ServedImage, 'digests'>, chunk: number, fd: number, chunkBytes: number): boolean {
    if (this.#whole.length < chunkBytes) this.#whole = Buffer.alloc(chunkBytes)
    if (readSync(fd, this.#whole, 0, chunkBytes, 0) !== chunkBytes) return false
    const digest = hash('sha256', this.#whole.subarray(0, chunkBytes), 'buffer')
    return digest.equals(digests.subarray(chunk * digestBytes, (chunk + 1) * digestBytes))
  }

  #openFile(path: string): number | undefined {
    try {
      return openSync(path, 'r')
    } catch {
      return undefined
    }
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
