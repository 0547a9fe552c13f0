import { randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { digestHex, digestOf, parseDigest, type Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import {
  checkSize,
  listSome,
  maxManifestBytes,
  mediaTypes,
  parseManifest,
  type Descriptor,
  type IndexEntry,
} from './image-manifest.ts'
import {
  checkRange,
  type ByteRange,
  type ImageStorage,
  type ReadBlobOptions,
  type ReadRangeOptions,
  type Referrer,
} from './image-storage.ts'
import { KeyedQueue } from '../base/keyed-queue.ts'
import type { LayoutReference, Reference } from './reference.ts'
import { isReferrersTag, ofType, parsePushed, parseReferrers, referrersTag, withReferrer } from './referrers.ts'
import { verifiedBlob } from './verified-blob.ts'

/** Large pieces: each costs a turn of the loop, bytes. */
const readBytes = 256 * 1024

/** Images in a directory: OCI image spec, "Image Layout". */
export class OciLayout implements ImageStorage {
  /** Of index.json, by directory. */
  readonly #changes = new KeyedQueue()

  async manifest(reference: Reference): Promise<{ digest: Digest; json: string }> {
    const { directory, tag } = asLayout(reference)
    const entry = choose(await readIndex(directory), tag, directory)
    return { digest: entry.digest, json: await this.manifestByDigest(reference, entry) }
  }

  async manifestByDigest(reference: Reference, descriptor: Descriptor): Promise<string> {
    checkSize(descriptor, maxManifestBytes, 'manifest')
    const { directory } = asLayout(reference)
    const json = await read(blobFile(directory, descriptor.digest), directory, descriptor.sizeBytes)
    if (digestOf(Buffer.from(json)) !== descriptor.digest)
      throw new P2pfsError('invalid', `manifest ${descriptor.digest} in ${directory} does not match its digest`)
    return json
  }

  blob(
    reference: Reference,
    descriptor: Descriptor,
    { signal, verify = true }: ReadBlobOptions,
  ): AsyncIterable<Uint8Array> {
    const { directory } = asLayout(reference)
    return verifiedBlob(stream(blobFile(directory, descriptor.digest), directory, signal), descriptor, verify)
  }

  async range(
    reference: Reference,
    descriptor: Descriptor,
    range: ByteRange,
    { signal }: ReadRangeOptions,
  ): Promise<Uint8Array> {
    checkRange(range, descriptor)
    signal.throwIfAborted()
    const { directory } = asLayout(reference)
    const path = blobFile(directory, descriptor.digest)
    const bytes = Buffer.allocUnsafeSlow(range.end - range.start)
    try {
      await checkFile(path, Infinity)
      await using file = await open(path)
      for (let length = 0; length < bytes.length;) {
        const { bytesRead } = await file.read(bytes, length, bytes.length - length, range.start + length)
        if (bytesRead === 0)
          throw new P2pfsError('invalid', `${path} ends before its ${descriptor.sizeBytes} bytes`, {
            digest: descriptor.digest,
          })
        length += bytesRead
      }
    } catch (error) {
      throw unreadable(path, directory, error)
    }
    return bytes
  }

  async pushBlob(
    reference: Reference,
    bytes: Uint8Array,
    { signal }: { signal: AbortSignal },
  ): Promise<{ digest: Digest; sizeBytes: number }> {
    const { directory } = asLayout(reference)
    const digest = digestOf(bytes)
    const path = blobFile(directory, digest)
    // Nothing is written where there is no layout.
    await readIndex(directory)
    if (!(await isStored(path, digest, bytes.length))) await write(path, bytes, directory, signal)
    return { digest, sizeBytes: bytes.length }
  }

  async pushManifest(
    reference: Reference,
    name: string,
    json: string,
    mediaType: string,
    { signal }: { signal: AbortSignal },
  ): Promise<{ digest: Digest; sizeBytes: number }> {
    const { directory } = asLayout(reference)
    const { subject, artifactType, annotations } = parsePushed(json)
    const stored = await this.pushBlob(reference, Buffer.from(json), { signal })
    const isTag = !name.startsWith('sha256:')
    if (!isTag && name !== stored.digest) throw new TypeError('a manifest is pushed by its own digest')
    await this.#changes.run(directory, async () => {
      if (subject !== undefined) {
        const tag = referrersTag(subject)
        const known = await this.#referrersIndex(reference, subject)
        const index = withReferrer(
          known,
          { ...stored, mediaType, artifactType, annotations },
          `index of referrers of ${subject}`,
        )
        if (index !== undefined) {
          const pushed = await this.pushBlob(reference, Buffer.from(index), { signal })
          await putEntry(directory, { mediaType: mediaTypes.ociIndex, ...pushed }, tag, signal)
        }
      }
      // What refers to something is found by that.
      if (isTag || subject === undefined)
        await putEntry(directory, { mediaType, ...stored }, isTag ? name : undefined, signal)
    })
    return stored
  }

  async referrers(
    reference: Reference,
    digest: Digest,
    artifactType: string | undefined,
    { signal }: { signal: AbortSignal },
  ): Promise<Referrer[]> {
    signal.throwIfAborted()
    const json = await this.#referrersIndex(reference, digest)
    return json === undefined ? [] : ofType(parseReferrers(json, `index of referrers of ${digest}`), artifactType)
  }

  async #referrersIndex(reference: Reference, subject: Digest): Promise<string | undefined> {
    const { directory } = asLayout(reference)
    const entry = (await readIndex(directory)).find(({ name }) => name === referrersTag(subject))
    return entry === undefined ? undefined : await this.manifestByDigest(reference, entry)
  }
}

