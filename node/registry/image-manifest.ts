import { digestOf, parseDigest, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { asObject, isObject, parseJsonObject, textOrEmpty, type JsonObject } from './json.ts'

/** A manifest's description of a blob: OCI image spec, "Content Descriptors". */
export interface Descriptor {
  digest: Digest
  mediaType: string
  sizeBytes: number
}

/** A layer, and the digest of its uncompressed tar. */
export interface LayerDescriptor extends Descriptor {
  diffId: Digest
}

export type Manifest =
  | { kind: 'index'; entries: IndexEntry[] }
  | { kind: 'image'; config: Descriptor; layers: Descriptor[]; isArtifact: boolean }

export interface IndexEntry extends Descriptor {
  /** `os/architecture` or `os/architecture/variant`; undefined where the index does not say. */
  platform: string | undefined
  /** False for attestations, artifacts, and images that need a feature of the host. */
  isImage: boolean
  /** The annotation org.opencontainers.image.ref.name: the tag, in the index of an OCI layout. */
  name: string | undefined
}

/** Distribution's own limit for manifests that it accepts (bytes). */
export const maxManifestBytes = 4 * 1024 * 1024
export const maxConfigBytes = 8 * 1024 * 1024
/** Four times what overlayfs can mount: Linux takes 128 with a page of options. */
const maxLayers = 512
/** Entries of an index: architectures and attestations of one image, or the images of a layout. */
const maxIndexEntries = 4096
/** More than any registry takes (bytes). */
const maxBlobBytes = 16 * 1024 ** 4
/** Type and subtype together: RFC 6838, section 4.2 (characters). */
const maxMediaTypeLength = 255
/** Names that an error lists. */
const maxListed = 20

export const nameAnnotation = 'org.opencontainers.image.ref.name'

export const mediaTypes = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
} as const

const manifestTypes: ReadonlySet<string> = new Set(Object.values(mediaTypes))
const ociConfigType = 'application/vnd.oci.image.config.v1+json'
const configTypes: ReadonlySet<string> = new Set([ociConfigType, 'application/vnd.docker.container.image.v1+json'])

/** @throws invalid for what is not a manifest; unsupported for schema 1 */
export function parseManifest(json: string, what: string): Manifest {
  const { schemaVersion, manifests, layers, config, artifactType } = parseJsonObject(json, what)
  if (schemaVersion === 1)
    throw new P2pfsError(
      'unsupported',
      `${what} is of Docker's schema 1, which registries gave up in 2017; push the image again`,
    )
  if (Array.isArray(manifests)) {
    checkCount(manifests, maxIndexEntries, 'entries', what)
    return { kind: 'index', entries: manifests.map((entry: unknown) => parseIndexEntry(entry, what)) }
  }
  if (!Array.isArray(layers) || config === undefined)
    throw new P2pfsError('invalid', `${what} is neither an image manifest nor an index`)
  checkCount(layers, maxLayers, 'layers', what)
  const configDescriptor = parseDescriptor(config, what)
  const { mediaType } = configDescriptor
  return {
    kind: 'image',
    config: configDescriptor,
    layers: layers.map((layer: unknown) => parseDescriptor(layer, what)),
    isArtifact: textOrEmpty(artifactType) !== '' || (mediaType !== '' && !configTypes.has(mediaType)),
  }
}

/** The manifest of an image with this config, JSON. */
export function encodeImageManifest(config: string, layers: readonly Descriptor[]): string {
  const encode = ({ mediaType, digest, sizeBytes }: Descriptor): object => ({ mediaType, digest, size: sizeBytes })
  const bytes = Buffer.from(config)
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: encode({ mediaType: ociConfigType, digest: digestOf(bytes), sizeBytes: bytes.length }),
    layers: layers.map(encode),
  })
}

/** The digest of the image config that an image manifest names. @throws invalid where it is not an image manifest */
export function configDigestOf(manifestJson: string): Digest {
  const manifest = parseManifest(manifestJson, 'image manifest')
  if (manifest.kind !== 'image') throw new P2pfsError('invalid', 'an image manifest was expected, not an index')
  return manifest.config.digest
}

/**
 * The layers of an image, lowest first.
 * @throws invalid where manifest and config do not fit together; unsupported for layers that are not in registries
 */
