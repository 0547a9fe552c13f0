import { parseAttestation, type Attestation } from '../../protocol/attestation.ts'
import { parseDigest, digestOf, type Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { formatVersion } from '../../protocol/layer-index.ts'
import type { PublishedBlob } from '../../protocol/publication.ts'
import { parseRootfsFormat, type RootfsFormat } from '../../protocol/rootfs-manifest.ts'
import { checkSize, mediaTypes, parseManifest, type Descriptor } from '../registry/image-manifest.ts'
import type { Referrer } from '../registry/image-storage.ts'

/** A publication is an OCI artifact in the registry that refers to the image manifest. SPEC.md, "Publication". */
export const artifactType = `application/vnd.p2pfs.index.v${formatVersion}`

const blobTypes = {
  index: `${artifactType}.index+zstd`,
  metadata: `${artifactType}.metadata+zstd`,
  windows: `${artifactType}.windows`,
  layer: `${artifactType}.layer+zstd`,
} as const

/** Annotations of the artifact, by which a reader chooses among referrers without a request for each. */
const annotationKeys = {
  format: 'org.p2pfs.format',
  rootfs: 'org.p2pfs.rootfs',
  key: 'org.p2pfs.key',
  signature: 'org.p2pfs.signature',
  profile: 'org.p2pfs.profile',
} as const

/** The empty JSON object: OCI image spec, "Guidance for an Empty Descriptor". */
export const emptyConfig = Buffer.from('{}')
const emptyConfigDescriptor = {
  mediaType: 'application/vnd.oci.empty.v1+json',
  digest: digestOf(emptyConfig),
  size: emptyConfig.length,
}

/**
 * A reader holds each blob in memory, compressed (bytes). These sizes allow rootfs of terabytes and millions of files.
 */
export const maxIndexBlobBytes = 64 * 1024 * 1024
export const maxMetadataBlobBytes = 256 * 1024 * 1024
export const maxLayerIndexBlobBytes = 64 * 1024 * 1024
/** The artifact's manifest (bytes): its annotations and descriptors take a few hundred bytes each. */
const maxArtifactBytes = 1024 * 1024

/** The annotations of a publication. */
export interface PublicationLabels {
  format: RootfsFormat
  rootfsDigest: Digest
  attestation: Attestation
  /** SHA-256 of the boot profile in the publication; undefined if it has none. */
  profile: Digest | undefined
}

/** A publication among the referrers of an image manifest. */
export interface Candidate extends PublicationLabels {
  descriptor: Descriptor
}

/** The blobs of a publication. */
export interface ArtifactBlobs {
  index: PublishedBlob
  metadata: PublishedBlob
  windows: PublishedBlob | undefined
  /** One for each distinct layer of the image, in order; or none at all. */
  layerIndexes: readonly PublishedBlob[]
}

/**
 * The artifact's manifest, JSON: the same for the same content.
 * @param image the image manifest that the artifact refers to, JSON as stored
 */
export function encodeArtifact(
  { format, rootfsDigest, attestation, profile }: PublicationLabels,
  { index, metadata, windows, layerIndexes }: ArtifactBlobs,
  image: string,
): string {
  const blob = (mediaType: string, { digest, sizeBytes }: PublishedBlob): object => ({
    mediaType,
    digest,
    size: sizeBytes,
  })
  const { mediaType = mediaTypes.ociManifest } = JSON.parse(image) as { mediaType?: string }
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    artifactType,
    config: emptyConfigDescriptor,
    layers: [
      blob(blobTypes.index, index),
      blob(blobTypes.metadata, metadata),
      ...(windows === undefined ? [] : [blob(blobTypes.windows, windows)]),
      ...layerIndexes.map((layer) => blob(blobTypes.layer, layer)),
    ],
    subject: { mediaType, digest: digestOf(Buffer.from(image)), size: Buffer.byteLength(image) },
    annotations: {
      [annotationKeys.format]: format,
      [annotationKeys.rootfs]: rootfsDigest,
      [annotationKeys.key]: attestation.key,
      [annotationKeys.signature]: Buffer.from(attestation.signature).toString('base64'),
      ...(profile === undefined ? {} : { [annotationKeys.profile]: profile }),
    },
  })
}

/** @returns undefined for a referrer that is not a publication of this format version, or is malformed */
export function parseCandidate({
  annotations,
  artifactType: type,
  digest,
  mediaType,
  sizeBytes,
}: Referrer): Candidate | undefined {
  if (type !== artifactType || sizeBytes > maxArtifactBytes) return undefined
  const profile = annotations[annotationKeys.profile]
  try {
    return {
      descriptor: { digest, mediaType, sizeBytes },
      format: parseRootfsFormat(annotations[annotationKeys.format]),
      rootfsDigest: parseDigest(annotations[annotationKeys.rootfs]),
      attestation: parseAttestation({
        key: annotations[annotationKeys.key],
        signature: Buffer.from(annotations[annotationKeys.signature] ?? '', 'base64'),
      }),
      profile: profile === undefined ? undefined : parseDigest(profile),
    }
  } catch (error) {
    if (isP2pfsError(error, 'invalid')) return undefined
    throw error
  }
}

/** @throws invalid for a manifest that is not that of a publication, or names blobs that are too large */
export function parseArtifact(json: string): ArtifactBlobs {
  const manifest = parseManifest(json, 'publication')
  if (manifest.kind !== 'image') throw new P2pfsError('invalid', 'publication: its manifest is an index')
  const all = (type: string, maxBytes: number): PublishedBlob[] =>
    manifest.layers
      .filter(({ mediaType }) => mediaType === type)
      .map((descriptor) => {
        checkSize(descriptor, maxBytes, `publication: ${type}`)
        return { digest: descriptor.digest, sizeBytes: descriptor.sizeBytes }
      })
  const [index] = all(blobTypes.index, maxIndexBlobBytes)
  const [metadata] = all(blobTypes.metadata, maxMetadataBlobBytes)
  if (index === undefined || metadata === undefined)
    throw new P2pfsError('invalid', 'publication: it has no index, or no metadata')
  return {
    index,
    metadata,
    windows: all(blobTypes.windows, Infinity)[0],
    layerIndexes: all(blobTypes.layer, maxLayerIndexBlobBytes),
  }
}

/** The descriptor with which the registry is asked for a blob. */
export function descriptorOf({ digest, sizeBytes }: PublishedBlob): Descriptor {
  return { digest, sizeBytes, mediaType: 'application/octet-stream' }
}
