import { digestHex, parseDigest, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { mediaTypes, parseManifest } from './image-manifest.ts'
import type { Referrer } from './image-storage.ts'

/** What a manifest that is pushed says of itself. */
export interface PushedManifest {
  subject: Digest | undefined
  artifactType: string | undefined
  annotations: Record<string, string>
}

/** The tag that stands for a missing API: OCI distribution spec 1.1, "Referrers Tag Schema". */
export const referrersTag = (subject: Digest): string => `sha256-${digestHex(subject)}`

export const isReferrersTag = (tag: string | undefined): boolean =>
  tag !== undefined && /^sha256-[0-9a-f]{64}$/.test(tag)

/** The entries of an index of referrers. @throws invalid for what is none */
export function parseReferrers(json: string, what: string): Referrer[] {
  const index = parseManifest(json, what)
  if (index.kind !== 'index') throw new P2pfsError('invalid', `${what} is not an index`)
  const raw = (JSON.parse(json) as { manifests: { artifactType?: unknown; annotations?: Record<string, unknown> }[] })
    .manifests
  return index.entries.map(({ digest, mediaType, sizeBytes }, i) => {
    const { artifactType, annotations } = raw[i]!
    return {
      digest,
      mediaType,
      sizeBytes,
      artifactType: typeof artifactType === 'string' && artifactType !== '' ? artifactType : undefined,
      annotations: onlyText(annotations),
    }
  })
}

/** Those of a type; all where none is given. */
export function ofType(referrers: readonly Referrer[], artifactType: string | undefined): Referrer[] {
  return referrers.filter((referrer) => artifactType === undefined || referrer.artifactType === artifactType)
}

/** The index with one more entry; undefined where it is there already. @param json the index as it is; undefined where there is none */
export function withReferrer(json: string | undefined, added: Referrer, what: string): string | undefined {
  const known = json === undefined ? [] : parseReferrers(json, what)
  if (known.some(({ digest }) => digest === added.digest)) return undefined
  const { mediaType, digest, sizeBytes, artifactType, annotations } = added
  const entry = {
    mediaType,
    digest,
    size: sizeBytes,
    ...(artifactType === undefined ? {} : { artifactType }),
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
  }
  // Of others' entries, also what is not known here.
  const others = json === undefined ? [] : (JSON.parse(json) as { manifests: unknown[] }).manifests
  return JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [...others, entry] })
}

/** @throws invalid for what is not JSON, or whose subject is not a descriptor */
export function parsePushed(json: string): PushedManifest {
  let manifest: {
    subject?: { digest?: unknown }
    artifactType?: unknown
    config?: { mediaType?: unknown }
    annotations?: Record<string, unknown>
  }
  try {
    manifest = JSON.parse(json) as typeof manifest
  } catch (cause) {
    throw new P2pfsError('invalid', 'the manifest to push is not JSON', { cause })
  }
  const type = manifest.artifactType ?? manifest.config?.mediaType
  return {
    subject: manifest.subject === undefined ? undefined : parseDigest(manifest.subject.digest),
    artifactType: typeof type === 'string' && type !== '' ? type : undefined,
    annotations: onlyText(manifest.annotations),
  }
}

function onlyText(annotations: Record<string, unknown> | undefined): Record<string, string> {
  return Object.fromEntries(
    Object.entries(annotations ?? {}).filter((pair): pair is [string, string] => typeof pair[1] === 'string'),
  )
}
