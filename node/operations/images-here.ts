import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import type { ImageNameRequest } from '../control/api.ts'
import { formatReference, parseReference } from '../registry/reference.ts'
import type { Catalog } from '../store/catalog.ts'
import { normalizePlatform } from '../model/platform.ts'

/**
 * The records of this host that a request names: of all platforms and formats that it does not rule out.
 * @throws invalid for what is no reference; missing where this host has no such image
 */
export async function imagesHere(
  catalog: Pick<Catalog, 'images'>,
  { image, platform, format }: ImageNameRequest,
): Promise<ImageRecord[]> {
  const reference = formatReference(parseReference(image))
  const wanted = platform === undefined ? undefined : normalizePlatform(platform)
  const found = (await catalog.images()).filter(
    (record) =>
      record.reference === reference &&
      (wanted === undefined || record.platform === wanted) &&
      (format === undefined || record.format === format),
  )
  if (found.length > 0) return found
  const as = [wanted, format].filter((part) => part !== undefined).join(', ')
  throw new P2pfsError(
    'missing',
    `this host has no image ${reference}${as === '' ? '' : ` (${as})`}; p2pfs images lists those that it has`,
    { image: reference },
  )
}
