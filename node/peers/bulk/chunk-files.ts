import type { Digest } from '../../../protocol/digest.ts'
import type { ChunkFileWriting, WrittenChunk } from '../../base/chunk-file-writer.ts'

/** The chunk store as bulk transfers use it: its threads read and write the files, and it is told what has come of that. */
export interface ChunkFiles {
  /** The data with which threads write chunk files; its directory is that of the files (`protocol/chunk-file.ts`). */
  readonly writing: ChunkFileWriting
  /** Whether the disk has no room for chunks. */
  readonly isFull: boolean
  /**
   * Files of these chunks, which are right, have been written. Resolves when more may be: at once, unless the disk is
   * behind.
   */
  adopt: (chunks: readonly WrittenChunk[]) => Promise<void>
  /** A file could not be written. */
  failed: (error: Error) => void
  /** The file of a chunk is not what its name says. */
  suspect: (chunk: Digest) => void
}
