import { setTimeout as sleep } from 'node:timers/promises'
import { Level } from 'level'
import { P2pfsError } from '../../protocol/errors.ts'
import { isDiskFull } from '../base/disk-full.ts'
import type { Log } from '../base/log.ts'
import type { DiskReserve } from './disk-reserve.ts'
import type { KeyRange } from './keys.ts'

/** How often a task is run again that recoveries of the database cut short, and how often the database is opened in one. */
const maxAttempts = 3
/** Between two attempts to open it on a full disk (ms). */
const reopenPauseMs = 300

export interface RecordDatabaseParts {
  /** Disk space that is given up where a write fails for lack of it. */
  reserve: Pick<DiskReserve, 'release'>
  log: Log
}

type Database = Level<string, Uint8Array>
type Parse<T> = (bytes: Uint8Array) => T

/**
 * The database of the catalog: records by their keys, in LevelDB. A write that the disk refuses may leave half a record at the
 * end of LevelDB's log, so the database is opened anew then, with a new log; what was cut short by that is run again.
 */
export class RecordDatabase implements AsyncDisposable {
  readonly #reserve: RecordDatabaseParts['reserve']
  readonly #log: Log
  readonly #level: Database
  #recovery: Promise<void> | undefined
  #isClosed = false

  private constructor({ reserve, log }: RecordDatabaseParts, { directory }: { directory: string }) {
    this.#reserve = reserve
    this.#log = log
    this.#level = new Level<string, Uint8Array>(directory, { valueEncoding: 'view' })
  }

  /** @throws conflict where another process has the database open; unavailable where the disk refuses */
  static async open(parts: RecordDatabaseParts, options: { directory: string }): Promise<RecordDatabase> {
    const database = new RecordDatabase(parts, options)
    try {
      await database.#open()
    } catch (error) {
      if (!isDiskFull(error)) throw error
      await parts.reserve.release()
      await database.#open()
    }
    return database
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true
    await this.#level.close()
  }

  async has(key: string): Promise<boolean> {
    return await this.#run(async (level) => await level.has(key))
  }

  async hasMany(keys: readonly string[]): Promise<boolean[]> {
    return await this.#run(async (level) => await level.hasMany([...keys]))
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    return await this.#run(async (level) => await level.get(key))
  }

  async keys(range: KeyRange): Promise<string[]> {
    return await this.#run(async (level) => await level.keys(range).all())
  }

  async entries(range: KeyRange): Promise<[string, Uint8Array][]> {
    return await this.#run(async (level) => await level.iterator(range).all())
  }

  /** As {@link entries}, one at a time, for records that are large. A recovery ends it with an error. */
  async *each(range: KeyRange): AsyncGenerator<[string, Uint8Array]> {
    yield* (await this.#opened()).iterator(range)
  }

  /** The record of a key. One that cannot be read is removed. */
  async record<T>(key: string, parse: Parse<T>): Promise<T | undefined> {
    const bytes = await this.get(key)
    return bytes === undefined ? undefined : await this.parse(key, bytes, parse)
  }

  /** The records of a range. Those that cannot be read are removed. */
  async records<T>(range: KeyRange, parse: Parse<T>): Promise<T[]> {
    const records: T[] = []
    for (const [key, bytes] of await this.entries(range)) {
      const record = await this.parse(key, bytes, parse)
      if (record !== undefined) records.push(record)
    }
    return records
  }

  /** Parses a record that has been read; one that cannot be read is removed. */
  async parse<T>(key: string, bytes: Uint8Array, parse: Parse<T>): Promise<T | undefined> {
    try {
      return parse(bytes)
    } catch (error) {
      this.#log.warn('record of the catalog cannot be read; it is removed, and its image is resolved again', {
        error,
        key,
      })
      await this.delete(key)
      return undefined
    }
  }

  /**
   * @param options `sync`: whether it must be on the disk before this resolves
   * @throws unavailable where the disk refuses, as all that write
   */
  async put(key: string, value: Uint8Array, { sync }: { sync: boolean }): Promise<void> {
    // `sync` is an option of classic-level, which `level` is on this platform.
    await this.#write(key, async (level) => await level.put(key, value, { sync } as object))
  }

  /** Puts all or nothing, and it is on the disk when this resolves. */
  async putAll(entries: readonly (readonly [string, Uint8Array])[]): Promise<void> {
    const puts = entries.map(([key, value]) => ({ type: 'put' as const, key, value }))
    await this.#write(entries.at(-1)![0], async (level) => await level.batch(puts, { sync: true } as object))
  }

  async delete(key: string): Promise<void> {
    await this.#write(key, async (level) => await level.del(key))
  }

  /** Removes all records of a range. */
  async clear(range: KeyRange): Promise<void> {
    await this.#write(range.gte, async (level) => await level.clear(range))
  }

  async #write(key: string, write: (level: Database) => Promise<void>): Promise<void> {
    try {
      await this.#run(write).catch(async (error: unknown) => {
        if (!isDiskFull(error)) throw error
        this.#beginRecovery()
        await write(await this.#opened())
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

  /** Runs a task, and again if a recovery cuts it short. A recovery that has failed is tried again. */
  async #run<T>(task: (level: Database) => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      const level = await this.#opened()
      try {
        return await task(level)
      } catch (error) {
        if (this.#isClosed || attempt >= maxAttempts || !isNotOpen(error)) throw error
        if (this.#recovery === undefined && level.status !== 'open') this.#beginRecovery()
      }
    }
  }

  #beginRecovery(): void {
    this.#recovery ??= this.#recover().finally(() => (this.#recovery = undefined))
  }

  async #opened(): Promise<Database> {
    await this.#recovery
    return this.#level
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
