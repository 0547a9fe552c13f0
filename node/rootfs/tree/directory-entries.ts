import { randomInt } from 'node:crypto'
import type { ByteString } from '../../../protocol/layer-entry.ts'
import type { BytePool } from './byte-pool.ts'
import { Column } from '../column.ts'

/** In place of the inode of an entry that was removed. It keeps its place for the next entry of its name. */
const removed = 0xffffffff
const minBuckets = 1024
/** On average, before there are more buckets. */
const entriesPerBucket = 2

/**
 * The names in the directories of a tree, and the inodes that they lead to. Like inodes, they are rows of numbers: some
 * 30 bytes each, besides the name.
 */
export class DirectoryEntries {
  readonly #directories = new Column(Uint32Array)
  /** Places of the names. */
  readonly #names = new Column(Uint32Array)
  readonly #inodes = new Column(Uint32Array)
  /** The next entry of the same bucket, and of the same directory, plus 1. */
  readonly #nextInBucket = new Column(Uint32Array)
  readonly #nextInDirectory = new Column(Uint32Array)
  /** The first entry of each directory, by its inode, plus 1. */
  readonly #firstInDirectory = new Column(Uint32Array)
  /** The first entry of each bucket, plus 1. */
  #buckets = new Uint32Array(minBuckets)
  /** Random, so that nobody can make names that fall into one bucket. */
  readonly #seed = randomInt(2 ** 31)
  readonly #factor = randomInt(2 ** 30) * 2 + 1
  readonly #pool: BytePool

  constructor(pool: BytePool) {
    this.#pool = pool
  }

  /** @returns the entry; undefined where the directory has none of this name */
  find(directory: number, name: ByteString): number | undefined {
    const entry = this.#search(directory, name)
    return entry === undefined || this.#inodes.get(entry) === removed ? undefined : entry
  }

  /** Sets the inode of a name. @returns the entry */
  set(directory: number, name: ByteString, inode: number): number {
    const found = this.#search(directory, name)
    if (found !== undefined) {
      this.#inodes.set(found, inode)
      return found
    }
    if (this.#names.length === this.#buckets.length * entriesPerBucket) this.#grow()
    const bucket = this.#bucketOf(directory, name)
    const entry = this.#names.push(this.#pool.add(name))
    this.#directories.push(directory)
    this.#inodes.push(inode)
    this.#nextInBucket.push(this.#buckets[bucket]!)
    this.#buckets[bucket] = entry + 1
    while (this.#firstInDirectory.length <= directory) this.#firstInDirectory.push(0)
    this.#nextInDirectory.push(this.#firstInDirectory.get(directory))
    this.#firstInDirectory.set(directory, entry + 1)
    return entry
  }

  remove(entry: number): void {
    this.#inodes.set(entry, removed)
  }

  inodeOf(entry: number): number {
    return this.#inodes.get(entry)
  }

  nameOf(entry: number): ByteString {
    return this.#pool.stringAt(this.#names.get(entry))
  }

  /** The entries of a directory, after {@link sort} in bytewise order of their names. They may be removed meanwhile. */
  *of(directory: number): Generator<number> {
    if (directory >= this.#firstInDirectory.length) return
    for (let next = this.#firstInDirectory.get(directory); next !== 0; next = this.#nextInDirectory.get(next - 1))
      if (this.#inodes.get(next - 1) !== removed) yield next - 1
  }

  /** Sorts the entries of a directory by the bytes of their names. */
  sort(directory: number): Uint32Array {
    const sorted = Uint32Array.from(this.of(directory)).sort((a, b) =>
      this.#pool.compare(this.#names.get(a), this.#names.get(b)),
    )
    for (let i = sorted.length - 1, next = 0; i >= 0; next = sorted[i--]! + 1)
      this.#nextInDirectory.set(sorted[i]!, next)
    if (directory < this.#firstInDirectory.length)
      this.#firstInDirectory.set(directory, sorted.length === 0 ? 0 : sorted[0]! + 1)
    return sorted
  }

  #search(directory: number, name: ByteString): number | undefined {
    for (
      let next = this.#buckets[this.#bucketOf(directory, name)]!;
      next !== 0;
      next = this.#nextInBucket.get(next - 1)
    )
      if (this.#directories.get(next - 1) === directory && this.#pool.equals(this.#names.get(next - 1), name))
        return next - 1
    return undefined
  }

  #bucketOf(directory: number, name: ByteString): number {
    let hash = Math.imul(this.#seed ^ directory, this.#factor)
    for (let i = 0; i < name.length; i++) {
      hash = Math.imul(hash ^ name.charCodeAt(i), this.#factor)
      hash ^= hash >>> 15
    }
    return (hash >>> 0) & (this.#buckets.length - 1)
  }

  #grow(): void {
    this.#buckets = new Uint32Array(this.#buckets.length * 2)
    for (let entry = 0; entry < this.#names.length; entry++) {
      const bucket = this.#bucketOf(this.#directories.get(entry), this.nameOf(entry))
      this.#nextInBucket.set(entry, this.#buckets[bucket]!)
      this.#buckets[bucket] = entry + 1
    }
  }
}
