import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { digestHex, digestOf, type Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { checkSize, listSome, maxManifestBytes, parseManifest, type Descriptor, type IndexEntry } from './image-manifest.ts'
import type { ImageStorage, ReadBlobOptions } from './image-storage.ts'
import type { LayoutReference, Reference } from './reference.ts'
import { verifiedBlob } from './verified-blob.ts'

/** Large pieces: each costs a turn of the loop, bytes. */
const readBytes = 256 * 1024

/** Images in a directory: OCI image spec, "Image Layout". */
export class OciLayout implements ImageStorage {
  async manifest(reference: Reference): Promise<{ digest: Digest; json: string }> {
    const { directory, tag } = asLayout(reference)
    const index = parseManifest(await read(join(directory, 'index.json'), directory, maxManifestBytes), `index of ${directory}`)
    if (index.kind !== 'index') throw new P2pfsError('invalid', `${directory}/index.json is not an index`)
    const entry = choose(index.entries, tag, directory)
    return { digest: entry.digest, json: await this.manifestByDigest(reference, entry) }
  }

  async manifestByDigest(reference: Reference, descriptor: Descriptor): Promise<string> {
    checkSize(descriptor, maxManifestBytes, 'manifest')
    const { directory } = asLayout(reference)
    const json = await read(blobFile(directory, descriptor.digest), directory, descriptor.sizeBytes)
    if (digestOf(Buffer.from(json)) !== descriptor.digest) throw new P2pfsError('invalid', `manifest ${descriptor.digest} in ${directory} does not match its digest`)
    return json
  }

  blob(reference: Reference, descriptor: Descriptor, { signal, verify = true }: ReadBlobOptions): AsyncIterable<Uint8Array> {
    const { directory } = asLayout(reference)
    return verifiedBlob(stream(blobFile(directory, descriptor.digest), directory, signal), descriptor, verify)
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

function choose(entries: readonly IndexEntry[], tag: string | undefined, directory: string): IndexEntry {
  const found = entries.find(({ name }) => name === (tag ?? 'latest'))
  if (found !== undefined) return found
  const [only] = entries
  if (tag === undefined && entries.length === 1 && only !== undefined) return only
  throw new P2pfsError('missing', `${directory} has no image ${tag ?? 'latest'}; it has ${listSome(entries.map(({ name }) => name ?? 'unnamed')) || 'none'}`)
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
  return new P2pfsError(absent ? 'missing' : 'unavailable', absent ? `no OCI layout, or not a whole one, in ${directory}: ${path} is not there` : `cannot read ${path}: ${(cause as Error).message}`, { cause })
}
