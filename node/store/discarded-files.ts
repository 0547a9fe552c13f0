import { mkdir, readdir, rename, truncate, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { blockBytes } from '../base/room-counter.ts'
import type { Log } from '../base/log.ts'
import { Semaphore } from '../base/semaphore.ts'
import type { GroupSync } from './group-sync.ts'
import type { StoreRoom } from './store-room.ts'

/** Files that are removed at once: it leaves most of Node's four threads to reads. */
const removedAtOnce = 1

export interface DiscardedFilesParts {
  sync: Pick<GroupSync, 'nextSync'>
  room: Pick<StoreRoom, 'give'>
  log: Log
}

/**
 * Files that were chunks. They have lost their names, and are removed after the next sync: their blocks must not be
 * used anew as long as a power loss could bring them back.
 */
export class DiscardedFiles {
  readonly #parts: DiscardedFilesParts
  readonly #directory: string
  readonly #prefix: string
  readonly #removals = new Set<Promise<void>>()
  readonly #turn = new Semaphore(removedAtOnce)
  #count = 0
  #waitingBlocks = 0

  /** @param options `prefix`: of the files' names, unique to this process */
  constructor(parts: DiscardedFilesParts, { directory, prefix }: { directory: string; prefix: string }) {
    this.#parts = parts
    this.#directory = directory
    this.#prefix = prefix
  }

  async open(): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
  }

  /** Removes what an earlier process has left. */
  async removeFormer(): Promise<void> {
    for (const name of await readdir(this.#directory)) this.#removeLater(join(this.#directory, name), 0)
  }

  /** Room that is free after the next sync (bytes). */
  get waitingBytes(): number {
    return this.#waitingBlocks * blockBytes
  }

  /**
   * Takes a file's name away; at once, where there is such a file.
   * @param blocks what it is counted with, given back when it is gone
   */
  async take(file: string, blocks: number): Promise<void> {
    const discarded = join(this.#directory, `${this.#prefix}-${this.#count++}`)
    try {
      await rename(file, discarded)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
        // It stays, and is counted no more.
        this.#parts.room.give(blocks)
        throw error
      }
      return this.#parts.room.give(blocks)
    }
    this.#removeLater(discarded, blocks)
  }

  /** Resolves when those that were taken so far are gone, after a sync. */
  async removed(): Promise<void> {
    await Promise.all(this.#removals)
  }

  #removeLater(discarded: string, blocks: number): void {
    this.#waitingBlocks += blocks
    const remove = async (): Promise<void> => {
      // A thread that reads chunks may have it open, and would keep its blocks; what it reads of it then is too short.
      await truncate(discarded, 0).catch(() => undefined)
      await unlink(discarded).catch((error: unknown) =>
        this.#parts.log.debug('discarded chunk cannot be removed', { error, file: discarded }),
      )
      this.#waitingBlocks -= blocks
      this.#parts.room.give(blocks)
    }
    const removal = this.#parts.sync
      .nextSync()
      .then(async () => await this.#turn.run(remove))
      .finally(() => this.#removals.delete(removal))
    this.#removals.add(removal)
  }
}
