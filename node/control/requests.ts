import { isAbsolute } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ExportRequest, ImageRequest, ImportRequest, MountRequest, SeedRequest, UmountRequest } from './api.ts'
import { pullPolicies, type PullPolicy } from '../model/image.ts'

type Body = Record<string, unknown>

/** @throws invalid */
export function parseImageRequest(body: Body): ImageRequest {
  return { image: text(body, 'image'), ...optionalText(body, 'platform'), ...optionalText(body, 'format') }
}

/** @throws invalid */
export function parseSeedRequest(body: Body): SeedRequest {
  return { ...parseImageRequest(body), publish: body['publish'] === true }
}

/** @throws invalid, also for options that do not go together */
export function parseMountRequest(body: Body): MountRequest {
  const as = body['as'] ?? 'drive'
  if (as !== 'drive' && as !== 'tree') throw new P2pfsError('invalid', 'as is drive or tree')
  const writable = body['writable'] === true
  const sizes = { ...optionalSize(body, 'limitBytes'), ...optionalSize(body, 'scratchBytes') }
  if (writable && as !== 'tree')
    throw new P2pfsError(
      'invalid',
      'a drive is never writable: give the VM a second one with --scratch SIZE, or mount --as tree --writable',
    )
  if (sizes.limitBytes !== undefined && !writable)
    throw new P2pfsError('invalid', '--size limits what can be written: it goes with --writable')
  if (sizes.scratchBytes !== undefined && as !== 'drive')
    throw new P2pfsError('invalid', '--scratch is a second drive for a VM: a tree takes writes with --writable')
  return {
    ...parseImageRequest(body),
    directory: path(body, 'directory'),
    as,
    writable,
    ...sizes,
    pull: parsePullPolicy(body['pull']),
  }
}

function parsePullPolicy(value: unknown = 'auto'): PullPolicy {
  const policy = pullPolicies.find((known) => known === value)
  if (policy === undefined) throw new P2pfsError('invalid', `pull is one of ${pullPolicies.join(', ')}`)
  return policy
}

/** @throws invalid */
export function parseDirectoryRequest(body: Body): UmountRequest {
  return { directory: path(body, 'directory') }
}

/** @throws invalid */
export function parseImportRequest(body: Body): ImportRequest {
  const source = text(body, 'source')
  if (!source.startsWith('oci:') && !isAbsolute(source))
    throw new P2pfsError('invalid', `not an absolute path: ${source}`)
  return { source, name: text(body, 'name'), ...optionalText(body, 'platform'), ...optionalText(body, 'format') }
}

/** @throws invalid */
export function parseExportRequest(body: Body): ExportRequest {
  return { ...parseImageRequest(body), file: path(body, 'file') }
}

function text(body: Body, key: string): string {
  const value = body[key]
  if (typeof value !== 'string' || value === '') throw new P2pfsError('invalid', `request lacks ${key}`)
  return value
}

function path(body: Body, key: string): string {
  const value = text(body, key)
  if (!isAbsolute(value)) throw new P2pfsError('invalid', `not an absolute path: ${value}`)
  return value
}

function optionalText<Key extends string>(body: Body, key: Key): Partial<Record<Key, string>> {
  return body[key] === undefined ? {} : ({ [key]: text(body, key) } as Record<Key, string>)
}

function optionalSize<Key extends string>(body: Body, key: Key): Partial<Record<Key, number>> {
  const value = body[key]
  if (value === undefined) return {}
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value <= 0)
    throw new P2pfsError('invalid', `${key} is not a number of bytes`)
  return { [key]: value } as Record<Key, number>
}
