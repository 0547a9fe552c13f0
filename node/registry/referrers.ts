import { digestHex, parseDigest, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { mediaTypes, parseManifest } from './image-manifest.ts'
import type { Referrer } from './image-storage.ts'
import { asObject, isObject, parseJsonObject, textEntries, textOrEmpty } from './json.ts'

/** A manifest's own description, as it is pushed. */
export interface PushedManifest {
  subject: Digest | undefined
  artifactType: string | undefined
  annotations: Record<string, string>
}

/** The tag that stands for a missing API: OCI distribution spec 1.1, "Referrers Tag Schema". */
export const referrersTag = (subject: Digest): string => `sha256-${digestHex(subject)}`

export const isReferrersTag = (tag: string | undefined): boolean =>
  tag !== undefined && /^sha256-[0-9a-f]{64}$/.test(tag)

/** The entries of an index of referrers. @throws invalid for what is not such an index */
export function parseReferrers(json: string, what: string): Referrer[] {
  const index = parseManifest(json, what)
  if (index.kind !== 'index') throw new P2pfsError('invalid', `${what} is not an index`)
  const entries = rawEntries(json, what)
  return index.entries.map(({ digest, mediaType, sizeBytes }, i) => {
    const { artifactType, annotations } = asObject(entries[i], `entry of ${what}`)
    return {
      digest,
      mediaType,
      sizeBytes,
      artifactType: textOrEmpty(artifactType) || undefined,
      annotations: textEntries(annotations),
    }
  })
}

/** The entries of an index as they are stored, with the fields that are not known here. */
export function rawEntries(json: string, what: string): readonly unknown[] {
  const { manifests } = parseJsonObject(json, what)
  return Array.isArray(manifests) ? manifests : []
}

/** The referrers of a type; all where none is given. */
export function ofType(referrers: readonly Referrer[], artifactType: string | undefined): Referrer[] {
  return referrers.filter((referrer) => artifactType === undefined || referrer.artifactType === artifactType)
}

/**
 * The index with one more entry; undefined where the entry is there already.
 * @param json the index as it is; undefined where there is none
 */
export function withReferrer(json: string | undefined, added: Referrer, what: string): string | undefined {
  const existing = json === undefined ? [] : parseReferrers(json, what)
  if (existing.some(({ digest }) => digest === added.digest)) return undefined
  const stored = json === undefined ? [] : rawEntries(json, what)
  return formatIndex([...stored, entryOf(added)])
}

/** An index of these referrers: see {@link parseReferrers}. */
export function formatReferrers(referrers: readonly Referrer[]): string {
  return formatIndex(referrers.map(entryOf))
}

function formatIndex(manifests: readonly unknown[]): string {
  return JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests })
}

function entryOf({ mediaType, digest, sizeBytes, artifactType, annotations }: Referrer): object {
  return {
    mediaType,
    digest,
    size: sizeBytes,
    ...(artifactType === undefined ? {} : { artifactType }),
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
  }
}

/** @throws invalid for what is not JSON, or whose subject is not a descriptor */
export function parsePushed(json: string): PushedManifest {
  const what = 'the manifest to push'
  const { subject, artifactType, config, annotations } = parseJsonObject(json, what)
  const type = artifactType ?? (isObject(config) ? config['mediaType'] : undefined)
  return {
    subject: subject === undefined ? undefined : parseDigest(asObject(subject, `subject of ${what}`)['digest']),
    artifactType: textOrEmpty(type) || undefined,
    annotations: textEntries(annotations),
  }
}
