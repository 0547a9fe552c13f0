import type { Log } from '../base/log.ts'
import type { CatalogDatabase } from './catalog-database.ts'
import type { KeyRange } from './keys.ts'

type Parse<T> = (bytes: Uint8Array) => T

/** The records of the catalog by their keys. Methods that write throw unavailable where the disk refuses. */
export class CatalogRecords {
  readonly #database: CatalogDatabase
  readonly #log: Log

  constructor({ database, log }: { database: CatalogDatabase; log: Log }) {
    this.#database = database
    this.#log = log
  }

  async has(key: string): Promise<boolean> {
    return await this.#database.read(async (level) => await level.has(key))
  }

  async hasMany(keys: readonly string[]): Promise<boolean[]> {
    return await this.#database.read(async (level) => await level.hasMany([...keys]))
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    return await this.#database.read(async (level) => await level.get(key))
  }

  async keys(range: KeyRange): Promise<string[]> {
    return await this.#database.read(async (level) => await level.keys(range).all())
  }

  async entries(range: KeyRange): Promise<[string, Uint8Array][]> {
    return await this.#database.read(async (level) => await level.iterator(range).all())
  }

  /** As {@link entries}, one at a time, for records that are large. */
  async *each(range: KeyRange): AsyncGenerator<[string, Uint8Array]> {
    for (const key of await this.keys(range)) {
      const bytes = await this.get(key)
      if (bytes !== undefined) yield [key, bytes]
    }
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

  /** @param options `sync`: whether it must be on the disk before this resolves */
  async put(key: string, value: Uint8Array, { sync }: { sync: boolean }): Promise<void> {
    // `sync` is an option of classic-level, which `level` is on this platform.
    await this.#database.write(key, async (level) => await level.put(key, value, { sync } as object))
  }

  /** Puts all or nothing, and it is on the disk when this resolves. */
  async putAll(entries: readonly (readonly [string, Uint8Array])[]): Promise<void> {
    const puts = entries.map(([key, value]) => ({ type: 'put' as const, key, value }))
    await this.#database.write(entries.at(-1)![0], async (level) => await level.batch(puts, { sync: true } as object))
  }

  async delete(key: string): Promise<void> {
    await this.#database.write(key, async (level) => await level.del(key))
  }

  /** Removes all records of a range. */
  async clear(range: KeyRange): Promise<void> {
    await this.#database.write(range.gte, async (level) => await level.clear(range))
  }
}
