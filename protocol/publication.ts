import { encodeCbor, Fields, parseCbor } from './cbor.ts'
import type { Digest } from './digest.ts'
import { parseRootfsFormat, type RootfsFormat } from './rootfs-manifest.ts'

/** A publication, as a host remembers it: the parts in the registry that it may need later. */
export interface Publication {
  /** Canonical reference of an image in the repository that has the blobs. */
  reference: string
  /** Digest of the image manifest that it is about. */
  manifestDigest: Digest
  format: RootfsFormat
  rootfsDigest: Digest
  /** Digest of the artifact's manifest. */
  artifact: Digest
  /** The published index, zstd. */
  index: PublishedBlob
  /** The metadata segment, zstd. */
  metadata: PublishedBlob
  /** Undefined where no layer has windows. */
  windows: PublishedBlob | undefined
  /** Places of window segments in that blob; `offset` in bytes. */
  windowSegments: readonly { blob: Digest; table: Digest; offset: number }[]
  /** The indexes of the image's layers, zstd, in their order, each once; empty where they are not published. */
  layerIndexes: readonly PublishedBlob[]
}

export interface PublishedBlob {
  digest: Digest
  sizeBytes: number
}

/** The stored form; SPEC.md, "Publication". */
export function encodePublication({ windows, windowSegments, ...publication }: Publication): Uint8Array {
  return encodeCbor({ ...publication, windowRegions: windowSegments, ...(windows === undefined ? {} : { windows }) })
}

/** @throws invalid */
export function parsePublication(bytes: Uint8Array): Publication {
  const what = 'publication'
  const fields = new Fields(parseCbor(bytes, what), what)
  const blob = (value: unknown): PublishedBlob => {
    const entry = new Fields(value, what)
    return { digest: entry.digest('digest'), sizeBytes: entry.unsigned('sizeBytes') }
  }
  return {
    reference: fields.text('reference'),
    manifestDigest: fields.digest('manifestDigest'),
    format: parseRootfsFormat(fields.get('format')),
    rootfsDigest: fields.digest('rootfsDigest'),
    artifact: fields.digest('artifact'),
    index: blob(fields.get('index')),
    metadata: blob(fields.get('metadata')),
    windows: fields.get('windows') === undefined ? undefined : blob(fields.get('windows')),
    windowSegments: fields.list('windowRegions').map((value) => {
      const segment = new Fields(value, what)
      return { blob: segment.digest('blob'), table: segment.digest('table'), offset: segment.unsigned('offset') }
    }),
    layerIndexes: fields.list('layerIndexes').map(blob),
  }
}
