import { randomBytes } from 'node:crypto'
import { closeSync, futimesSync, openSync, renameSync, statSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { chunkFile } from '../../protocol/chunk-file.ts'
import type { Digest } from '../../protocol/digest.ts'
import { diskFull, storeFull } from './disk-full.ts'
import { blocksOf, RoomCounter } from './room-counter.ts'
import { WriteEpochs } from './write-epochs.ts'

/** The data with which a thread can write chunk files; it can be sent to a thread. */
export interface ChunkFileWriting {
  /** The directory of the chunk files. */
  directory: string
  epochs: SharedArrayBuffer
  /** Room for files is taken here (`RoomCounter`); absent where it was taken by whoever told the thread to write. */
  room?: SharedArrayBuffer
  /** The epoch cell of a thread that may be killed: see `WriteEpochs.giveCell`. */
  cell?: SharedArrayBuffer
  /** The names of its temporary files begin with this; random by default. */
  prefix?: string
}

/** A chunk whose file a thread has written. */
export interface WrittenChunk {
  digest: Digest
  lengthBytes: number
  /** The inode change time (ms) of its file, which is right as long as it has this. */
  changedAtMs: number
}

/** The directory of files that have no name yet, below that of the chunk files. */
export function temporaryDirectoryOf(directory: string): string {
  return join(directory, 'incoming')
}

/**
 * Writes chunk files as the store does, for threads that may block: under a temporary name, then renamed. Nothing is
 * synced; the store does that when it has been told of them (`adopt`).
 */
export class ChunkFileWriter {
  readonly #directory: string
  readonly #epochs: WriteEpochs
  readonly #prefix: string
  readonly #room: RoomCounter | undefined
  #written = 0

  constructor({ directory, epochs, room, cell, prefix = randomBytes(6).toString('hex') }: ChunkFileWriting) {
    this.#directory = directory
    this.#epochs = new WriteEpochs(epochs, cell)
    this.#prefix = prefix
    this.#room = room && new RoomCounter(room)
  }

  /**
   * @param bytes have this digest; they are the caller's again when this returns
   * @returns the file's inode change time (ms), by which others know that it has not changed since
   * @throws what the disk throws; nothing is left behind then
   */
  write(digest: Digest, bytes: Uint8Array): number {
    if (this.#epochs.isHalted) throw diskFull()
    const blocks = blocksOf(bytes.length)
    if (this.#room?.take(blocks) === false) throw storeFull()
    const temporary = join(temporaryDirectoryOf(this.#directory), `${this.#prefix}-${this.#written++}`)
    const epoch = this.#epochs.begin()
    try {
      const file = openSync(temporary, 'wx', 0o600)
      try {
        for (let offset = 0; offset < bytes.length;) offset += writeSync(file, bytes, offset)
        futimesSync(file, epoch, epoch)
      } finally {
        closeSync(file)
      }
      const path = chunkFile(this.#directory, digest)
      renameSync(temporary, path)
      // A rename counts as a change of the inode.
      return statSync(path).ctimeMs
    } catch (error) {
      try {
        unlinkSync(temporary)
      } catch {
        // It was not made.
      }
      this.#room?.give(blocks)
      throw error
    } finally {
      this.#epochs.end(epoch)
    }
  }
}
