import { rm } from 'node:fs/promises'
import { Level } from 'level'
import { P2pfsError } from '../../protocol/errors.ts'
import { isDiskFull } from '../base/disk-full.ts'
import type { Log } from '../base/log.ts'
import { bytesInMemory, copyToDisk, copyToMemory, isInMemory, type CatalogDirectories } from './catalog-in-memory.ts'
import { roomOf, type Room } from './disk-room.ts'
import type { DiskReserve } from './disk-reserve.ts'

/** How often a task is run again that recoveries of the database cut short. */
const maxAttempts = 3
/** How often it is seen whether the disk has room for what is in memory (ms). */
const lookMs = 10_000
/** The room that is to stay free on the disk beyond that: LevelDB's log, and a table (bytes). */
const spareBytes = 8 * 1024 * 1024

export type Database = Level<string, Uint8Array>

export interface CatalogDatabaseParts {
  /** Disk space that is given up where a write fails for lack of it. */
  reserve: Pick<DiskReserve, 'release'>
  log: Log
  /** The room of the disk; by default that of the database's. */
  room?: () => Promise<Pick<Room, 'freeBytes'>>
  /** In ms. */
  now?: () => number
}

/**
 * LevelDB, whose reads and writes go on while the disk is full: it is copied to memory then, and back when there is room. Records that
 * are written meanwhile outlive the daemon, and end with a reboot.
 */
export class CatalogDatabase {
  readonly #parts: CatalogDatabaseParts
  readonly #directories: CatalogDirectories
  #level: Database
  #isInMemory: boolean
  #lookedMs: number
  #move: Promise<void> | undefined
  #isClosed = false

  private constructor(
    parts: CatalogDatabaseParts,
    directories: CatalogDirectories,
    { isInMemory }: { isInMemory: boolean },
  ) {
    this.#parts = parts
    this.#directories = directories
    this.#isInMemory = isInMemory
    this.#level = databaseIn(isInMemory ? directories.memory : directories.disk)
    this.#lookedMs = this.#now()
  }

  /** @throws conflict where another process has the catalog open; unavailable where neither disk nor memory take it */
  static async open(parts: CatalogDatabaseParts, directories: CatalogDirectories): Promise<CatalogDatabase> {
    const isThere = await isInMemory(directories)
    if (!isThere) await rm(directories.memory, { recursive: true, force: true })
    const database = new CatalogDatabase(parts, directories, { isInMemory: isThere })
    await database.#openOrMove()
    return database
  }

  async close(): Promise<void> {
    await this.#move?.catch(() => undefined)
    this.#isClosed = true
    await this.#level.close()
    if (this.#isInMemory && (await this.#hasRoom())) await this.#copyToDisk()
  }

  /** Runs a task that a move may cut short: it is run again then. A move that has failed is tried again. */
  async read<T>(task: (level: Database) => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      await this.#move
      try {
        return await task(this.#level)
      } catch (error) {
        if (this.#isClosed || attempt >= maxAttempts || !isNotOpen(error)) throw error
        if (this.#move === undefined && this.#level.status !== 'open') this.#begin(async () => await this.#openOrMove())
      }
    }
  }

  /** @param key for the error @throws unavailable where neither disk nor memory take it */
  async write(key: string, write: (level: Database) => Promise<void>): Promise<void> {
    try {
      if (this.#isInMemory) await this.#look()
      await this.read(write).catch(async (error: unknown) => {
        if (!isDiskFull(error)) throw error
        // LevelDB's log may end in half a record, so it is opened anew, with a new log.
        this.#begin(async () => await this.#moveToMemory())
        await this.read(write)
      })
    } catch (cause) {
      throw new P2pfsError('unavailable', `cannot write the catalog: ${reasonOf(cause)}`, { cause, key })
    }
  }

  /** Goes back to the disk if that has room now. */
  async #look(): Promise<void> {
    if (this.#now() - this.#lookedMs < lookMs || this.#move !== undefined) return
    this.#lookedMs = this.#now()
    if (await this.#hasRoom()) this.#begin(async () => await this.#moveToDisk())
  }

  async #hasRoom(): Promise<boolean> {
    const { disk } = this.#directories
    const { freeBytes } = await (this.#parts.room?.() ?? roomOf(disk))
    return freeBytes >= (await bytesInMemory(this.#directories)) + spareBytes
  }

  /** One move at a time. */
  #begin(move: () => Promise<void>): void {
    this.#move ??= move().finally(() => (this.#move = undefined))
    this.#move.catch(() => undefined)
  }

  async #moveToMemory(): Promise<void> {
    const { reserve, log } = this.#parts
    await reserve.release()
    await this.#level.close()
    if (!this.#isInMemory) {
      await copyToMemory(this.#directories)
      log.warn('disk is full; the catalog is in memory until there is room again', { ...this.#directories })
    }
    this.#isInMemory = true
    this.#lookedMs = this.#now()
    await this.#open()
  }

  async #moveToDisk(): Promise<void> {
    await this.#level.close()
    if (await this.#copyToDisk()) this.#isInMemory = false
    await this.#openOrMove()
  }

  async #copyToDisk(): Promise<boolean> {
    const { log } = this.#parts
    try {
      await copyToDisk(this.#directories)
      log.info('disk has room again; the catalog is on it')
      return true
    } catch (error) {
      log.warn('catalog stays in memory: it cannot be written to the disk', { error })
      return false
    }
  }

  async #openOrMove(): Promise<void> {
    try {
      await this.#open()
    } catch (error) {
      if (this.#isInMemory || !isDiskFull(error)) throw error
      await this.#moveToMemory()
    }
  }

  #now(): number {
    return this.#parts.now?.() ?? performance.now()
  }

  async #open(): Promise<void> {
    const { disk, memory } = this.#directories
    const location = this.#isInMemory ? memory : disk
    if (this.#level.location !== location) this.#level = databaseIn(location)
    try {
      await this.#level.open()
    } catch (cause) {
      if (cause instanceof Error && (cause.cause as { code?: unknown } | undefined)?.code === 'LEVEL_LOCKED') {
        throw new P2pfsError('conflict', `the catalog is in use by another daemon: ${location}`, { cause })
      }
      throw new P2pfsError('unavailable', `cannot open the catalog ${location}: ${reasonOf(cause)}`, { cause })
    }
  }
}

function databaseIn(directory: string): Database {
  return new Level<string, Uint8Array>(directory, { valueEncoding: 'view' })
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
