import type { Digest } from '../../protocol/digest.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ChunkRequest, FetchPriority } from '../model/chunk-request.ts'

/** A mounted rootfs, as its boot needs it. Chunks are named by their position in the image. */
export interface BootingRootfs {
  readonly digest: Digest
  readonly manifest: RootfsManifest
  readonly image: {
    sizeBytes: number
    /**
     * Int32: how many chunks a read has used while this process ran; then those chunks in the order of their first use,
     * each as its position plus 1. A 0 is a chunk that is being entered.
     */
    readOrder: SharedArrayBuffer
  }
  /** How many reads wait for a chunk at this moment. */
  readonly waitingChunks: number
  has: (index: number) => boolean
  request: (index: number) => ChunkRequest
  /** @throws what the fetch throws */
  fetchToStore: (index: number, priority: FetchPriority, signal: AbortSignal) => Promise<void>
  /**
   * These chunks are being fetched ahead in a known order, until the next call: read-ahead need not guess what follows
   * one of them.
   */
  plan: (chunks: ReadonlySet<number>) => void
}
