import { parseLayerIndex, type LayerIndex } from '../../protocol/layer-index.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Publication, PublishedBlob } from '../../protocol/publication.ts'
import { parsePublishedIndex, type PublishedIndex } from '../../protocol/published-index.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import { digestOf, type Digest } from '../../protocol/digest.ts'
import type { ContentSharing } from '../model/content-sharing.ts'
import type { ImageSource, Referrer } from '../registry/image-source.ts'
import { formatReference, type Reference, type RegistryReference } from '../registry/reference.ts'
import { formatReferrers, parseReferrers } from '../registry/referrers.ts'
import { manifestBytes } from '../registry/shared-storage.ts'
import {
  artifactType,
  descriptorOf,
  parseArtifact,
  parseCandidate,
  type ArtifactBlobs,
  type Candidate,
} from './artifact.ts'
import { decompress, expandChunks } from './compressed.ts'

/** How long a registry may take to list publications (ms): no mount waits longer to learn that there is none. */
const listTimeoutMs = 5_000
/** Sizes after decompression (bytes). */
const maxIndexBytes = 256 * 1024 * 1024
const maxLayerIndexBytes = 512 * 1024 * 1024

/** A publication whose index has been read; its metadata segment is on its way. */
export interface ReadPublication {
  publication: Publication
  index: PublishedIndex
  /** The chunks of the metadata segment, verified. @throws invalid; the codes of the transport */
  metadata: () => AsyncIterable<{ digest: Digest; bytes: Uint8Array }>
}

export interface PublicationReaderParts {
  registry: Pick<ImageSource, 'referrers' | 'manifest' | 'openLayer'>
  /** Without it, each host reads publications from the registry. */
  sharing?: ContentSharing
}

/** Reads publications from registries. Their parts fit together; the caller judges whether to believe the maker. */
export class PublicationReader {
  readonly #registry: Pick<ImageSource, 'referrers' | 'manifest' | 'openLayer'>
  readonly #sharing: ContentSharing | undefined

  constructor({ registry, sharing }: PublicationReaderParts) {
    this.#registry = registry
    this.#sharing = sharing
  }

