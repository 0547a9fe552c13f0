import { totalmem } from 'node:os'
import { P2pfsError } from '../../protocol/errors.ts'
import type { LayerEntry } from '../../protocol/layer-index.ts'
import { formatByteSize } from '../base/byte-size.ts'

/** What one layer may have at most: a hostile one must cost neither the host's memory nor its disk. */
export interface LayerLimits {
  /** Of the uncompressed tar, and of the data that its files make, bytes. */
  maxLayerBytes: number
  /** Of names, link targets, xattrs and extents, as {@link metadataBytes} counts; of an image's layers together, too. */
  maxMetadataBytes: number
}

const mebibyte = 1024 * 1024

/**
 * A thirty-second of the host's memory, 64 to 512 MiB: what an import holds while it merges layers is five times that, and
 * 512 MiB are more than two million files.
 */
export const defaultLayerLimits: LayerLimits = {
  maxLayerBytes: 256 * 1024 * mebibyte,
  maxMetadataBytes:
    Math.min(
      512,
      Math.max(64, Math.floor(Math.min(totalmem(), process.constrainedMemory() || Infinity) / 32 / mebibyte)),
    ) * mebibyte,
}

/** What an entry counts apart from its strings; an extent; an xattr: bytes, in proportion to what they take in memory. */
const costs = { entry: 128, extent: 32, xattr: 64 } as const

export function metadataBytes({
  path,
  linkTarget,
  xattrs,
  extents,
}: Pick<LayerEntry, 'path' | 'linkTarget' | 'xattrs'> & { extents: readonly unknown[] }): number {
  let bytes = costs.entry + path.length + linkTarget.length + extents.length * costs.extent
  for (const { name, value } of xattrs) bytes += costs.xattr + name.length + value.length
  return bytes
}

export function tooLarge(what: string, limit: number, option: string, entry: string | undefined): P2pfsError {
  return new P2pfsError('invalid', `${what} than ${formatByteSize(limit)}; where that is right, raise ${option}`, {
    ...(entry === undefined ? {} : { entry }),
    limitBytes: limit,
  })
}

/** @throws invalid naming the option */
export function checkMetadata(bytes: number, { maxMetadataBytes }: LayerLimits, entry?: string): void {
  if (bytes > maxMetadataBytes)
    throw tooLarge('more names, links, attributes and entries', maxMetadataBytes, '--max-layer-metadata', entry)
}

/** @throws invalid naming the option */
export function checkLayerBytes(bytes: number, { maxLayerBytes }: LayerLimits, entry: string | undefined): void {
  if (bytes > maxLayerBytes)
    throw tooLarge(
      'the uncompressed layer, or the data of its files, is larger',
      maxLayerBytes,
      '--max-layer-size',
      entry,
    )
}
