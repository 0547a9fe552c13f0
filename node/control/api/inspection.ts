import type { Belief } from '../../model/belief.ts'
import type { ImageRequest } from './image-request.ts'

export type InspectRequest = ImageRequest

export interface InspectResult {
  reference: string
  platform: string
  format: string
  /** The rootfs digest. */
  digest: string
  /** The hosts that are believed about the name and about the rootfs. */
  belief: Belief
  sizeBytes: number
  /** How much of the rootfs is on this host. */
  localBytes: number
  metadataBytes: number
  chunks: number
  layers: InspectedLayer[]
  /** Other images that this host knows and that share chunks with this one, most shared bytes first. */
  sharing: { reference: string; platform: string; format: string; sharedChunks: number; sharedBytes: number }[]
  /** The OCI image config. */
  config: unknown
}

export interface InspectedLayer {
  diffId: string
  /** Digest of the layer's blob in the registry. */
  digest: string
  compressedBytes: number
  /** Size of the tar; of a raw image, the part of the image that the layer is. */
  tarBytes: number
  /** Number of tar entries by type, whiteouts and opaque markers included. */
  entries: Record<string, number>
  /** Size of the contents of all files. */
  dataBytes: number
  chunks: number
  localBytes: number
}
