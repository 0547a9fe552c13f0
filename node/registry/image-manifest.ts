import { parseDigest, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'

/** What a manifest says of a blob: OCI image spec, "Content Descriptors". */
export interface Descriptor {
  digest: Digest
  mediaType: string
  sizeBytes: number
}

/** A layer, with what its tar hashes to. */
export interface LayerDescriptor extends Descriptor {
  diffId: Digest
}

export type Manifest =
  { kind: 'index'; entries: IndexEntry[] } | { kind: 'image'; config: Descriptor; layers: Descriptor[] }

export interface IndexEntry extends Descriptor {
  /** `os/architecture` or `os/architecture/variant`; undefined where the index does not say. */
  platform: string | undefined
  /** org.opencontainers.image.ref.name, in a layout's index. */
  name: string | undefined
}

/** No manifest is larger: distribution's own limit for what it accepts, bytes. */
export const maxManifestBytes = 4 * 1024 * 1024
export const maxConfigBytes = 8 * 1024 * 1024
/** Four times what overlayfs can mount: Linux takes 128 with a page of options. */
const maxLayers = 512
/** Entries of an index: architectures and attestations of one image, or the images of a layout. */
const maxIndexEntries = 4096
/** No blob is larger: it is more than any registry takes, bytes. */
const maxBlobBytes = 16 * 1024 ** 4
/** Objects and arrays within one another; specified are fewer than ten. */
const maxJsonDepth = 64
/** RFC 6838, section 4.2: of type and subtype, characters. */
const maxMediaTypeLength = 255
/** Names that an error lists. */
const maxListed = 20

export const mediaTypes = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
} as const

/** @throws invalid for what is no manifest; unsupported for schema 1 */
export function parseManifest(json: string, what: string): Manifest {
  const record = asRecord(parseJson(json, what), what)
  if (record['schemaVersion'] === 1)
    throw new P2pfsError(
      'unsupported',
      `${what} is of Docker's schema 1, which registries gave up in 2017; push the image again`,
    )
  if (Array.isArray(record['manifests'])) {
    checkCount(record['manifests'], maxIndexEntries, 'entries', what)
    return { kind: 'index', entries: record['manifests'].map((entry: unknown) => parseIndexEntry(entry, what)) }
  }
  if (!Array.isArray(record['layers']) || record['config'] === undefined)
    throw new P2pfsError('invalid', `${what} is neither an image manifest nor an index`)
  checkCount(record['layers'], maxLayers, 'layers', what)
  return {
    kind: 'image',
    config: parseDescriptor(record['config'], what),
    layers: record['layers'].map((layer: unknown) => parseDescriptor(layer, what)),
  }
}

/**
 * The layers of an image, lowest first.
 * @throws invalid where manifest and config do not fit together; unsupported for layers that are not in registries
 */
