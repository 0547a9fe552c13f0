import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import { isRawImage } from '../../protocol/raw-image.ts'
import { rootfsFormats, type RootfsFormat } from '../../protocol/rootfs-manifest.ts'
import type { PullPolicy } from '../model/image.ts'
import type { Reference } from '../registry/reference.ts'

/**
 * Says what image a reference stands for: the record that this host or its region has, or the registry. `nobody`: there
 * is no record, and the registry must not be asked.
 */
export type Answerer = 'record' | 'registry' | 'nobody'

/**
 * Chooses who says what image a reference stands for.
 * @param record what is known of the recorded image; undefined if neither this host nor its region has a record that is
 * believed. `isWholeHere`: this host had the record before, and has all chunks of the rootfs. `isOnMembersWord`: nobody but
 * a member says that the name stands for it. `isFresh`: somebody who is believed has asked the registry a moment ago
 * @param isRegistrySilent whether the registry did not answer when it was asked last
 */
export function chooseAnswerer(
  reference: Reference,
  pull: Exclude<PullPolicy, 'auto'>,
  record: { isWholeHere: boolean; isOnMembersWord: boolean; isFresh?: boolean } | undefined,
  isRegistrySilent: boolean,
): Answerer {
  if (record === undefined) return pull === 'never' ? 'nobody' : 'registry'
  if (reference.kind === 'local' || (isPinned(reference) && !record.isOnMembersWord)) return 'record'
  switch (pull) {
    case 'always':
      return 'registry'
    case 'newer': {
      const isSettled = record.isFresh === true || (record.isWholeHere && !record.isOnMembersWord)
      return isRegistrySilent || isSettled ? 'record' : 'registry'
    }
    case 'missing':
    case 'never':
      return 'record'
  }
}

/** Whether the reference names an image by its digest: it always stands for the same image. */
export function isPinned(reference: Reference): boolean {
  return reference.kind === 'registry' && reference.digest !== undefined
}

/** Consequences of an error of the registry for a reference whose last image is known. */
export interface FailureVerdict {
  /** Whether the last known image is used. The other errors say that the image itself is wrong. */
  useLastKnown: boolean
  /** Whether the registry was not reached, or asks to be left alone: it will not answer for other images either. */
  isSilence: boolean
}

/**
 * Judges an error of the registry.
 * @param options `isOnMembersWord`: whether nobody but a member says what the last known image is; `isForCaller`: whether the
 * registry was asked with the credentials of a caller
 */
export function judgeFailure(
  error: unknown,
  { isOnMembersWord = false, isForCaller = false }: { isOnMembersWord?: boolean; isForCaller?: boolean } = {},
): FailureVerdict {
  const isSilence = isP2pfsError(error, 'unavailable', 'timeout', 'busy')
  // A registry that refuses, or has lost the tag, may answer differently later, and answers well for other images. But it
  // has answered: a member's word does not stand against that, and a caller who may not read the image gets none.
  const isAnswer = isP2pfsError(error, 'denied', 'missing')
  return {
    useLastKnown: isSilence || (isAnswer && !isOnMembersWord && !isForCaller),
    isSilence,
  }
}

/** One place to look for an image record, and the format of the rootfs to look for there. */
export interface SearchStep {
  place: 'host' | 'region'
  format: RootfsFormat
}

/**
 * The order in which image records are looked for. This host comes before the region, although the region may have the
 * right format: a rootfs of another format is converted here from layer indexes. A raw image is raw whatever was asked for;
 * the registry says so of its own, so the region is not asked for one in vain.
 */
export function searchOrder(format: RootfsFormat, kind: Reference['kind']): SearchStep[] {
  const others = rootfsFormats.filter((candidate) => candidate !== format && candidate !== 'raw')
  const formats = format === 'raw' ? [format] : [format, ...others]
  const steps = (place: SearchStep['place'], isRawPossible: boolean): SearchStep[] =>
    [...formats, ...(isRawPossible && format !== 'raw' ? (['raw'] as const) : [])].map((format) => ({ place, format }))
  return [...steps('host', true), ...steps('region', kind === 'local')]
}

/**
 * The format in which an image of a registry is used.
 * @throws invalid for `raw` where the image is none
 */
export function formatOf(
  { reference, layers }: { reference: string; layers: readonly { mediaType: string }[] },
  wanted: RootfsFormat,
): RootfsFormat {
  if (isRawImage(layers)) return 'raw'
  if (wanted === 'raw')
    throw new P2pfsError('invalid', `${reference} is no raw image: leave out --format raw`, { reference })
  return wanted
}

/** How a peer's image record compares with the image that it was asked for. */
export type RecordFit = 'fits' | 'other image' | 'other manifest'

/** @param manifestDigest what the registry says that the reference stands for; undefined if it was not asked */
export function fitOf(record: ImageRecord, name: ImageName, manifestDigest: Digest | undefined): RecordFit {
  if (imageKey(record) !== imageKey(name)) return 'other image'
  return manifestDigest === undefined || record.manifestDigest === manifestDigest ? 'fits' : 'other manifest'
}

/** The record of an image that is asked for by its digest, made of the record of a tag in the same repository. */
export function recordByDigest(
  records: readonly ImageRecord[],
  { reference, platform, format }: ImageName,
): ImageRecord | undefined {
  const [repository, digest] = reference.split('@')
  if (digest === undefined) return undefined
  const tagged = records.find(
    (record) =>
      record.manifestDigest === digest &&
      record.platform === platform &&
      record.format === format &&
      record.reference.startsWith(`${repository}:`),
  )
  return tagged === undefined ? undefined : { ...tagged, reference }
}

/** Equal for names of the same rootfs. */
export function imageKey({ reference, platform, format }: ImageName): string {
  return `${format} ${platform} ${reference}`
}

/** Images of one registry are answered for, or not, together. */
export function registryOf(reference: Reference): string {
  return reference.kind === 'registry' ? reference.registry : reference.kind
}
