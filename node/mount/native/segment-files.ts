import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ChunkTable } from '../../../protocol/chunk-table.ts'
import { digestHex, type Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import type { Log } from '../../base/log.ts'
import { blocksOf } from '../../base/room-counter.ts'
import { roomOf } from '../../store/disk-room.ts'
import type { StoreRoom } from '../../store/store-room.ts'
import type { RunTool } from '../placement/run-tool.ts'
import { copySegment, findDamage } from './segment-copy.ts'

/** The share of the filesystem that is left free: chunks, which are the truth, need room first. */
const minFreeShare = 0.15
const temporarySuffix = '.partial'
/** The ending of the name of a file that was found right in another boot of this host, and not yet in this one. */
const uncheckedSuffix = '.unchecked'
/** Tells in which boot all files without that suffix were found right. */
const bootFile = 'boot'

export interface SegmentFilesParts {
  /** A chunk in a segment's file was wrong. */
  suspect: (chunk: Digest) => Promise<void>
  run: RunTool
  log: Log
  room?: typeof roomOf
  /** The room that these files share with the chunks; no limit by default. */
  storeRoom?: Pick<StoreRoom, 'usedBytes' | 'limitBytes' | 'give' | 'counter'>
}

export interface SegmentFilesOptions {
  directory: string
  chunkDirectory: string
  /** The most that all files may take together (bytes). */
  limitBytes: number
  /** The boot of this host; the kernel's own by default. */
  bootId?: string
}

interface SegmentFile {
  sizeBytes: number
  usedAtMs: number
  /** Whether its bytes were found right in this boot. */
  isChecked: boolean
}

/** The segments that must stay when room is made, and whether others may be removed for a new one. */
export interface Keep {
  names: ReadonlySet<string>
  mayRemoveOthers: boolean
  signal: AbortSignal
}

/**
 * Segments in one piece, a file each, so that the kernel can read them: a cache of what the chunk files have, and never the
 * truth. A file gets its name when its bytes are right and on the disk. All images that share a layer share its file.
 */
export class SegmentFiles {
  readonly directory: string
  readonly #parts: SegmentFilesParts
  readonly #chunkDirectory: string
  readonly #limitBytes: number
  readonly #bootId: string | undefined
  readonly #files = new Map<string, SegmentFile>()

  constructor(parts: SegmentFilesParts, { directory, chunkDirectory, limitBytes, bootId }: SegmentFilesOptions) {
    this.#bootId = bootId
    this.#parts = parts
    this.directory = directory
    this.#chunkDirectory = chunkDirectory
    this.#limitBytes = limitBytes
  }

  /**
   * Lists the files, without those that a crash has left unfinished and those of none of these segments. After a boot,
   * every file is checked again before it is used: {@link prepare} does.
   */
  async open(known: ReadonlySet<string>): Promise<void> {
    await mkdir(this.directory, { recursive: true, mode: 0o700 })
    const bootId = this.#bootId ?? (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
    const marker = join(this.directory, bootFile)
    const isSameBoot = (await readFile(marker, 'utf8').catch(() => '')) === bootId
    for (const file of await readdir(this.directory)) {
      if (file === bootFile) continue
      const path = join(this.directory, file)
      const name = file.replace(uncheckedSuffix, '')
      if (!known.has(name)) {
        await rm(path, { recursive: true, force: true })
        continue
      }
      const isChecked = isSameBoot && file === name
      if (!isChecked) await rename(path, `${this.path(name)}${uncheckedSuffix}`)
      const { size, mtimeMs } = await stat(isChecked ? path : `${this.path(name)}${uncheckedSuffix}`)
      this.#files.set(name, { sizeBytes: size, usedAtMs: mtimeMs, isChecked })
      this.#parts.storeRoom?.counter.count(blocksOf(size))
    }
    if (!isSameBoot) await writeFile(marker, bootId)
  }

  get usedBytes(): number {
    return [...this.#files.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  }

  /** Names of all files, those that were used last first. */
  names(): string[] {
    return [...this.#files].toSorted(([, a], [, b]) => b.usedAtMs - a.usedAtMs).map(([name]) => name)
  }

  path(name: string): string {
    return join(this.directory, name)
  }

  /** Whether the segment's file is here, and was found right in this boot. */
  async isReady(table: ChunkTable): Promise<boolean> {
    const name = digestHex(table.id)
    const file = this.#files.get(name)
    if (file?.isChecked !== true) return false
    const found = await stat(this.path(name)).catch(() => undefined)
    return found?.size === table.sizeBytes
  }

  /** Notes that a mount uses the files. */
  async use(names: readonly string[]): Promise<void> {
    const now = new Date()
    for (const name of names) {
      const file = this.#files.get(name)
      if (file !== undefined) file.usedAtMs = now.getTime()
      await utimes(this.path(name), now, now).catch(() => undefined)
    }
  }

  /**
   * Makes the file of a segment all of whose chunks are here, or checks the one that there is.
   * @throws unavailable where there is no room for it, or a chunk was not right after all; the signal's reason
   */
  async prepare(table: ChunkTable, keep: Keep): Promise<void> {
    const name = digestHex(table.id)
    const { signal } = keep
    if (await this.isReady(table)) return
    if (this.#files.has(name)) {
      if ((await this.check(table, { signal })) === undefined) return
      signal.throwIfAborted()
    }
    await this.#makeRoom(table.sizeBytes, keep)
    const { storeRoom } = this.#parts
    if (storeRoom?.counter.take(blocksOf(table.sizeBytes)) === false)
      throw new P2pfsError('unavailable', 'chunks have taken the room for a file for native reads')
    const target = this.path(name)
    const temporary = `${target}${temporarySuffix}`
    await rm(temporary, { force: true })
    try {
      await copySegment(table, { chunkDirectory: this.#chunkDirectory, target: temporary }, { signal })
      const damaged = await findDamage(table, temporary, { signal })
      if (damaged !== undefined) {
        await this.#parts.suspect(damaged)
        throw new P2pfsError('unavailable', 'a chunk was damaged; it will be fetched again')
      }
      await this.#settle(temporary)
      await rename(temporary, target)
    } catch (error) {
      await rm(temporary, { force: true })
      storeRoom?.give(blocksOf(table.sizeBytes))
      throw error
    }
    this.#files.set(name, { sizeBytes: table.sizeBytes, usedAtMs: Date.now(), isChecked: true })
  }

  /**
   * Hashes the file of a segment anew; a damaged one is removed.
   * @param options `bytesPerSecond`: how fast at most
   * @returns undefined where it is right; else a chunk that is not
   */
  async check(
    table: ChunkTable,
    options: { signal: AbortSignal; bytesPerSecond?: number },
  ): Promise<Digest | undefined> {
    const name = digestHex(table.id)
    const file = this.#files.get(name)
    const path = file?.isChecked === false ? `${this.path(name)}${uncheckedSuffix}` : this.path(name)
    const damaged = await findDamage(table, path, options).catch((error: unknown) => {
      options.signal.throwIfAborted()
      this.#parts.log.debug('file of a segment cannot be read', { error, segment: table.id })
      return table.id
    })
    if (damaged === undefined) {
      if (file?.isChecked === false) {
        await rename(path, this.path(name))
        file.isChecked = true
      }
      return undefined
    }
    this.#parts.log.error(
      'file of a segment is damaged and was removed; unmount and mount again the images that are read natively from it',
      {
        segment: table.id,
        chunk: damaged,
      },
    )
    await this.remove(name)
    return damaged
  }

  async remove(name: string): Promise<void> {
    const file = this.#files.get(name)
    this.#files.delete(name)
    for (const suffix of ['', uncheckedSuffix]) await rm(`${this.path(name)}${suffix}`, { force: true })
    if (file !== undefined) this.#parts.storeRoom?.give(blocksOf(file.sizeBytes))
  }

  /** On the disk, and out of the page cache: reads of mounts go past it. */
  async #settle(file: string): Promise<void> {
    const { ok, message } = await this.#parts.run('dd', [
      `of=${file}`,
      'oflag=nocache',
      'conv=notrunc,fdatasync',
      'count=0',
      'status=none',
    ])
    if (!ok) throw new P2pfsError('unavailable', `cannot sync ${file}: ${message}`)
  }

  async #makeRoom(sizeBytes: number, { names, mayRemoveOthers }: Keep): Promise<void> {
    const room = this.#parts.room ?? roomOf
    const isEnough = async (): Promise<boolean> => {
      const { freeBytes, sizeBytes: diskBytes } = await room(this.directory)
      const { usedBytes, limitBytes } = this.#parts.storeRoom ?? { usedBytes: 0, limitBytes: Infinity }
      return (
        this.usedBytes + sizeBytes <= this.#limitBytes &&
        freeBytes - sizeBytes >= minFreeShare * diskBytes &&
        usedBytes + sizeBytes <= (1 - minFreeShare) * limitBytes
      )
    }
    const others = mayRemoveOthers ? this.names().filter((name) => !names.has(name)) : []
    while (!(await isEnough())) {
      const oldest = others.pop()
      if (oldest === undefined)
        throw new P2pfsError(
          'unavailable',
          `no room for a segment of ${sizeBytes} bytes: files for native reads take ${this.usedBytes} of ` +
            `${this.#limitBytes} bytes, and ${minFreeShare * 100} % of the disk, and of what --store-limit allows, stay free`,
        )
      await this.remove(oldest)
    }
  }
}
