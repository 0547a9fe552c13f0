import { totalmem } from 'node:os'
import { P2pfsError } from '../../protocol/errors.ts'
import type { LayerEntry } from '../../protocol/layer-entry.ts'
import { formatByteSize } from '../base/byte-size.ts'

/** Bounds on one layer: a hostile one must exhaust neither the host's memory nor its disk. */
export interface LayerLimits {
  /** Bound on the uncompressed tar, and on the data of its files, bytes. */
  maxLayerBytes: number
  /**
   * Bound on names, link targets, xattrs and extents as {@link metadataBytes} counts them: of one layer, and of all
   * layers of an image together.
   */
  maxMetadataBytes: number
}

const mebibyte = 1024 * 1024

/**
 * Metadata may take a thirty-second of the host's memory, 64 to 512 MiB. An import holds about as much while it merges
 * layers. 512 MiB are more than two million files.
 */
export const defaultLayerLimits: LayerLimits = {
  maxLayerBytes: 256 * 1024 * mebibyte,
  maxMetadataBytes:
    Math.min(
      512,
      Math.max(64, Math.floor(Math.min(totalmem(), process.constrainedMemory() || Infinity) / 32 / mebibyte)),
    ) * mebibyte,
}

/**
 * Cost of an entry without its strings, of an extent, and of an xattr: in proportion to the memory they take, bytes.
 */
const costs = { entry: 128, extent: 32, xattr: 64 } as const

/** Cost of an entry against {@link LayerLimits.maxMetadataBytes}. */
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

/** @throws invalid, naming the option that raises the limit */
export function checkMetadata(
  bytes: number,
  { maxMetadataBytes }: Pick<LayerLimits, 'maxMetadataBytes'>,
  entry?: string,
): void {
  if (bytes > maxMetadataBytes)
    throw tooLarge('more names, links, attributes and entries', maxMetadataBytes, '--max-layer-metadata', entry)
}

/** @throws invalid, naming the option that raises the limit */
export function checkLayerBytes(bytes: number, { maxLayerBytes }: LayerLimits, entry: string | undefined): void {
  if (bytes > maxLayerBytes)
    throw tooLarge(
      'the uncompressed layer, or the data of its files, is larger',
      maxLayerBytes,
      '--max-layer-size',
      entry,
    )
}
