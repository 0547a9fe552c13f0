import type { Amount } from '../../model/progress.ts'
import type { ImageRequest } from './image-request.ts'

/** Names an image of this host, in all of its platforms and formats that are not ruled out. */
export type ImageNameRequest = ImageRequest

/** The images of this host, those that were used last first. */
export interface ImageList {
  images: ListedImage[]
}

export interface ListedImage {
  reference: string
  platform: string
  format: string
  /** The rootfs digest. */
  digest: string
  sizeBytes: number
  /** How much of it is on this host, and how much of that is in layers that other images here have, too. */
  localBytes: number
  sharedBytes: number
  /**
   * The last time that it was mounted, unmounted or seeded here (ISO 8601); now while it is mounted; absent where
   * nobody knows.
   */
  lastUsedAt?: string
  /** Why it is not evicted; empty where it may be. */
  pins: PinReason[]
  /** Directories that it is mounted on. */
  mounts: string[]
}

/**
 * `pin`: by p2pfs pin. `seed`: for a seed job. `hot`: it is mounted often. `local`: it was made here, and nobody else
 * need have it.
 */
export interface PinReason {
  why: 'pin' | 'seed' | 'hot' | 'local'
  job?: string
  /** Absent where it has no end (ISO 8601). */
  until?: string
}

export interface RemoveImageResult {
  removed: { reference: string; platform: string; format: string; digest: string }[]
  /** Chunks that no other image here has. */
  freed: Amount
}

export interface PinRequest extends ImageNameRequest {
  /** Default: it has no end. */
  ttlMs?: number
}

export interface PinResult {
  images: {
    reference: string
    platform: string
    format: string
    digest: string
    sizeBytes: number
    /** How much of it is here, and kept from now on; absent in the answer to unpin. */
    localBytes?: number
  }[]
  until?: string
}

export interface GcRequest {
  /** Whether nothing is to be removed. */
  dryRun?: boolean
}

export interface GcResult {
  dryRun: boolean
  /** Images that no name stands for any more, and layers of none, that were removed, or would be. */
  rootfs: number
  layers: number
  /** Chunks of these, and of nothing. */
  unneeded: Amount
  /** Chunks beyond the limit. */
  evicted: Amount
  storeBytes: number
  limitBytes?: number
}