export function layersOf(manifestJson: string, configJson: string): LayerDescriptor[] {
  const manifest = parseManifest(manifestJson, 'image manifest')
  if (manifest.kind !== 'image') throw new P2pfsError('invalid', 'an image manifest was expected, not an index')
  const rootfs = asRecord(
    asRecord(parseJson(configJson, 'image config'), 'image config')['rootfs'],
    'rootfs of the image config',
  )
  const diffIds = rootfs['diff_ids']
  if (!Array.isArray(diffIds) || diffIds.length !== manifest.layers.length) {
    throw new P2pfsError(
      'invalid',
      `the image has ${manifest.layers.length} layers, its config names ${Array.isArray(diffIds) ? diffIds.length : 'none'}: not a container image?`,
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
  const record = asRecord(value, `descriptor in ${what}`)
  const size = record['size']
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw new P2pfsError('invalid', `descriptor in ${what} has no size`)
  if (size > maxBlobBytes)
    throw new P2pfsError('invalid', `descriptor in ${what} is of ${size} bytes; ${maxBlobBytes} is the most`)
  const mediaType = typeof record['mediaType'] === 'string' ? record['mediaType'] : ''
  if (mediaType.length > maxMediaTypeLength)
    throw new P2pfsError(
      'invalid',
      `media type in ${what} has ${mediaType.length} characters; ${maxMediaTypeLength} is the most`,
    )
  return { digest: parseDigest(record['digest']), mediaType, sizeBytes: size }
}

function parseIndexEntry(value: unknown, what: string): IndexEntry {
  const record = asRecord(value, `entry of ${what}`)
  const platform = record['platform'] === undefined ? undefined : asRecord(record['platform'], `platform in ${what}`)
  const parts =
    platform === undefined
      ? []
      : [platform['os'], platform['architecture'], platform['variant']].filter(
          (part) => typeof part === 'string' && part !== '',
        )
  const annotations =
    record['annotations'] === undefined ? {} : asRecord(record['annotations'], `annotations in ${what}`)
  const name = annotations['org.opencontainers.image.ref.name']
  return {
    ...parseDescriptor(value, what),
    platform: parts.length === 0 ? undefined : parts.join('/'),
    name: typeof name === 'string' ? name : undefined,
  }
}

function checkCount(list: readonly unknown[], max: number, things: string, what: string): void {
  if (list.length > max) throw new P2pfsError('invalid', `${what} has ${list.length} ${things}; ${max} is the most`)
}

/** The first of them, for an error. */
export function listSome(names: readonly string[]): string {
  const first = names.slice(0, maxListed).join(', ')
  return names.length > maxListed ? `${first} and ${names.length - maxListed} more` : first
}

/** Parsing takes any depth, but writing it out again, or walking it, would overflow the stack. */
function checkDepth(json: string, what: string): void {
  let depth = 0
  for (let i = 0, quoted = false; i < json.length; i++) {
    const character = json[i]
    if (character === '"') quoted = !quoted
    else if (quoted) i += character === '\\' ? 1 : 0
    else if (character === '{' || character === '[') {
      if (++depth > maxJsonDepth)
        throw new P2pfsError('invalid', `${what} has values more than ${maxJsonDepth} levels deep`)
    } else if (character === '}' || character === ']') depth--
  }
}

function parseJson(json: string, what: string): unknown {
  checkDepth(json, what)
  try {
    return JSON.parse(json)
  } catch (cause) {
    throw new P2pfsError('invalid', `${what} is not JSON`, { cause })
  }
}

function asRecord(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new P2pfsError('invalid', `${what} is not an object`)
  return value as Record<string, unknown>
}

/**
 * The entry of an index for a platform: the same one, or with a variant where only one side names it.
 * @throws missing listing what there is
 */
export function choosePlatform(entries: readonly IndexEntry[], platform: string, what: string): IndexEntry {
  // Attestations and signatures stand in an index too, as images for no platform.
  const images = entries.filter((entry) => entry.platform !== 'unknown/unknown')
  const base = (full: string): string => full.split('/').slice(0, 2).join('/')
  const found =
    images.find((entry) => entry.platform === platform) ??
    images.find(
      (entry) =>
        entry.platform !== undefined &&
        base(entry.platform) === base(platform) &&
        (platform === base(platform) || entry.platform === base(platform)),
    )
  if (found !== undefined) return found
  const [only] = images
  if (images.length === 1 && only !== undefined && only.platform === undefined) return only
  const there = listSome(images.map((entry) => entry.platform ?? 'unnamed'))
  throw new P2pfsError(
    'missing',
    `${what} has no image for ${platform}; ${there === '' ? 'it has none at all' : `--platform takes ${there}`}`,
  )
}

/** @throws invalid */
export function checkSize({ sizeBytes, digest }: Descriptor, maxBytes: number, what: string): void {
  if (sizeBytes > maxBytes)
    throw new P2pfsError('invalid', `${what} ${digest} has ${sizeBytes} bytes; ${maxBytes} is the most`)
}
