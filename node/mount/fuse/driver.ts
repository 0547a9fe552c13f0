import type { BlockImage } from './block-image.ts'
import type { Served } from './read-counters.ts'

/** Serves what the driver cannot answer by itself. */
export interface ReadHandler {
  /** Delivers a chunk of the image of this name: its bytes are whole and verified. */
  miss: (name: string, chunkIndex: number, options: { signal: AbortSignal }) => Promise<Uint8Array>
  /** A reader got to a chunk with the flag `readAheadTrigger`. */
  reachedTrigger: (name: string, chunkIndex: number) => void
  /**
   * The kernel uses an image that is not served: it knows it from an earlier daemon, whose mount of it has ended here
   * but not everywhere. @returns the image, which is served until it is dropped; undefined if there is none with this
   * node id
   */
  reopen: (nodeId: number) => Promise<BlockImage | undefined>
  /** The kernel has dropped an image that was removed or reopened: it is served no more. */
  dropped: (name: string) => void
}

/** Serves image files over FUSE: `NAME/rootfs.img` below the mount point. */
export interface FuseDriver {
  /** Serves reads from now on. */
  start: (handler: ReadHandler) => Promise<void>
  /** Ends everything that cannot outlive this process. */
  stop: () => Promise<void>
  /** The image can be looked up when this resolves. It may be served already. */
  add: (image: BlockImage) => Promise<void>
  /**
   * Says which users may open the file of an image besides root: the owners of its mounts. Root of the user namespace
   * that the filesystem was mounted in is root.
   */
  setOwners: (name: string, uids: readonly number[]) => void
  /**
   * Ends lookups of the image, which no mount here needs any more. Users that have it already are served on: a mount in
   * another namespace, an open file. @returns whether there are none, so that it is served no more; if not, the handler
   * is told when the last one has gone
   */
  remove: (name: string) => Promise<boolean>
  /** Since this process has started. `errors`: reads that were answered with an I/O error. */
  counters: () => { served: Served; errors: number }
}
