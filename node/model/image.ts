import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { ByteProgress } from './progress.ts'

/**
 * Where a rootfs manifest came from: this host had it, a peer had it, it was published in the registry, or this host built
 * it.
 */
export const origins = ['local', 'peer', 'registry', 'built'] as const
export type Origin = (typeof origins)[number]

/**
 * Who says that the reference stands for this image: the reference itself, by a digest; the registry, just now; or this host
 * or its region, from an earlier answer.
 */
export const resolutions = ['digest', 'registry', 'last-known'] as const
export type Resolution = (typeof resolutions)[number]

/**
 * Whether a mount asks the registry what a tag stands for now, where this host or its region has an earlier answer.
 * `auto` asks unless the image is whole on this host. `always` asks. `missing` does not ask where there is an earlier
 * answer. `never` does not ask even where there is none.
 */
export const pullPolicies = ['auto', 'always', 'missing', 'never'] as const
export type PullPolicy = (typeof pullPolicies)[number]

/** Checks the name of a platform: `linux/amd64`, `linux/arm/v7`. @throws invalid */
export function parsePlatform(text: string): string {
  if (/^[\w.-]+(?:\/[\w.-]+){1,2}$/.test(text)) return text
  throw new P2pfsError(
    'invalid',
    `not a platform: ${JSON.stringify(text.slice(0, 100))}; it is OS/ARCH or OS/ARCH/VARIANT, such as linux/amd64`,
  )
}

/** Which rootfs of an image. */
export type Variant = Pick<ImageName, 'platform' | 'format'>

/** An image record and the rootfs manifest that it names. */
export interface ImageRootfs {
  record: ImageRecord
  manifest: RootfsManifest
}

/** An image whose rootfs this host can mount. */
export interface ResolvedRootfs extends ImageRootfs {
  origin: Origin
  resolution: Resolution
  /** Why the registry did not say what the tag stands for now, where it was asked. */
  unanswered?: string
}

/** An image record before anybody has signed it. */
export type UnsignedRecord = Omit<ImageRecord, 'attestation'>

/** Options of what may take as long as an import. Progress is in bytes of the image's compressed layers. */
export interface FindOptions {
  signal: AbortSignal
  onProgress?: ((progress: ByteProgress) => void) | undefined
}