  /** The publications of an image manifest, as the registry lists them. @throws timeout; the codes of the transport */
  async list(reference: Reference, manifestDigest: Digest, { signal }: { signal: AbortSignal }): Promise<Candidate[]> {
    const ask = async (signal: AbortSignal): Promise<Candidate[]> =>
      candidatesOf(await this.#registry.referrers(reference, manifestDigest, artifactType, { signal }))
    return await inTime(ask, signal)
  }

  /**
   * The same in lists, of which the first may be what another member says that the registry said, or what it said some seconds
   * ago: it may lack publications, and name some that are in no registry. The last is the registry's, and nobody need come to it who finds what he looks for.
   * @throws as {@link list}
   */
  async *lists(
    reference: Reference,
    manifestDigest: Digest,
    { signal }: { signal: AbortSignal },
  ): AsyncGenerator<Candidate[]> {
    const sharing = this.#sharing
    if (reference.kind === 'registry' && sharing !== undefined) {
      const read = async (signal: AbortSignal): Promise<Uint8Array> =>
        Buffer.from(
          formatReferrers(await this.#registry.referrers(reference, manifestDigest, artifactType, { signal })),
        )
      const { bytes, isFirsthand } = await inTime(
        async (signal) => await sharing.ask(listKey(reference, manifestDigest), read, { signal }),
        signal,
      )
      yield candidatesOf(parseList(bytes, manifestDigest))
      if (isFirsthand) return
    }
    yield await this.list(reference, manifestDigest, { signal })
  }

  /**
   * Reads the index of a publication, and requests its metadata at the same time.
   * @throws invalid if a blob is not what its descriptor or the index says; the codes of the transport
   */
  async read(
    reference: Reference,
    manifestDigest: Digest,
    candidate: Candidate,
    { signal, withMetadata }: { signal: AbortSignal; withMetadata: boolean },
  ): Promise<ReadPublication> {
    const blobs = parseArtifact(await this.#artifact(reference, candidate, signal))
    const failed = new AbortController()
    const metadata = withMetadata
      ? this.#readBlob(reference, blobs.metadata, AbortSignal.any([signal, failed.signal]))
      : undefined
    // A failure is reported to the reader of `metadata()`.
    metadata?.catch(() => undefined)
    try {
      const index = parsePublishedIndex(
        await decompress(await this.#readBlob(reference, blobs.index, signal), maxIndexBytes, 'published index'),
      )
      const publication = publicationOf(reference, manifestDigest, candidate, blobs, index)
      const table = index.manifest.metadata
      return {
        publication,
        index,
        metadata: () => this.#expand(metadata ?? this.#readBlob(reference, blobs.metadata, signal), table),
      }
    } catch (error) {
      failed.abort(error)
      throw error
    }
  }

  /** The chunks of the metadata segment of a known publication. @throws as {@link read} */
  async *metadata(
    reference: Reference,
    { metadata }: Publication,
    table: ChunkTable,
    { signal }: { signal: AbortSignal },
  ): AsyncGenerator<{ digest: Digest; bytes: Uint8Array }> {
    yield* this.#expand(this.#readBlob(reference, metadata, signal), table)
  }

  /** @throws as {@link read} */
  async layerIndex(
    reference: Reference,
    blob: PublishedBlob,
    { signal }: { signal: AbortSignal },
  ): Promise<LayerIndex> {
    return parseLayerIndex(
      await decompress(await this.#readBlob(reference, blob, signal), maxLayerIndexBytes, 'published layer index'),
    )
  }

  async *#expand(
    compressed: Promise<Uint8Array>,
    table: ChunkTable,
  ): AsyncGenerator<{ digest: Digest; bytes: Uint8Array }> {
    yield* expandChunks(await compressed, table, 'published metadata')
  }

  async #artifact(reference: Reference, { descriptor }: Candidate, signal: AbortSignal): Promise<string> {
    const read = async (signal: AbortSignal): Promise<Uint8Array> =>
      manifestBytes(await this.#registry.manifest(reference, descriptor, { signal }), descriptor)
    return Buffer.from(await this.#shared(descriptor, read, signal)).toString()
  }

  async #readBlob(reference: Reference, blob: PublishedBlob, signal: AbortSignal): Promise<Uint8Array> {
    const read = async (signal: AbortSignal): Promise<Uint8Array> => {
      const pieces: Uint8Array[] = []
      for await (const piece of this.#registry.openLayer(reference, descriptorOf(blob), { signal })) pieces.push(piece)
      return Buffer.concat(pieces)
    }
    return await this.#shared(blob, read, signal)
  }

  async #shared(
    content: PublishedBlob,
    read: (signal: AbortSignal) => Promise<Uint8Array>,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    return (await this.#sharing?.get(content, read, { signal })) ?? (await read(signal))
  }
}

/** @throws timeout where the task takes too long; the signal's reason; as the task */
async function inTime<T>(task: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
  const timeout = AbortSignal.timeout(listTimeoutMs)
  try {
    return await task(AbortSignal.any([signal, timeout]))
  } catch (cause) {
    if (signal.aborted || !timeout.aborted) throw cause
    throw new P2pfsError(
      'timeout',
      `the registry did not list the publications of the image within ${listTimeoutMs / 1000} s`,
      { cause },
    )
  }
}

/** The key on which hosts that list the same publications agree. */
function listKey({ kind, registry, repository }: RegistryReference, manifestDigest: Digest): Digest {
  const image = formatReference({ kind, registry, repository, tag: undefined, digest: manifestDigest })
  return digestOf(Buffer.from(`p2pfs publications\0${image}`))
}

/** Parses a list of publications; one that is malformed counts as empty. */
function parseList(bytes: Uint8Array, manifestDigest: Digest): Referrer[] {
  try {
    return parseReferrers(Buffer.from(bytes).toString(), `publications of ${manifestDigest}`)
  } catch (error) {
    if (isP2pfsError(error, 'invalid', 'unsupported')) return []
    throw error
  }
}

function candidatesOf(referrers: readonly Referrer[]): Candidate[] {
  return referrers.map(parseCandidate).filter((candidate) => candidate !== undefined)
}

/** @throws invalid if the parts do not fit together */
function publicationOf(
  reference: Reference,
  manifestDigest: Digest,
  { descriptor, format, rootfsDigest }: Candidate,
  blobs: ArtifactBlobs,
  index: PublishedIndex,
): Publication {
  if (index.rootfsDigest !== rootfsDigest || index.manifest.format !== format)
    throw new P2pfsError('invalid', 'publication: it has another rootfs manifest than it names', {
      rootfs: rootfsDigest,
    })
  const windowSegments = index.maps.flatMap(({ map: { digest: blob, windows }, windowsOffset }) => {
    if (windowsOffset === undefined || blobs.windows === undefined) return []
    if (windowsOffset + windows.sizeBytes > blobs.windows.sizeBytes)
      throw new P2pfsError('invalid', 'publication: windows leave their blob', { blob })
    return [{ blob, table: windows.id, offset: windowsOffset }]
  })
  return {
    reference: formatReference(reference),
    manifestDigest,
    format,
    rootfsDigest,
    artifact: descriptor.digest,
    ...blobs,
    windowSegments,
  }
}
