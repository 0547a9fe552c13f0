import { setTimeout as sleep } from 'node:timers/promises'
import { Level } from 'level'
import { P2pfsError } from '../../protocol/errors.ts'
import { isDiskFull } from '../base/disk-full.ts'
import type { DiskReserve } from './disk-reserve.ts'

/** How often a task is run again that recoveries of the database cut short, and how often the database is opened in one. */
const maxAttempts = 3
/** Between two attempts to open it on a full disk (ms). */
const reopenPauseMs = 300

export type Database = Level<string, Uint8Array>

export interface CatalogDatabaseParts {
  /** Disk space that is given up where a write fails for lack of it. */
  reserve: Pick<DiskReserve, 'release'>
}

/**
 * LevelDB on a disk that may be full. A write that the disk refuses may leave half a record at the end of LevelDB's log, so the
 * database is opened anew then, with a new log; tasks that were cut short by that are run again.
 */
export class CatalogDatabase {
  readonly #reserve: CatalogDatabaseParts['reserve']
  readonly #level: Database
  #recovery: Promise<void> | undefined
  #isClosed = false

  private constructor({ reserve }: CatalogDatabaseParts, { directory }: { directory: string }) {
    this.#reserve = reserve
    this.#level = new Level<string, Uint8Array>(directory, { valueEncoding: 'view' })
  }

  /** @throws conflict where another process has the database open; unavailable where the disk refuses */
  static async open(parts: CatalogDatabaseParts, options: { directory: string }): Promise<CatalogDatabase> {
    const database = new CatalogDatabase(parts, options)
    try {
      await database.#open()
    } catch (error) {
      if (!isDiskFull(error)) throw error
      await parts.reserve.release()
      await database.#open()
    }
    return database
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await this.#level.close()
  }

  /** Runs a task, and again if a recovery cuts it short. A recovery that has failed is tried again. */
  async read<T>(task: (level: Database) => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      await this.#recovery
      try {
        return await task(this.#level)
      } catch (error) {
        if (this.#isClosed || attempt >= maxAttempts || !isNotOpen(error)) throw error
        if (this.#recovery === undefined && this.#level.status !== 'open') this.#beginRecovery()
      }
    }
  }

  /** @param key for the error @throws unavailable where the disk refuses */
  async write(key: string, write: (level: Database) => Promise<void>): Promise<void> {
    try {
      await this.read(write).catch(async (error: unknown) => {
        if (!isDiskFull(error)) throw error
        this.#beginRecovery()
        await this.#recovery
        await write(this.#level)
      })
    } catch (cause) {
      throw new P2pfsError('unavailable', `cannot write the catalog: ${reasonOf(cause)}`, { cause, key })
    }
  }

  async #open(): Promise<void> {
    try {
      await this.#level.open()
    } catch (cause) {
      const { location } = this.#level
      if (cause instanceof Error && (cause.cause as { code?: unknown } | undefined)?.code === 'LEVEL_LOCKED') {
        throw new P2pfsError('conflict', `the catalog is in use by another daemon: ${location}`, { cause })
      }
      throw new P2pfsError('unavailable', `cannot open the catalog ${location}: ${reasonOf(cause)}`, { cause })
    }
  }

  async #recover(): Promise<void> {
    await this.#reserve.release()
    await this.#level.close()
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#open()
      } catch (error) {
        // A writer that met the full disk may have taken the room of the reserve, until it gives up.
        if (attempt >= maxAttempts || this.#isClosed || !isDiskFull(error)) throw error
        await sleep(reopenPauseMs)
      }
    }
  }

  #beginRecovery(): void {
    this.#recovery ??= this.#recover().finally(() => (this.#recovery = undefined))
  }
}

/** abstract-level throws these codes while the database is closed, and where it was closed while an iterator ran. */
function isNotOpen(error: unknown): boolean {
  const { code } = error as { code?: unknown }
  return code === 'LEVEL_DATABASE_NOT_OPEN' || code === 'LEVEL_ITERATOR_NOT_OPEN'
}

/** LevelDB's own words, which abstract-level puts into the cause. */
function reasonOf(error: unknown): string {
  const { message, cause } = error as Error
  return cause instanceof Error ? cause.message : message
}
