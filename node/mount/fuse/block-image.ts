import { maxProfileChunks } from '../../../protocol/boot-profile.ts'
import { digestBytes, digestHex, type Digest } from '../../../protocol/digest.ts'
import type { RootfsManifest } from '../../../protocol/rootfs-manifest.ts'

/** A rootfs as the FUSE worker threads see it. The threads share all arrays. */
export interface BlockImage {
  /** 64 hex digits of the rootfs digest: the name of its directory. */
  name: string
  /**
   * FUSE node id of its directory; the id of the file is one more. It is derived from the digest, because the kernel
   * goes on using it when another daemon takes over.
   */
  nodeId: number
  sizeBytes: number
  /** Float64: offset of each chunk in the image, and the end of the last (bytes). */
  offsets: SharedArrayBuffer
  /** 32 raw bytes per chunk. */
  digests: SharedArrayBuffer
  /** Float64 per chunk: the inode change time (ms) of its file when the file's bytes were last found right; 0: never. */
  checkedAtMs: SharedArrayBuffer
  /** Uint8 per chunk: {@link chunkFlags}. */
  state: SharedArrayBuffer
  /**
   * Int32: how many chunks a read has used while this process ran; then those chunks in the order of their first use,
   * each as its position plus 1. A 0 is a chunk that is being entered. Only the first chunks are kept.
   */
  readOrder: SharedArrayBuffer
  /** Int32: how many lookups of the directory and the file the kernel has not taken back. */
  references: SharedArrayBuffer
}

/** Chunks whose order is kept: one more than fit into a boot profile. */
const maxOrdered = maxProfileChunks + 1

export const chunkFlags = {
  /** The chunk came from a peer while this process ran. */
  peer: 1,
  /** The chunk came from the registry while this process ran. */
  registry: 2,
  /** The chunk came from a neighbour region while this process ran. */
  neighbour: 4,
  /** A read has used the chunk since eviction has looked the last time. */
  used: 8,
  /** A read has used the chunk while this process ran. */
  served: 64,
  /** Read-ahead wants to know when a read gets to this chunk. */
  readAheadTrigger: 128,
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
    nodeId: nodeIdOf(digest),
    // A raw image may end within its last block.
    sizeBytes: manifest.sizeBytes ?? start,
    offsets: offsets.buffer,
    digests: digests.buffer,
    checkedAtMs: new SharedArrayBuffer(count * 8),
    state: new SharedArrayBuffer(count),
    readOrder: new SharedArrayBuffer((1 + Math.min(count, maxOrdered)) * 4),
    references: new SharedArrayBuffer(4),
  }
}

/**
 * Node id of an image's directory: 48 bits of the digest, doubled. It is even, a safe integer, and unique in practice.
 */
export function nodeIdOf(digest: Digest): number {
  return Number.parseInt(digestHex(digest).slice(0, 12), 16) * 2 + 2
}

/** Node id of an image's directory, given that of its directory or file. */
export function directoryNodeId(nodeId: number): number {
  return nodeId - (nodeId % 2)
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
