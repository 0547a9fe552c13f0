import { randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { digestHex, type Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { hashBytes } from '../base/hashing.ts'
import { maxManifestBytes, nameAnnotation, parseManifest, type Descriptor, type IndexEntry } from './image-manifest.ts'
import type { ByteRange } from './image-storage.ts'
import { asObject, isObject, parseJsonObject } from './json.ts'
import { rawEntries } from './referrers.ts'

/** Pieces that a blob is read in: each costs a turn of the event loop (bytes). */
const pieceBytes = 256 * 1024

/** The files of an OCI layout: blobs by digest, and `index.json` (OCI image spec, "Image Layout"). */
export class LayoutFiles {
  readonly #directory: string

  constructor({ directory }: { directory: string }) {
    this.#directory = directory
  }

  /** A blob as text. @throws invalid for a blob longer than `maxBytes`; missing; unavailable */
  async text(digest: Digest, maxBytes: number): Promise<string> {
    return await this.#read(this.#blob(digest), maxBytes)
  }

  async *stream(digest: Digest, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const path = this.#blob(digest)
    try {
      await checkFile(path, Infinity)
      for await (const piece of createReadStream(path, { highWaterMark: pieceBytes, signal })) yield piece as Buffer
    } catch (error) {
      throw signal.aborted ? (signal.reason as Error) : this.#unreadable(path, error)
    }
  }

  /** @throws invalid for a blob that ends before the range does */
  async range({ digest, sizeBytes }: Descriptor, { start, end }: ByteRange): Promise<Uint8Array> {
    const path = this.#blob(digest)
    const bytes = Buffer.allocUnsafeSlow(end - start)
    try {
      await checkFile(path, Infinity)
      await using file = await open(path)
      for (let length = 0; length < bytes.length;) {
        const { bytesRead } = await file.read(bytes, length, bytes.length - length, start + length)
        if (bytesRead === 0) throw new P2pfsError('invalid', `${path} ends before its ${sizeBytes} bytes`, { digest })
        length += bytesRead
      }
    } catch (error) {
      throw this.#unreadable(path, error)
    }
    return bytes
  }

  /** Stores a blob, unless it is there. */
  async putBlob(digest: Digest, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    const path = this.#blob(digest)
    if (!(await isStored(path, digest, bytes.length))) await this.#write(path, bytes, signal)
  }

  /** The entries of `index.json`. @throws missing where there is no layout */
  async index(): Promise<IndexEntry[]> {
    return (await this.#readIndex()).entries
  }

  /**
   * Puts an entry into `index.json`. It replaces the one that had the tag; without a tag it is added unless the
   * manifest is listed.
   */
  async putEntry(
    { mediaType, digest, sizeBytes }: Descriptor,
    tag: string | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { json, entries } = await this.#readIndex()
    if (tag === undefined && entries.some((entry) => entry.digest === digest)) return
    const what = `index of ${this.#directory}`
    const kept = rawEntries(json, what).filter((entry) => {
      const { annotations } = asObject(entry, what)
      return tag === undefined || !isObject(annotations) || annotations[nameAnnotation] !== tag
    })
    const added = {
      mediaType,
      digest,
      size: sizeBytes,
      ...(tag === undefined ? {} : { annotations: { [nameAnnotation]: tag } }),
    }
    const index = { ...parseJsonObject(json, what), manifests: [...kept, added] }
    await this.#write(this.#indexFile, Buffer.from(JSON.stringify(index)), signal)
  }

  get #indexFile(): string {
    return join(this.#directory, 'index.json')
  }

  #blob(digest: Digest): string {
    return join(this.#directory, 'blobs', 'sha256', digestHex(digest))
  }

  async #readIndex(): Promise<{ json: string; entries: IndexEntry[] }> {
    const json = await this.#read(this.#indexFile, maxManifestBytes)
    const index = parseManifest(json, `index of ${this.#directory}`)
    if (index.kind !== 'index') throw new P2pfsError('invalid', `${this.#indexFile} is not an index`)
    return { json, entries: index.entries }
  }

  async #read(path: string, maxBytes: number): Promise<string> {
    try {
      await checkFile(path, maxBytes)
      return await readFile(path, 'utf8')
    } catch (error) {
      throw this.#unreadable(path, error)
    }
  }

  /** Writes the file whole or not at all. */
  async #write(path: string, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    const partial = join(this.#directory, `.p2pfs-${randomUUID()}`)
    try {
      await mkdir(dirname(path), { recursive: true })
      await writeFile(partial, bytes, { signal, flush: true })
      await rename(partial, path)
    } catch (cause) {
      await rm(partial, { force: true })
      if (signal.aborted) throw signal.reason
      throw new P2pfsError('unavailable', `cannot write ${path}: ${(cause as Error).message}`, { cause })
    }
  }

  #unreadable(path: string, cause: unknown): P2pfsError {
    if (isP2pfsError(cause)) return cause
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') {
      return new P2pfsError(
        'missing',
        `no OCI layout, or not a whole one, in ${this.#directory}: ${path} is not there`,
        { cause },
      )
    }
    return new P2pfsError('unavailable', `cannot read ${path}: ${(cause as Error).message}`, { cause })
  }
}

/**
 * Checks a file before it is read: a pipe would have no end, and a file that is too long must not come into memory.
 * @throws invalid; as stat does
 */
async function checkFile(path: string, maxBytes: number): Promise<void> {
  const found = await stat(path)
  if (!found.isFile()) throw new P2pfsError('invalid', `${path} is not a file`)
  if (found.size > maxBytes) throw new P2pfsError('invalid', `${path} has ${found.size} bytes; ${maxBytes} is the most`)
}

async function isStored(path: string, digest: Digest, sizeBytes: number): Promise<boolean> {
  const found = await stat(path).catch(() => undefined)
  return found?.isFile() === true && found.size === sizeBytes && (await hashBytes(await readFile(path))) === digest
}
