import { parseRootfsFormat, rootfsFormats } from '../../protocol/rootfs-manifest.ts'
import type { ImageRequest } from '../control/api.ts'
import { asUsage } from '../control/usage.ts'
import type { Variant } from '../model/image.ts'
import { parseReference, type Reference } from '../registry/reference.ts'

/** How a request names an image, with the defaults of this host. */
export class ImageRequests {
  readonly #platform: string

  /** @param options `platform`: of images whose request names none, as `linux/amd64` */
  constructor({ platform }: { platform: string }) {
    this.#platform = platform
  }

  /** @param format of a request that names none. @throws invalid for what is no reference, or no format */
  parse(request: ImageRequest, format?: Variant['format']): { reference: Reference; variant: Variant } {
    return { reference: asUsage(() => parseReference(request.image)), variant: this.variant(request, format) }
  }

  /** @throws invalid for an unknown format */
  variant(
    { platform, format }: Pick<ImageRequest, 'platform' | 'format'>,
    defaultFormat: Variant['format'] = rootfsFormats[0],
  ): Variant {
    return {
      platform: platform ?? this.#platform,
      format: format === undefined ? defaultFormat : asUsage(() => parseRootfsFormat(format)),
    }
  }
}
