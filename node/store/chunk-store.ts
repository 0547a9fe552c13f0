import { randomBytes } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { chunkFile } from '../../protocol/chunk-file.ts'
import { digestOf, parseDigest, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import { Semaphore } from '../base/semaphore.ts'

export interface ChunkStoreParts {
  log: Log
  /** Told of a chunk that was here, and is gone or spoilt: nobody has discarded it. */
  onLost?: (digest: Digest) => void
}

/** Files being written and synced at once: enough for the disk's own queue, few enough to leave threads for reads. */
const writesInFlight = 8

/**
 * The chunks on this host's disk: one file each, named by its digest. The directory is the truth: there is no
 * second record of what is here that a crash could set against it.
 *
 * A chunk is written under a temporary name, synced, then renamed, so that a name always stands for whole content.
 */
export class ChunkStore {
  readonly directory: string
  readonly #log: Log
  readonly #onLost: (digest: Digest) => void
  readonly #temporary: string
  /** What is here; true where this process has found the bytes to be right. */
  readonly #present = new Map<Digest, boolean>()
  readonly #writing = new Map<Digest, Promise<void>>()
  readonly #discarding = new Map<Digest, Promise<void>>()
  readonly #writes = new Semaphore(writesInFlight)
  readonly #temporaryPrefix = randomBytes(6).toString('hex')
  #written = 0

  constructor({ log, onLost = () => undefined }: ChunkStoreParts, { directory }: { directory: string }) {
    this.directory = directory
    this.#temporary = join(directory, 'incoming')
    this.#log = log
    this.#onLost = onLost
  }

  /** Makes the directories, removes what a crash left unfinished, and lists what is here. */
  async open(): Promise<void> {
    await rm(this.#temporary, { recursive: true, force: true })
    await mkdir(this.#temporary, { recursive: true, mode: 0o700 })
    for (let i = 0; i < 256; i++) {
      const prefix = i.toString(16).padStart(2, '0')
      const directory = join(this.directory, prefix)
      await mkdir(directory, { recursive: true, mode: 0o700 })
      for (const name of await readdir(directory)) {
        if (/^[0-9a-f]{64}$/.test(name) && name.startsWith(prefix))
          this.#present.set(parseDigest(`sha256:${name}`), false)
        else this.#log.warn('file in the chunk directory is not a chunk', { file: join(directory, name) })
      }
    }
  }

  get count(): number {
    return this.#present.size
  }

  has(digest: Digest): boolean {
    return this.#present.has(digest)
  }

  /**
   * Keeps `bytes`, which the caller has found to have this digest. Resolves when they would survive a power loss.
   * The buffer must not change until then.
   * @returns whether this call wrote it: false where it was here, or on its way
   * @throws unavailable where the disk refuses (full, read-only, failing); nothing is left behind.
   */
  async put(digest: Digest, bytes: Uint8Array): Promise<boolean> {
    // What somebody has taken the trouble to get may be what the disk has lost.
    if (this.#present.has(digest) && (await this.#isThere(digest, bytes.length))) return false
    const writing = this.#writing.get(digest)
    if (writing !== undefined) {
      await writing
      return false
    }
    const mine = this.#writes.run(() => this.#write(digest, bytes)).finally(() => this.#writing.delete(digest))
    this.#writing.set(digest, mine)
    await mine
    return true
  }

  async #write(digest: Digest, bytes: Uint8Array): Promise<void> {
    // Its name would go with the old file's.
    await this.#discarding.get(digest)
    const temporary = join(this.#temporary, `${this.#temporaryPrefix}-${this.#written++}`)
    try {
      const file = await open(temporary, 'wx', 0o600)
      try {
        await file.writeFile(bytes)
        await file.datasync()
      } finally {
        await file.close()
      }
      await rename(temporary, chunkFile(this.directory, digest))
    } catch (cause) {
      await unlink(temporary).catch(() => undefined)
      throw new P2pfsError('unavailable', `cannot write a chunk below ${this.directory}: ${(cause as Error).message}`, {
        cause,
        digest,
      })
    }
    this.#present.set(digest, true)
  }

  /** The chunk's bytes, or undefined where it is not here (any more). */
  async get(digest: Digest, { signal }: { signal?: AbortSignal } = {}): Promise<Uint8Array | undefined> {
    if (!this.#present.has(digest)) return undefined
    try {
      return await readFile(chunkFile(this.directory, digest), signal === undefined ? {} : { signal })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      this.#lose(digest)
      return undefined
    }
  }

  /**
   * As {@link get}, but hashed the first time that this process sees them: bytes that rotted on the disk are discarded,
   * and never leave this host.
   */
  async getVerified(digest: Digest, { signal }: { signal?: AbortSignal } = {}): Promise<Uint8Array | undefined> {
    const bytes = await this.get(digest, signal === undefined ? {} : { signal })
    if (bytes === undefined || this.#present.get(digest) === true) return bytes
    if ((await sha256(bytes)) === digest) {
      if (this.#present.has(digest)) this.#present.set(digest, true)
      return bytes
    }
    this.#log.error('chunk on disk does not match its digest; discarded, it will be fetched again', { digest })
    this.#onLost(digest)
    await this.discard(digest)
    return undefined
  }

  async #isThere(digest: Digest, lengthBytes: number): Promise<boolean> {
    const size = await stat(chunkFile(this.directory, digest)).then(
      ({ size }) => size,
      () => undefined,
    )
    // Discarded, or found to be gone, in the meantime.
    if (!this.#present.has(digest)) return false
    if (size !== lengthBytes) this.#lose(digest)
    return size === lengthBytes
  }

  #lose(digest: Digest): void {
    this.#log.warn('chunk file is gone', { digest })
    this.#present.delete(digest)
    this.#onLost(digest)
  }

  /** Forgets and removes a chunk. */
  async discard(digest: Digest): Promise<void> {
    this.#present.delete(digest)
    const gone = unlink(chunkFile(this.directory, digest))
      .catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error
      })
      .finally(() => this.#discarding.delete(digest))
    this.#discarding.set(
      digest,
      gone.catch(() => undefined),
    )
    await gone
  }
}

/** Above this size hashing in libuv's thread pool is worth the hand-over, bytes. */
const pooledHashBytes = 64 * 1024

async function sha256(bytes: Uint8Array): Promise<Digest> {
  if (bytes.length < pooledHashBytes) return digestOf(bytes)
  const raw = await crypto.subtle.digest('SHA-256', bytes)
  return parseDigest(`sha256:${Buffer.from(raw).toString('hex')}`)
}
