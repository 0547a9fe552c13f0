import type { Auth } from './image-request.ts'

export interface PublishResult {
  /** Digest of the artifact's manifest. */
  digest: string
  /** Size of all parts of the artifact together. */
  sizeBytes: number
  /** Peer id of the host that signed it. */
  key: string
  /** Whether the same artifact was published before. */
  existed: boolean
}

export interface PushRequest {
  /** A raw image. */
  image: string
  platform?: string
  /** The name in a registry, with a tag. */
  target: string
  /** For the target's registry. Default: the credentials of the daemon. */
  auth?: Auth
}

export interface PushResult {
  /** As the image is called from now on. */
  reference: string
  platform: string
  /** The rootfs digest. */
  digest: string
  manifestDigest: string
  sizeBytes: number
  /** Size of its layers in the registry, those that were there before included; each counts once. */
  compressedBytes: number
  published: PublishResult
}
