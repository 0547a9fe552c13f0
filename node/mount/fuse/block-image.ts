import { maxProfileChunks } from '../../../protocol/boot-profile.ts'
import { digestBytes, digestHex, type Digest } from '../../../protocol/digest.ts'
import type { RootfsManifest } from '../../../protocol/rootfs-manifest.ts'

/** A rootfs as the FUSE worker threads see it; all arrays are shared with them. */
export interface BlockImage {
  /** 64 hex digits of the rootfs digest: the name of its directory. */
  name: string
  /**
   * FUSE node id of its directory; the file's is one more. Derived from the digest, because the kernel goes on using
   * it when another daemon takes over.
   */
  nodeId: number
  sizeBytes: number
  /** Float64: offset of each chunk in the image, and the image's size last, bytes. */
  offsets: SharedArrayBuffer
  /** 32 raw bytes per chunk. */
  digests: SharedArrayBuffer
  /** Uint8 per chunk: {@link chunkFlags}. */
  state: SharedArrayBuffer
  /**
   * Int32: how many chunks a read has used while this process ran; then the first of them in the order of that, each as its
   * number and one, or 0 for a moment.
   */
  order: SharedArrayBuffer
}

/** Chunks whose order is kept: one more than a boot profile has. */
const maxOrdered = maxProfileChunks + 1

export const chunkFlags = {
  /** It came from a peer while this process ran. */
  peer: 1,
  /** It came from the registry while this process ran. */
  registry: 2,
  /** A read has used it while this process ran. */
  served: 64,
  /** The main thread wants to know when a read gets here. */
  mark: 128,
} as const

export function createBlockImage(manifest: RootfsManifest, digest: Digest): BlockImage {
  const tables = [manifest.metadata, ...manifest.layers.map(({ chunks }) => chunks)]
  const count = tables.reduce((sum, table) => sum + table.count, 0)
  const offsets = new Float64Array(new SharedArrayBuffer((count + 1) * 8))
  const digests = new Uint8Array(new SharedArrayBuffer(count * digestBytes))
  let first = 0
  let start = 0
  for (const table of tables) {
    for (let i = 0; i < table.count; i++) offsets[first + i] = start + table.offsets[i]!
    digests.set(table.digests, first * digestBytes)
    first += table.count
    start += table.sizeBytes
  }
  offsets[count] = start
  return {
    name: digestHex(digest),
    // 48 bits, doubled: a safe integer, and two different images with the same one are not to be expected.
    nodeId: Number.parseInt(digestHex(digest).slice(0, 12), 16) * 2 + 2,
    sizeBytes: start,
    offsets: offsets.buffer,
    digests: digests.buffer,
    state: new SharedArrayBuffer(count),
    order: new SharedArrayBuffer((1 + Math.min(count, maxOrdered)) * 4),
  }
}

/** Index of the chunk that holds byte `offset`. */
export function chunkAt(offsets: Float64Array, offset: number): number {
  let low = 0
  let high = offsets.length - 2
  while (low < high) {
    const middle = (low + high + 1) >>> 1
    if (offsets[middle]! <= offset) low = middle
    else high = middle - 1
  }
  return low
}
