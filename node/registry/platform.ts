import { P2pfsError } from '../../protocol/errors.ts'
import { listSome, type IndexEntry } from './image-manifest.ts'
import { parseJsonObject } from './json.ts'

/** `os/architecture`, without the variant. */
const withoutVariant = (platform: string): string => platform.split('/').slice(0, 2).join('/')

/**
 * The entry of an index for a platform: the same platform, or one with a variant where only one side names a variant.
 * @throws missing listing the platforms that the index has
 */
export function choosePlatform(entries: readonly IndexEntry[], platform: string, what: string): IndexEntry {
  // Attestations and signatures stand in an index as images for no platform.
  const images = entries.filter((entry) => entry.platform !== 'unknown/unknown')
  const base = withoutVariant(platform)
  const found =
    images.find((entry) => entry.platform === platform) ??
    images.find(
      (entry) =>
        entry.platform !== undefined &&
        withoutVariant(entry.platform) === base &&
        (platform === base || entry.platform === base),
    )
  if (found !== undefined) return found
  const [only] = images
  if (images.length === 1 && only !== undefined && only.platform === undefined) return only
  const offered = listSome(images.map((entry) => entry.platform ?? 'unnamed'))
  throw new P2pfsError(
    'missing',
    `${what} has no image for ${platform}; it has ${offered || 'none at all'}: choose with --platform`,
  )
}

/** Checks the platform that an image's config names, where it names one. @throws missing */
export function checkPlatform(config: string, platform: string, name: string): void {
  const { os, architecture } = parseJsonObject(config, 'image config')
  if (typeof os !== 'string' || typeof architecture !== 'string' || os === '' || architecture === '') return
  if (`${os}/${architecture}` !== withoutVariant(platform))
    throw new P2pfsError('missing', `${name} is for ${os}/${architecture}, not for ${platform}; choose with --platform`)
}
