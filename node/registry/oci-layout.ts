import { digestOf, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { hashBytes } from '../base/hashing.ts'
import { KeyedQueue } from '../base/keyed-queue.ts'
import {
  checkSize,
  listSome,
  maxManifestBytes,
  mediaTypes,
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
  type StoredManifest,
} from './image-storage.ts'
import { LayoutFiles } from './layout-files.ts'
import type { LayoutReference, Reference } from './reference.ts'
import { isReferrersTag, ofType, parsePushed, parseReferrers, referrersTag, withReferrer } from './referrers.ts'
import { verifiedBlob } from './verified-blob.ts'

/** Images in a directory: OCI image spec, "Image Layout". */
export class OciLayout implements ImageStorage {
  /** Changes of index.json, by directory. */
  readonly #changes = new KeyedQueue()

  async manifest(reference: Reference, { signal }: { signal: AbortSignal }): Promise<StoredManifest> {
    const layout = asLayout(reference)
    const entry = choose(await filesOf(reference).index(), layout)
    return { digest: entry.digest, json: await this.manifestByDigest(reference, entry, { signal }) }
  }

  async digest(reference: Reference, { signal }: { signal: AbortSignal }): Promise<Digest> {
    signal.throwIfAborted()
    return choose(await filesOf(reference).index(), asLayout(reference)).digest
  }

  async manifestByDigest(
    reference: Reference,
    descriptor: Descriptor,
    { signal }: { signal: AbortSignal },
  ): Promise<string> {
    signal.throwIfAborted()
    checkSize(descriptor, maxManifestBytes, 'manifest')
    const json = await filesOf(reference).text(descriptor.digest, descriptor.sizeBytes)
    if (digestOf(Buffer.from(json)) !== descriptor.digest) {
      throw new P2pfsError(
        'invalid',
        `manifest ${descriptor.digest} in ${asLayout(reference).directory} does not match its digest`,
      )
    }
    return json
  }

  blob(
    reference: Reference,
    descriptor: Descriptor,
    { signal, verify = true }: ReadBlobOptions,
  ): AsyncIterable<Uint8Array> {
    return verifiedBlob(filesOf(reference).stream(descriptor.digest, signal), descriptor, verify)
  }

  async range(
    reference: Reference,
    descriptor: Descriptor,
    range: ByteRange,
    { signal }: ReadRangeOptions,
  ): Promise<Uint8Array> {
    checkRange(range, descriptor)
    signal.throwIfAborted()
    return await filesOf(reference).range(descriptor, range)
  }

  async pushBlob(
    reference: Reference,
    bytes: Uint8Array,
    { signal }: { signal: AbortSignal },
  ): Promise<{ digest: Digest; sizeBytes: number }> {
    signal.throwIfAborted()
    const files = filesOf(reference)
    // Throws where there is no layout: nothing is written there.
    await files.index()
    const digest = await hashBytes(bytes)
    await files.putBlob(digest, bytes, signal)
    return { digest, sizeBytes: bytes.length }
  }

  async pushManifest(
    reference: Reference,
    name: string,
    json: string,
    mediaType: string,
    { signal }: { signal: AbortSignal },
  ): Promise<{ digest: Digest; sizeBytes: number }> {
    const { subject, artifactType, annotations } = parsePushed(json)
    const stored = await this.pushBlob(reference, Buffer.from(json), { signal })
    const isTag = !name.startsWith('sha256:')
    if (!isTag && name !== stored.digest) throw new TypeError('a manifest is pushed by its own digest')
    await this.#changes.run(asLayout(reference).directory, async () => {
      if (subject !== undefined)
        await this.#addReferrer(reference, subject, { ...stored, mediaType, artifactType, annotations }, signal)
      // A manifest with a subject needs no entry: it is found by its subject.
      if (isTag || subject === undefined)
        await filesOf(reference).putEntry({ mediaType, ...stored }, isTag ? name : undefined, signal)
    })
    return stored
  }

  async referrers(
    reference: Reference,
    digest: Digest,
    artifactType: string | undefined,
    { signal }: { signal: AbortSignal },
  ): Promise<Referrer[]> {
    const json = await this.#referrersIndex(reference, digest, signal)
    return json === undefined ? [] : ofType(parseReferrers(json, `index of referrers of ${digest}`), artifactType)
  }

  async #addReferrer(reference: Reference, subject: Digest, added: Referrer, signal: AbortSignal): Promise<void> {
    const stored = await this.#referrersIndex(reference, subject, signal)
    const json = withReferrer(stored, added, `index of referrers of ${subject}`)
    if (json === undefined) return
    const index = await this.pushBlob(reference, Buffer.from(json), { signal })
    await filesOf(reference).putEntry({ mediaType: mediaTypes.ociIndex, ...index }, referrersTag(subject), signal)
  }

  async #referrersIndex(reference: Reference, subject: Digest, signal: AbortSignal): Promise<string | undefined> {
    signal.throwIfAborted()
    const entry = (await filesOf(reference).index()).find(({ name }) => name === referrersTag(subject))
    return entry === undefined ? undefined : await this.manifestByDigest(reference, entry, { signal })
  }
}

/** The entry of a tag; without a tag, the layout's only image, or the one called latest. @throws missing */
function choose(all: readonly IndexEntry[], { tag, directory }: LayoutReference): IndexEntry {
  // Indexes of referrers are not images.
  const entries = all.filter(({ name }) => tag === name || !isReferrersTag(name))
  const found = entries.find(({ name }) => name === (tag ?? 'latest'))
  if (found !== undefined) return found
  const [only] = entries
  if (tag === undefined && entries.length === 1 && only !== undefined) return only
  const names = listSome(entries.map(({ name }) => name ?? 'unnamed')) || 'none'
  throw new P2pfsError('missing', `${directory} has no image ${tag ?? 'latest'}; it has ${names}`)
}

const filesOf = (reference: Reference): LayoutFiles => new LayoutFiles(asLayout(reference))

function asLayout(reference: Reference): LayoutReference {
  if (reference.kind !== 'layout') throw new TypeError('not a layout reference')
  return reference
}
