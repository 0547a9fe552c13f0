import { P2pfsError } from '../../protocol/errors.ts'
import { listSome, type IndexEntry } from './image-manifest.ts'
import { parseJsonObject, textOrEmpty } from './json.ts'
import { parsePlatform, platformDistance, type Platform } from '../model/platform.ts'

/**
 * The entries of an index that may be the image for a platform, best first. Entries that name no platform come last:
 * what they name says itself what it is for.
 * @throws missing listing the platforms that the index has
 */
export function candidatesFor(entries: readonly IndexEntry[], platform: string, what: string): IndexEntry[] {
  const host = parsePlatform(platform)
  const images = entries.filter(({ isImage }) => isImage)
  const ranked = images
    .map((entry) => ({
      entry,
      distance: entry.platform === undefined ? Infinity : platformDistance(host, parsePlatform(entry.platform)),
    }))
    .filter((candidate): candidate is { entry: IndexEntry; distance: number } => candidate.distance !== undefined)
    .toSorted((a, b) => (a.distance === b.distance ? 0 : a.distance - b.distance))
  if (ranked.length > 0) return ranked.map(({ entry }) => entry)
  throw new P2pfsError(
    'missing',
    `${what} has no image for ${platform}; --platform takes one that it has: ${platformList(images)}`,
  )
}

/** The platforms of entries, for an error. */
function platformList(images: readonly IndexEntry[]): string {
  return listSome([...new Set(images.map((entry) => entry.platform ?? 'unnamed'))]) || 'none at all'
}

/** The platform that an image config names; undefined where it names none. @throws invalid */
export function platformOf(configJson: string): Platform | undefined {
  const { os, architecture, variant } = parseJsonObject(configJson, 'image config')
  if (textOrEmpty(os) === '' || textOrEmpty(architecture) === '') return undefined
  return parsePlatform([os, architecture, textOrEmpty(variant)].join('/'))
}

/**
 * Whether the image that a config describes is for a host. Configs are careless about variants: those are not compared.
 */
export function suits(configJson: string, platform: string): boolean {
  const image = platformOf(configJson)
  const host = parsePlatform(platform)
  return image === undefined || (image.os === host.os && image.architecture === host.architecture)
}
