import { encodeCbor, Fields, parseCbor } from './cbor.ts'
import { blockBytes, ChunkTable } from './chunk-table.ts'
import { digestOf, parseDigest, type Digest } from './digest.ts'
import { P2pfsError } from './errors.ts'
import { formatVersion } from './layer-index.ts'

/** Filesystems that a rootfs can be written as; `raw` is whatever somebody else has written. */
export const rootfsFormats = ['ext4', 'erofs', 'raw'] as const
export type RootfsFormat = (typeof rootfsFormats)[number]
/** Those that p2pfs writes. */
export type FilesystemFormat = Exclude<RootfsFormat, 'raw'>

/** @throws invalid; the message lists the formats */
export function parseRootfsFormat(value: unknown): RootfsFormat {
  const format = rootfsFormats.find((candidate) => candidate === value)
  if (format === undefined)
    throw new P2pfsError(
      'invalid',
      `no such rootfs format: ${String(value).slice(0, 20)}; there are ${rootfsFormats.join(', ')}`,
    )
  return format
}

/**
 * One virtual block device: the metadata segment, then the data segment of each layer, back to back. It depends on the
 * layers, the image config, the format and the format version alone.
 */
export interface RootfsManifest {
  format: RootfsFormat
  /** The filesystem's own blocks; empty where it is raw. */
  metadata: ChunkTable
  /** Lowest layer first. */
  layers: readonly { diffId: Digest; chunks: ChunkTable }[]
  /** The OCI image config, JSON as the registry has it. */
  config: string
  /** Raw images only: the size (bytes), less than a block shorter than the segments together. */
  sizeBytes?: number
}

/** The stored and wire form; SPEC.md, "Rootfs manifest". Its SHA-256 is the rootfs digest. */
export function encodeRootfsManifest(manifest: RootfsManifest): Uint8Array {
  const table = (chunks: ChunkTable) => ({ lengths: chunks.encodeLengths(), digests: chunks.digests })
  return encodeCbor({
    version: formatVersion,
    format: manifest.format,
    metadata: table(manifest.metadata),
    layers: manifest.layers.map(({ diffId, chunks }) => ({ diffId, ...table(chunks) })),
    config: manifest.config,
    ...(manifest.sizeBytes === undefined ? {} : { sizeBytes: manifest.sizeBytes }),
  })
}

/** @throws invalid for bytes that are not a rootfs manifest of this format version */
export function parseRootfsManifest(bytes: Uint8Array): RootfsManifest {
  const what = 'rootfs manifest'
  const record = new Fields(parseCbor(bytes, what), what)
  if (record.get('version') !== formatVersion) {
    throw new P2pfsError('invalid', `${what}: format version ${String(record.get('version'))} is not ${formatVersion}`)
  }
  const table = (value: unknown): ChunkTable => {
    const fields = new Fields(value, what)
    // A copy: who keeps a table does not keep the manifest that it came in.
    return ChunkTable.parse(fields.bytes('lengths'), Uint8Array.from(fields.bytes('digests')))
  }
  const manifest = {
    format: parseRootfsFormat(record.get('format')),
    metadata: table(record.get('metadata')),
    layers: record.list('layers').map((layer) => ({
      diffId: parseDigest(new Fields(layer, what).get('diffId')),
      chunks: table(layer),
    })),
    config: record.text('config'),
  }
  if (manifest.format !== 'raw') return manifest
  const sizeBytes = record.unsigned('sizeBytes')
  const segmentBytes = manifest.layers.reduce((sum, { chunks }) => sum + chunks.sizeBytes, 0)
  if (manifest.metadata.count > 0 || Math.ceil(sizeBytes / blockBytes) * blockBytes !== segmentBytes)
    throw new P2pfsError('invalid', `${what}: a raw image of ${sizeBytes} bytes does not have these segments`)
  return { ...manifest, sizeBytes }
}

/** The digest that names the rootfs. */
export function rootfsDigest(manifest: RootfsManifest): Digest {
  return digestOf(encodeRootfsManifest(manifest))
}
