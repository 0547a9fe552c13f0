import type { ChunkFileWriting, WrittenChunk } from '../../base/chunk-file-writer.ts'
import type { ChunkRange } from './data-ranges.ts'

/** The input of the thread that reads a raw image. */
export interface RawThreadSetup {
  /** The open file. It stays open until the thread has ended. */
  fd: number
  /** Undefined for a pipe: it has as many bytes as come. */
  sizeBytes: number | undefined
  /** The chunks that need to be read; undefined: all. */
  ranges: readonly ChunkRange[] | undefined
  writing: ChunkFileWriting | undefined
}

/** Chunks that the thread holds in memory until it is told which of them to write. */
export interface HashedBatch {
  id: number
  /** 32 raw bytes each. */
  digests: Uint8Array
  /** The length of the last chunk; the others have the full length (bytes). */
  lastLengthBytes: number
  /** How much of the image is behind it (bytes). */
  doneBytes: number
}

export type FromRawThread =
  | { hashed: HashedBatch }
  /** The chunks of a batch that were missing have been written. */
  | { written: WrittenChunk[] }
  /** The digests of all chunks of the image, in order. */
  | { done: { digests: Uint8Array; sizeBytes: number } }
  | { failed: RawThreadFailure }

export interface RawThreadFailure {
  message: string
  errno: string | undefined
  step: 'read' | 'write'
}

/** The chunks of a batch that are not here: a byte for each chunk, 1 where it is missing. */
export interface ToRawThread {
  batch: number
  missing: Uint8Array
}
