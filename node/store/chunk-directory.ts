import { randomBytes } from 'node:crypto'
import { statSync, type Stats } from 'node:fs'
import { mkdir, open, readdir, rename, rm, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { chunkFile } from '../../protocol/chunk-file.ts'
import { parseDigest, type Digest } from '../../protocol/digest.ts'
import { temporaryDirectoryOf } from '../base/chunk-file-writer.ts'
import { hashBytes } from '../base/hashing.ts'
import type { Log } from '../base/log.ts'

/**
 * The files of chunks, below one directory: each named by its digest, and written under a temporary name first, so a
 * name stands for whole content as long as the host runs. All methods throw what the disk throws.
 */
export class ChunkDirectory {
  readonly path: string
  /** The names of this process's temporary files begin with it. */
  readonly prefix = randomBytes(6).toString('hex')
  readonly #log: Log
  readonly #temporary: string
  #written = 0

  constructor({ log }: { log: Log }, { path }: { path: string }) {
    this.#log = log
    this.path = path
    this.#temporary = temporaryDirectoryOf(path)
  }

  /** Makes the directories, and removes what an earlier process has left unfinished. */
  async prepare(): Promise<void> {
    await rm(this.#temporary, { recursive: true, force: true })
    await mkdir(this.#temporary, { recursive: true, mode: 0o700 })
  }

  /** Lists the chunks whose files are here, some thousands at a time; makes the directories that are not. */
  async *list(): AsyncGenerator<Digest[]> {
    for (let i = 0; i < 256; i++) {
      const prefix = i.toString(16).padStart(2, '0')
      const directory = join(this.path, prefix)
      await mkdir(directory, { recursive: true, mode: 0o700 })
      const digests: Digest[] = []
      for (const name of await readdir(directory)) {
        if (/^[0-9a-f]{64}$/.test(name) && name.startsWith(prefix)) digests.push(parseDigest(`sha256:${name}`))
        else this.#log.warn('file in the chunk directory is not a chunk', { file: join(directory, name) })
      }
      yield digests
    }
  }

  fileOf(digest: Digest): string {
    return chunkFile(this.path, digest)
  }

  /**
   * Writes a chunk's file, in the place of one that is there. Nothing is left behind where that fails.
   * @param epoch becomes the time of the file (s): see `WriteEpochs`
   */
  async write(digest: Digest, bytes: Uint8Array, epoch: number): Promise<void> {
    const temporary = join(this.#temporary, `${this.prefix}-${this.#written++}`)
    try {
      const file = await open(temporary, 'wx', 0o600)
      try {
        await file.writeFile(bytes)
        await file.utimes(epoch, epoch)
      } finally {
        await file.close()
      }
      await rename(temporary, this.fileOf(digest))
    } catch (error) {
      await unlink(temporary).catch(() => undefined)
      throw error
    }
  }

  /**
   * Reads a file as it is, right or not.
   * @returns with the time of the last change of its inode (ms); undefined where there is no such file
   */
  async read(digest: Digest): Promise<{ bytes: Uint8Array; changedAtMs: number } | undefined> {
    return await orGone(async () => {
      await using file = await open(this.fileOf(digest), 'r')
      const { ctimeMs, size } = await file.stat()
      const bytes = await file.readFile()
      // A file that is discarded meanwhile gets shorter.
      return bytes.length === size ? { bytes, changedAtMs: ctimeMs } : undefined
    })
  }

  /**
   * Reads a chunk, and gives its file an epoch if its bytes are right.
   * @returns the bytes; undefined where they are not right, or there is no such file
   */
  async readAndDate(digest: Digest, epochOf: () => number): Promise<Uint8Array | undefined> {
    return await orGone(async () => {
      await using file = await open(this.fileOf(digest), 'r')
      const bytes = await file.readFile()
      if ((await hashBytes(bytes)) !== digest) return undefined
      const epoch = epochOf()
      // Only the file that was read: one that was put in its place meanwhile has an epoch of its own.
      await file.utimes(epoch, epoch)
      return bytes
    })
  }

  /** The length of a file (bytes); undefined where there is none that can be looked at. */
  async lengthOf(digest: Digest): Promise<number | undefined> {
    return await stat(this.fileOf(digest)).then(
      ({ size }) => size,
      () => undefined,
    )
  }

  /** Looks at a file. It blocks, some microseconds. Undefined where there is no such file. */
  statNow(digest: Digest): Stats | undefined {
    return statSync(this.fileOf(digest), { throwIfNoEntry: false })
  }
}

async function orGone<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
