import type { BlockImage } from './block-image.ts'
import type { Served } from './read-counters.ts'

/** Serves the reads that the driver cannot answer from chunk files. */
export interface ReadHandler {
  /** Delivers a chunk of the image of this name: its bytes are whole and verified. */
  miss: (name: string, chunkIndex: number, options: { signal: AbortSignal }) => Promise<Uint8Array>
  /** A reader got to a chunk with the flag `readAheadTrigger`. */
  reachedTrigger: (name: string, chunkIndex: number) => void
}

/** Serves image files over FUSE: `NAME/rootfs.img` below the mount point. */
export interface FuseDriver {
  /** Serves reads from now on. */
  start: (handler: ReadHandler) => Promise<void>
  /** The image can be looked up when this resolves. */
  add: (image: BlockImage) => Promise<void>
  /** Ends an image; reads of files that are still open fail. */
  remove: (name: string) => Promise<void>
  counters: () => { served: Served }
}