export function layersOf(manifestJson: string, configJson: string): LayerDescriptor[] {
  const manifest = parseManifest(manifestJson, 'image manifest')
  if (manifest.kind !== 'image') throw new P2pfsError('invalid', 'an image manifest was expected, not an index')
  const { rootfs } = parseJsonObject(configJson, 'image config')
  const { diff_ids: diffIds } = asObject(rootfs, 'rootfs of the image config')
  if (!Array.isArray(diffIds) || diffIds.length !== manifest.layers.length) {
    const named = Array.isArray(diffIds) ? diffIds.length : 'none'
    throw new P2pfsError(
      'invalid',
      `the image has ${manifest.layers.length} layers, its config names ${named}: not a container image?`,
    )
  }
  return manifest.layers.map((layer, i) => {
    if (/foreign|nondistributable/.test(layer.mediaType)) {
      throw new P2pfsError(
        'unsupported',
        `layer ${layer.digest} is not in the registry (${layer.mediaType}); such images cannot be imported`,
      )
    }
    return { ...layer, diffId: parseDigest(diffIds[i]) }
  })
}

function parseDescriptor(value: unknown, what: string): Descriptor {
  const { digest, mediaType, size } = asObject(value, `descriptor in ${what}`)
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw new P2pfsError('invalid', `descriptor in ${what} has no size`)
  if (size > maxBlobBytes)
    throw new P2pfsError('invalid', `descriptor in ${what} is of ${size} bytes; ${maxBlobBytes} is the most`)
  const type = typeof mediaType === 'string' ? mediaType : ''
  if (type.length > maxMediaTypeLength)
    throw new P2pfsError(
      'invalid',
      `media type in ${what} has ${type.length} characters; ${maxMediaTypeLength} is the most`,
    )
  return { digest: parseDigest(digest), mediaType: type, sizeBytes: size }
}

function parseIndexEntry(value: unknown, what: string): IndexEntry {
  const entry = asObject(value, `entry of ${what}`)
  const { platform, annotations } = entry
  const { os, architecture, variant } = asObject(platform ?? {}, `platform in ${what}`)
  const parts = [os, architecture, variant].filter((part) => typeof part === 'string' && part !== '')
  const name = asObject(annotations ?? {}, `annotations in ${what}`)[nameAnnotation]
  const descriptor = parseDescriptor(value, what)
  const platformName = parts.length === 0 ? undefined : parts.join('/')
  return {
    ...descriptor,
    platform: platformName,
    isImage: isImageEntry(entry, { mediaType: descriptor.mediaType, platform: platformName }),
    name: typeof name === 'string' ? name : undefined,
  }
}

/** Whether an entry of an index may be an image that a host can mount, by what the index says of it. */
function isImageEntry(
  entry: JsonObject,
  { mediaType, platform }: { mediaType: string; platform: string | undefined },
): boolean {
  const { artifactType, annotations } = entry
  const features = isObject(entry['platform']) ? entry['platform']['os.features'] : undefined
  return (
    // Attestations stand in an index as images for no platform.
    platform !== 'unknown/unknown' &&
    textOrEmpty(isObject(annotations) ? annotations['vnd.docker.reference.type'] : undefined) === '' &&
    // SOCI indexes and other artifacts.
    textOrEmpty(artifactType) === '' &&
    (mediaType === '' || manifestTypes.has(mediaType)) &&
    // An image in another form beside the plain one, as Nydus has it, is for hosts with that feature.
    !(Array.isArray(features) && features.length > 0)
  )
}

function checkCount(list: readonly unknown[], max: number, things: string, what: string): void {
  if (list.length > max) throw new P2pfsError('invalid', `${what} has ${list.length} ${things}; ${max} is the most`)
}

/** The first of the names, for an error. */
export function listSome(names: readonly string[]): string {
  const first = names.slice(0, maxListed).join(', ')
  return names.length > maxListed ? `${first} and ${names.length - maxListed} more` : first
}

/** @throws invalid */
export function checkSize({ sizeBytes, digest }: Descriptor, maxBytes: number, what: string): void {
  if (sizeBytes > maxBytes)
    throw new P2pfsError('invalid', `${what} ${digest} has ${sizeBytes} bytes; ${maxBytes} is the most`)
}
