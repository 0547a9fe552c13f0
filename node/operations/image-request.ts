import { parseRootfsFormat, rootfsFormats, type RootfsFormat } from '../../protocol/rootfs-manifest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Auth, AuthorizedRequest, ImageRequest } from '../control/api.ts'
import { asUsage } from '../control/usage.ts'
import type { Variant } from '../model/image.ts'
import { Caller } from '../registry/caller.ts'
import { parseReference, type Reference } from '../registry/reference.ts'

/** How a request names an image, with the defaults of this host. */
export class ImageRequests {
  readonly #platform: string

  /** @param options `platform`: of images whose request names none, as `linux/amd64` */
  constructor({ platform }: { platform: string }) {
    this.#platform = platform
  }

  /**
   * @param format of a request that names none
   * @returns the reference, with its caller where the request has credentials
   * @throws invalid for what is no reference, or no format, and for credentials where they are for nothing
   */
  parse(
    request: AuthorizedRequest & { requireAccess?: boolean },
    format?: Variant['format'],
  ): { reference: Reference; variant: Variant } {
    const auth = request.auth ?? (request.requireAccess === true ? {} : undefined)
    return {
      reference: asUsage(() => withCaller(parseReference(request.image), auth)),
      variant: this.variant(request, format),
    }
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

/** @throws invalid for credentials for an image that is in no registry */
export function withCaller<T extends Reference>(reference: T, auth: Auth | undefined): T {
  if (auth === undefined) return reference
  if (reference.kind !== 'registry')
    throw new P2pfsError('invalid', 'credentials are for an image in a registry; this one is in none')
  const { username = '', password = '', identityToken, registryToken } = auth
  const isNobody = Object.keys(auth).length === 0
  const credentials = isNobody ? undefined : { username, password, identityToken, registryToken }
  return { ...reference, caller: new Caller(reference.registry, credentials) }
}

/** The formats that images are mounted in as drives and as trees, each once. */
export function formatsOf(uses: readonly ('drive' | 'tree')[]): RootfsFormat[] {
  return [...new Set(uses)].map((use) => (use === 'tree' ? 'erofs' : 'ext4'))
}
