import type { AuthorizedRequest } from './image-request.ts'

export type VerifyRequest = AuthorizedRequest

export interface VerifyResult {
  reference: string
  platform: string
  format: string
  /** Digest of the image manifest whose layers were read. */
  manifestDigest: string
  /** Digest of the rootfs that these layers make. */
  digest: string
  /** Whether everything that is in use agrees with the layers. */
  same: boolean
  /** The rootfs that this host, the region and the registry use for the image; empty if none of them knows it. */
  uses: VerifiedUse[]
}

/** `unknown`: there is nothing to compare with. */
export type Comparison = 'same' | 'different' | 'unknown'

export interface VerifiedUse {
  source: 'host' | 'region' | 'registry'
  /** The rootfs digest. */
  digest: string
  /** `other image`: this source takes the reference for another image manifest. */
  rootfs: Comparison | 'other image'
  /** Peer id of the host that signed the rootfs. */
  maker: string
  /** Whether the maker is this host. */
  own: boolean
  /** Whether this host accepts the maker's signatures. */
  accepted: boolean
  /** Present if the rootfs cannot be read: the reason. */
  error?: string
  /** For each layer, how its chunk table, layer index and blob map compare. */
  layers: { diffId: string; digest: string; chunks: Comparison; index: Comparison; map: Comparison }[]
}
