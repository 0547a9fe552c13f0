import { parseLayerIndex, type LayerIndex } from '../../protocol/layer-index.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Publication, PublishedBlob } from '../../protocol/publication.ts'
import { parsePublishedIndex, type PublishedIndex } from '../../protocol/published-index.ts'
import type { ChunkTable } from '../../protocol/chunk-table.ts'
import type { Digest } from '../../protocol/digest.ts'
import type { ImageSource } from '../registry/image-source.ts'
import { formatReference, type Reference } from '../registry/reference.ts'
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

/** Has each blob read once for the region. */
export interface BlobSharing {
  /** @param read reads the blob from the registry @throws what `read` throws; the signal's reason */
  get: (
    blob: PublishedBlob,
    read: (signal: AbortSignal) => Promise<Uint8Array>,
    options: { signal: AbortSignal },
  ) => Promise<Uint8Array>
}

export interface PublicationReaderParts {
  registry: Pick<ImageSource, 'referrers' | 'manifest' | 'openLayer'>
  /** Without it, blobs are read from the registry. */
  blobs?: BlobSharing
}

/** Reads publications from registries. Their parts fit together; the caller judges whether to believe the maker. */
export class PublicationReader {
  readonly #registry: Pick<ImageSource, 'referrers' | 'manifest' | 'openLayer'>
  readonly #blobs: BlobSharing | undefined

  constructor({ registry, blobs }: PublicationReaderParts) {
    this.#registry = registry
    this.#blobs = blobs
  }

  /** The publications of an image manifest. @throws timeout; the codes of the transport */
  async list(reference: Reference, manifestDigest: Digest, { signal }: { signal: AbortSignal }): Promise<Candidate[]> {
    const timeout = AbortSignal.timeout(listTimeoutMs)
    try {
      const referrers = await this.#registry.referrers(reference, manifestDigest, artifactType, {
        signal: AbortSignal.any([signal, timeout]),
      })
      return referrers.map(parseCandidate).filter((candidate) => candidate !== undefined)
    } catch (cause) {
      if (signal.aborted || !timeout.aborted) throw cause
      throw new P2pfsError(
        'timeout',
        `the registry did not list the publications of the image within ${listTimeoutMs / 1000} s`,
        { cause },
      )
    }
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
    const blobs = parseArtifact(await this.#registry.manifest(reference, candidate.descriptor, { signal }))
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

  async #readBlob(reference: Reference, blob: PublishedBlob, signal: AbortSignal): Promise<Uint8Array> {
    const read = async (signal: AbortSignal): Promise<Uint8Array> => {
      const pieces: Uint8Array[] = []
      for await (const piece of this.#registry.openLayer(reference, descriptorOf(blob), { signal })) pieces.push(piece)
      return Buffer.concat(pieces)
    }
    return (await this.#blobs?.get(blob, read, { signal })) ?? (await read(signal))
  }
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
