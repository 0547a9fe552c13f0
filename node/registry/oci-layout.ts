import { createReadStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { digestHex, digestOf, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { checkSize, maxManifestBytes, parseManifest, type Descriptor, type IndexEntry } from './image-manifest.ts'
import type { ImageStorage, ReadBlobOptions } from './image-storage.ts'
import type { LayoutReference, Reference } from './reference.ts'
import { verifiedBlob } from './verified-blob.ts'

/** Large pieces: each costs a turn of the loop, bytes. */
const readBytes = 256 * 1024

/** Images in a directory: OCI image spec, "Image Layout". */
export class OciLayout implements ImageStorage {
  async manifest(reference: Reference): Promise<{ digest: Digest; json: string }> {
    const { directory, tag } = asLayout(reference)
    const index = parseManifest(await read(join(directory, 'index.json'), directory), `index of ${directory}`)
    if (index.kind !== 'index') throw new P2pfsError('invalid', `${directory}/index.json is not an index`)
    const entry = choose(index.entries, tag, directory)
    return { digest: entry.digest, json: await this.manifestByDigest(reference, entry) }
  }

  async manifestByDigest(reference: Reference, descriptor: Descriptor): Promise<string> {
    checkSize(descriptor, maxManifestBytes, 'manifest')
    const { directory } = asLayout(reference)
    const json = await read(blobFile(directory, descriptor.digest), directory)
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
  const there = entries.map(({ name }) => name ?? 'unnamed').join(', ')
  throw new P2pfsError('missing', `${directory} has no image ${tag ?? 'latest'}; it has ${there || 'none'}`)
}

function asLayout(reference: Reference): LayoutReference {
  if (reference.kind !== 'layout') throw new TypeError('not a layout reference')
  return reference
}

const blobFile = (directory: string, digest: Digest): string => join(directory, 'blobs', 'sha256', digestHex(digest))

async function read(path: string, directory: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw unreadable(path, directory, error)
  }
}

function unreadable(path: string, directory: string, cause: unknown): P2pfsError {
  const absent = (cause as NodeJS.ErrnoException).code === 'ENOENT'
  return new P2pfsError(absent ? 'missing' : 'unavailable', absent ? `no OCI layout, or not a whole one, in ${directory}: ${path} is not there` : `cannot read ${path}: ${(cause as Error).message}`, { cause })
}
