import type { BlockImage } from './block-image.ts'
import type { Served } from './read-counters.ts'

/** Delivers a chunk that no worker found; the bytes are whole and verified. */
export type OnMiss = (name: string, chunkIndex: number, options: { signal: AbortSignal }) => Promise<Uint8Array>
/** A reader got to a chunk that was marked. */
export type OnMark = (name: string, chunkIndex: number) => void

/** Serves image files over FUSE: `NAME/rootfs.img` below the mount point. */
export interface FuseDriver {
  /** Serves from now on. */
  start: () => Promise<void>
  /** Ends what cannot outlive this process. */
  stop: () => Promise<void>
  /** The image can be looked up when this resolves. */
  add: (image: BlockImage) => Promise<void>
  /** Ends an image; reads of files that are still open fail. */
  remove: (name: string) => Promise<void>
  counters: () => { served: Served }
}
