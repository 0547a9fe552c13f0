import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { chunkFile } from '../../../protocol/chunk-file.ts'
import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { BoundedMap } from '../../base/bounded-map.ts'
import { bulkLimits } from './bulk-limits.ts'

/**
 * Reads chunk files into memory of the caller. A chunk is hashed when it is read first, and again when its file has
 * changed since: what rots on a disk must not be taken for a lie. It blocks.
 */
export class ChunkFileReader {
  readonly #directory: string
  readonly #onDamage: (digest: Digest) => void
  /** The change time (ms) of files whose content was found to be right. */
  readonly #checked = new BoundedMap<Digest, number>({ maxEntries: bulkLimits.checkedFiles })

  constructor({ onDamage }: { onDamage: (digest: Digest) => void }, { directory }: { directory: string }) {
    this.#directory = directory
    this.#onDamage = onDamage
  }

  /**
   * @param target at least {@link maxChunkBytes} from `offset` on
   * @returns the chunk's length (bytes), or undefined where it is not here, or not right
   */
  read(digest: Digest, target: Buffer, offset: number): number | undefined {
    let file: number
    try {
      file = openSync(chunkFile(this.#directory, digest), 'r')
    } catch {
      return undefined
    }
    try {
      const { size, ctimeMs } = fstatSync(file)
      const isRight = size > 0 && size <= maxChunkBytes && readWhole(file, target, offset, size)
      if (isRight && this.#checked.get(digest) === ctimeMs) return size
      if (isRight && digestOf(target.subarray(offset, offset + size)) === digest) {
        this.#checked.set(digest, ctimeMs)
        return size
      }
      this.#onDamage(digest)
      return undefined
    } catch {
      return undefined
    } finally {
      closeSync(file)
    }
  }
}

function readWhole(file: number, target: Buffer, offset: number, size: number): boolean {
  for (let read = 0; read < size;) {
    const got = readSync(file, target, offset + read, size - read, read)
    if (got === 0) return false
    read += got
  }
  return true
}
