import { encodeBootProfile, sketchOf } from '../../protocol/boot-profile.ts'
import type { Log } from '../base/log.ts'
import type { BootProfiles } from '../boot/profiles.ts'
import type { SeedRequest, SeedResult } from '../control/api.ts'
import type { OperationOptions } from '../control/operations.ts'
import type { HotImages } from '../hot/hot-images.ts'
import type { ImageResolver } from '../images/resolver.ts'
import type { ImageRootfs } from '../model/image.ts'
import type { Publisher } from '../publish/publisher.ts'
import type { Caller } from '../registry/caller.ts'
import type { HeldCallers } from '../registry/held-callers.ts'
import { callerOf } from '../registry/reference.ts'
import { formatsOf, type ImageRequests } from './image-request.ts'
import type { RootfsSeeder } from './rootfs-seeder.ts'

export interface SeedParts {
  requests: ImageRequests
  resolver: Pick<ImageResolver, 'resolveForSeed' | 'nameByDigest'>
  callers: Pick<HeldCallers, 'during'>
  seeder: RootfsSeeder
  profiles: Pick<BootProfiles, 'find'>
  publisher: Pick<Publisher, 'publish'>
  hot: Pick<HotImages, 'mounted'>
  log: Log
}

/** `p2pfs seed`: makes an image whole on this host, and publishes its index where that is asked for. */
export class SeedOperation {
  readonly #parts: SeedParts

  constructor(parts: SeedParts) {
    this.#parts = parts
  }

  /** Each of the formats that are asked for, one after the other: they share all chunks but those of their metadata. */
  async run(request: SeedRequest, options: OperationOptions): Promise<SeedResult> {
    const { requests, callers } = this.#parts
    const { as = [], ...image } = request
    const formats = as.length === 0 ? [undefined] : formatsOf(as)
    const { reference } = requests.parse(request)
    return await callers.during(reference, async () => {
      const results: SeedResult[] = []
      for (const format of formats)
        results.push(await this.#seed(format === undefined ? image : { ...image, format }, options))
      const [first, ...others] = results
      return { ...first!, ...(others.length > 0 && { others }) }
    })
  }

  async #seed(request: SeedRequest, { signal, onProgress }: OperationOptions): Promise<SeedResult> {
    const { requests, resolver, seeder } = this.#parts
    const { reference, variant } = requests.parse(request)
    const resolved = await resolver.resolveForSeed(reference, variant, {
      signal,
      onProgress: (progress) => onProgress({ step: 'import', ...progress }),
    })
    if (resolved.resolution === 'registry') this.#parts.hot.mounted(resolved.record, 0)
    const seeded = await seeder.seed(resolved, {
      signal,
      onProgress: (progress) => onProgress({ step: 'fetch', ...progress }),
    })
    const pinned = await resolver.nameByDigest(resolved)
    const result = { ...seeded, ...(pinned !== undefined && { mountBy: pinned }) }
    if (request.publish !== true) return result
    return { ...result, published: await this.#publish(resolved, callerOf(reference), { signal, onProgress }) }
  }

  async #publish(
    image: ImageRootfs,
    caller: Caller | undefined,
    { signal, onProgress }: OperationOptions,
  ): Promise<NonNullable<SeedResult['published']>> {
    const { publisher, log } = this.#parts
    const profile = await this.#profileOf(image, signal)
    const published = await publisher.publish(image, {
      signal,
      caller,
      ...(profile && { profile }),
      onProgress: (progress) => onProgress({ step: 'publish', ...progress }),
    })
    const { reference, format } = image.record
    log.info('index published', { image: reference, format, artifact: published.digest, maker: published.key })
    return published
  }

  /** The best boot profile that there is of the image, encoded. */
  async #profileOf({ record, manifest }: ImageRootfs, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const segments = manifest.layers.map(({ chunks }) => chunks)
    const found = await this.#parts.profiles.find(
      { rootfs: record.rootfsDigest, sketch: sketchOf(segments) },
      segments.map(({ id }) => id),
      { signal },
    )
    return found === undefined ? undefined : encodeBootProfile(found.profile)
  }
}
