import type { Digest } from '../../protocol/digest.ts'
import type { ImageName } from '../../protocol/image-record.ts'

/** The catalog's key space. */
export const keys = {
  /** -> image record (CBOR) */
  image: ({ reference, platform, format }: ImageName): string => `image/${format}/${platform}/${reference}`,
  /** -> rootfs manifest (CBOR) */
  rootfs: (digest: Digest): string => `rootfs/${digest}`,
  /** -> layer index (CBOR, zstd) */
  layer: (diffId: Digest): string => `layer/${diffId}`,
  /** -> mount record (JSON) */
  mount: (directory: string): string => `mount/${directory}`,
}

/** All keys under `prefix`, as a range of the ordered key space. */
export function under(prefix: 'image/' | 'rootfs/' | 'layer/' | 'mount/'): { gte: string; lt: string } {
  return { gte: prefix, lt: `${prefix.slice(0, -1)}0` }
}
