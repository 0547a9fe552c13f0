import type { Digest } from '../../protocol/digest.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { Belief } from './belief.ts'
import type { Urgency } from '../base/urgency.ts'
import type { ByteProgress } from './progress.ts'

/**
 * The source of a rootfs manifest: `local`, this host had it; `peer`, a peer sent it; `registry`, it was published
 * there; `built`, this host made it.
 */
export const origins = ['local', 'peer', 'registry', 'built'] as const
export type Origin = (typeof origins)[number]

/**
 * The source that says that the reference stands for this image: `digest`, the reference itself; `registry`, the registry, when it
 * was asked for this call; `last-known`, this host or its region, from an earlier answer of the registry.
 */
export const resolutions = ['digest', 'registry', 'last-known'] as const
export type Resolution = (typeof resolutions)[number]

/**
 * Whether a mount asks the registry what a tag stands for now, if this host or its region has an earlier answer.
 * `newer` asks unless that answer is fresh, the image is whole on this host, or the registry is silent. `always` asks.
 * `missing` does not ask if there is an earlier answer. `never` does not ask even if there is none. `auto` is what the
 * daemon is configured for.
 */
export const pullPolicies = ['auto', 'always', 'newer', 'missing', 'never'] as const
export type PullPolicy = (typeof pullPolicies)[number]

/** Selects one rootfs among those of an image. */
export type Variant = Pick<ImageName, 'platform' | 'format'>

/** An image record and the rootfs manifest that it names. */
export interface ImageRootfs {
  record: ImageRecord
  manifest: RootfsManifest
}

/** An image, and who is believed about it. */
export interface BelievedRootfs extends ImageRootfs {
  belief: Belief
}

/** An image whose rootfs this host can mount. */
export interface FoundRootfs extends BelievedRootfs {
  origin: Origin
}

/** The image that a reference stands for. */
export interface ResolvedRootfs extends FoundRootfs {
  resolution: Resolution
  /** Why the registry, which was asked, did not say what the tag stands for now. */
  unanswered?: string
}

/** An image record before anybody has signed it. */
export type UnsignedRecord = Omit<ImageRecord, 'attestation' | 'nameStatement'>

/** Options of tasks that may include an import. Progress is in bytes of the image's compressed layers. */
export interface FindOptions {
  signal: AbortSignal
  onProgress?: ((progress: ByteProgress) => void) | undefined
  /** Whether somebody waits for the image; yes, where it is not given. An import that nobody waits for makes way for reads. */
  urgency?: Urgency | undefined
}

/** Whether a rootfs has the config and the layers of an image. The diff ids of a raw image say what its chunks are. */
export function isRootfsOf(
  { format, config, layers }: RootfsManifest,
  image: { config: string; layers: readonly { diffId: Digest }[] },
): boolean {
  return (
    config === image.config &&
    layers.length === image.layers.length &&
    layers.every(
      ({ diffId, chunks }, i) => diffId === image.layers[i]!.diffId && (format !== 'raw' || diffId === chunks.id),
    )
  )
}
