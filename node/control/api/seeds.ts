import type { Origin } from '../../model/image.ts'
import type { AuthorizedRequest } from './image-request.ts'
import type { PublishResult } from './publishing.ts'

export interface SeedRequest extends AuthorizedRequest {
  /** Whether the index is also published in the image's repository, for hosts that start from the registry alone. */
  publish?: boolean
  /** The kinds of mounts that it is for: it is made whole in the format of each. Excludes `format`. */
  as?: ('drive' | 'tree')[]
}

export interface SeedResult {
  reference: string
  platform: string
  format: string
  /** The rootfs digest. */
  digest: string
  sizeBytes: number
  origin: Origin
  /**
   * The name by which it is mounted, here or elsewhere in the region, without a question to its registry: with the
   * digest.
   */
  mountBy?: string
  /** Present if the request asked to publish. */
  published?: PublishResult
  /** The same image in the other formats that the request asked for. */
  others?: SeedResult[]
}