async function* stream(path: string, directory: string, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    await checkFile(path, Infinity)
    for await (const piece of createReadStream(path, { highWaterMark: readBytes, signal })) yield piece as Buffer
  } catch (error) {
    throw signal.aborted ? (signal.reason as Error) : unreadable(path, directory, error)
  }
}

function choose(all: readonly IndexEntry[], tag: string | undefined, directory: string): IndexEntry {
  // Referrers are no images.
  const entries = all.filter(({ name }) => tag === name || !isReferrersTag(name))
  const found = entries.find(({ name }) => name === (tag ?? 'latest'))
  if (found !== undefined) return found
  const [only] = entries
  if (tag === undefined && entries.length === 1 && only !== undefined) return only
  throw new P2pfsError(
    'missing',
    `${directory} has no image ${tag ?? 'latest'}; it has ${listSome(entries.map(({ name }) => name ?? 'unnamed')) || 'none'}`,
  )
}

function asLayout(reference: Reference): LayoutReference {
  if (reference.kind !== 'layout') throw new TypeError('not a layout reference')
  return reference
}

const blobFile = (directory: string, digest: Digest): string => join(directory, 'blobs', 'sha256', digestHex(digest))

/** Before it is read: a pipe would have no end, and what is too long is not to come into memory. @throws invalid; as stat does */
async function checkFile(path: string, maxBytes: number): Promise<void> {
  const found = await stat(path)
  if (!found.isFile()) throw new P2pfsError('invalid', `${path} is not a file`)
  if (found.size > maxBytes) throw new P2pfsError('invalid', `${path} has ${found.size} bytes; ${maxBytes} is the most`)
}

async function read(path: string, directory: string, maxBytes: number): Promise<string> {
  try {
    await checkFile(path, maxBytes)
    return await readFile(path, 'utf8')
  } catch (error) {
    throw unreadable(path, directory, error)
  }
}

function unreadable(path: string, directory: string, cause: unknown): P2pfsError {
  if (isP2pfsError(cause)) return cause
  const absent = (cause as NodeJS.ErrnoException).code === 'ENOENT'
  return new P2pfsError(
    absent ? 'missing' : 'unavailable',
    absent
      ? `no OCI layout, or not a whole one, in ${directory}: ${path} is not there`
      : `cannot read ${path}: ${(cause as Error).message}`,
    { cause },
  )
}

async function readIndex(directory: string): Promise<IndexEntry[]> {
  const index = parseManifest(
    await read(join(directory, 'index.json'), directory, maxManifestBytes),
    `index of ${directory}`,
  )
  if (index.kind !== 'index') throw new P2pfsError('invalid', `${directory}/index.json is not an index`)
  return index.entries
}

const nameKey = 'org.opencontainers.image.ref.name'

interface RawEntry {
  digest: string
  annotations?: Record<string, string>
}

/** Puts an entry into the layout's index, for that which had the tag; without a tag, unless the manifest is there. */
async function putEntry(
  directory: string,
  { mediaType, digest, sizeBytes }: Descriptor,
  tag: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const path = join(directory, 'index.json')
  await readIndex(directory)
  const index = JSON.parse(await read(path, directory, maxManifestBytes)) as { manifests: RawEntry[] }
  const known = tag === undefined && index.manifests.some((entry) => parseDigest(entry.digest) === digest)
  if (known) return
  const others = index.manifests.filter(({ annotations }) => tag === undefined || annotations?.[nameKey] !== tag)
  const added = {
    mediaType,
    digest,
    size: sizeBytes,
    ...(tag === undefined ? {} : { annotations: { [nameKey]: tag } }),
  }
  await write(path, Buffer.from(JSON.stringify({ ...index, manifests: [...others, added] })), directory, signal)
}

async function isStored(path: string, digest: Digest, sizeBytes: number): Promise<boolean> {
  const found = await stat(path).catch(() => undefined)
  return found?.isFile() === true && found.size === sizeBytes && digestOf(await readFile(path)) === digest
}

/** Whole or not at all. */
async function write(path: string, bytes: Uint8Array, directory: string, signal: AbortSignal): Promise<void> {
  const partial = join(directory, `.p2pfs-${randomUUID()}`)
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
