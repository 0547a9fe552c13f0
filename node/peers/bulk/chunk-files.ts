import type { Digest } from '../../../protocol/digest.ts'

/** The chunk store as bulk transfers use it: its threads read and write the files, and it is told what has come of that. */
export interface ChunkFiles {
  /** The directory of the chunk files (`protocol/chunk-file.ts`); temporary files go to `incoming` in it. */
  readonly directory: string
  /** Whether the disk has no room for chunks. */
  readonly isFull: boolean
  /** Files of these chunks, which are right, have been written. */
  adopt: (chunks: readonly Digest[]) => void
  /** A file could not be written. */
  failed: (error: Error) => void
  /** The file of a chunk is not what its name says. */
  suspect: (chunk: Digest) => void
}
