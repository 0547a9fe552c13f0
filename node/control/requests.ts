import { isAbsolute } from 'node:path'
import { P2pfsError } from '../../protocol/errors.ts'
import { pullPolicies, type PullPolicy } from '../model/image.ts'
import { maxOwnerId, type Owner } from '../model/owner.ts'
import { normalizePlatform } from '../model/platform.ts'
import type {
  Auth,
  AuthorizedRequest,
  CancelSeedRequest,
  EmptyRequest,
  DoctorRequest,
  ExportRequest,
  GcRequest,
  ImageRequest,
  ImportRequest,
  LimitsRequest,
  MountRequest,
  PinRequest,
  PushRequest,
  SeedJobRequest,
  SeedRequest,
  UmountRequest,
} from './api.ts'

/** A request body: some JSON object. */
export type RequestBody = Readonly<Record<string, unknown>>

/** All parsers throw `invalid` and say what is wrong. */
export function parseBody(text: string): RequestBody {
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch {
    // The error quotes the text, which may hold a password.
    throw new P2pfsError('invalid', 'the request is not JSON')
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw new P2pfsError('invalid', 'the request is not a JSON object')
  return body as RequestBody
}

export function parseEmptyRequest(): EmptyRequest {
  return {}
}

export function parseImageRequest(body: RequestBody): ImageRequest {
  return { image: text(body, 'image'), ...optional(body, 'platform', platform), ...optional(body, 'format', text) }
}

export function parseDoctorRequest(body: RequestBody): DoctorRequest {
  return { ...optional(body, 'image', text), ...optional(body, 'platform', platform), ...optional(body, 'auth', auth) }
}

export function parseAuthorizedRequest(body: RequestBody): AuthorizedRequest {
  return { ...parseImageRequest(body), ...optional(body, 'auth', auth) }
}

/** Texts that an `auth` object has. */
const authFields = ['username', 'password', 'identityToken', 'registryToken'] as const
/** A token of a cloud registry has some thousand characters. */
const maxAuthLength = 16 * 1024

/** No error quotes what is in it. */
function auth(body: RequestBody, key: string): Auth {
  const given = body[key]
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw new P2pfsError('invalid', `${key} is not an object: {"username": ..., "password": ...}`)
  const fields = Object.entries(given)
  const isRight = ([name, value]: [string, unknown]): boolean =>
    authFields.some((field) => field === name) && typeof value === 'string' && value.length <= maxAuthLength
  if (!fields.every(isRight)) throw new P2pfsError('invalid', `${key} takes texts for ${authFields.join(', ')}`)
  const { username = '', identityToken, registryToken } = given as Auth
  if (fields.length > 0 && username === '' && !identityToken && !registryToken)
    throw new P2pfsError('invalid', `${key} needs a username, or a token`)
  return given
}

export function parseSeedRequest(body: RequestBody): SeedRequest {
  return {
    ...parseAuthorizedRequest(body),
    ...optional(body, 'publish', flag),
    ...optional(body, 'as', uses),
  }
}

function uses(body: RequestBody, key: string): ('drive' | 'tree')[] {
  const value = body[key]
  if (body['format'] !== undefined)
    throw new P2pfsError('invalid', '--as names the formats of drives and trees, so it excludes --format')
  const isUse = (use: unknown): use is 'drive' | 'tree' => use === 'drive' || use === 'tree'
  if (!Array.isArray(value) || value.length === 0 || !value.every(isUse))
    throw new P2pfsError('invalid', '--as takes drive, tree, or both: drive,tree')
  return value
}

/** Hosts that one seed can be for. */
const maxSeedHosts = 1024

/** Also refuses options that do not go together. */
export function parseSeedJobRequest(body: RequestBody): SeedJobRequest {
  const places = { ...optional(body, 'copies', copies), ...optional(body, 'on', hosts) }
  if (places.copies !== undefined && places.on !== undefined)
    throw new P2pfsError(
      'invalid',
      '--copies leaves the choice of hosts to the region, --on makes it; give one of them',
    )
  return {
    ...parseAuthorizedRequest(body),
    ...places,
    ...optional(body, 'as', uses),
    ...optional(body, 'hot', flag),
    ...optional(body, 'ttlMs', time),
    ...optional(body, 'atMs', time),
    ...optional(body, 'wait', flag),
    ...optional(body, 'timeoutMs', time),
  }
}

export function parseCancelSeedRequest(body: RequestBody): CancelSeedRequest {
  return { id: text(body, 'id') }
}

function copies(body: RequestBody, key: string): number | 'all' {
  const value = body[key]
  if (value === 'all') return value
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1 || value > maxSeedHosts)
    throw new P2pfsError('invalid', `--${key} takes a number of hosts from 1 to ${maxSeedHosts}, or all`)
  return value
}

function hosts(body: RequestBody, key: string): string[] {
  const value = body[key]
  const isList = Array.isArray(value) && value.length > 0 && value.length <= maxSeedHosts
  if (!isList || !value.every((host): host is string => typeof host === 'string' && host !== ''))
    throw new P2pfsError('invalid', `--${key} takes 1 to ${maxSeedHosts} names or peer ids of hosts`)
  return value
}

function time(body: RequestBody, key: string): number {
  const value = body[key]
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value <= 0)
    throw new P2pfsError('invalid', `${key} is not a time in milliseconds`)
  return value
}

/** Also refuses options that do not go together. */
export function parseMountRequest(body: RequestBody): MountRequest {
  const as = body['as'] ?? 'drive'
  if (as !== 'drive' && as !== 'tree') throw new P2pfsError('invalid', 'as takes drive or tree')
  const { writable = false } = optional(body, 'writable', flag)
  const sizes = { ...optional(body, 'limitBytes', size), ...optional(body, 'scratchBytes', size) }
  if (writable && as !== 'tree')
    throw new P2pfsError(
      'invalid',
      'a drive is never writable: give the VM a second drive with --scratch SIZE, or mount --as tree --writable',
    )
  if (sizes.limitBytes !== undefined && !writable)
    throw new P2pfsError('invalid', '--size limits what can be written, so it needs --writable')
  if (sizes.scratchBytes !== undefined && as !== 'drive')
    throw new P2pfsError('invalid', '--scratch is a second drive for a VM; a tree takes writes with --writable')
  const rights = { ...optional(body, 'owner', owner), ...optional(body, 'allowOthers', flag) }
  if (rights.owner !== undefined && as !== 'drive')
    throw new P2pfsError(
      'invalid',
      '--owner is for a drive, which is one file; the files of a tree have the owners that the image gives them',
    )
  if (rights.allowOthers === true && as !== 'tree')
    throw new P2pfsError('invalid', '--allow-others is for a tree; --owner UID:GID lets a user open a drive')
  return {
    ...parseAuthorizedRequest(body),
    directory: path(body, 'directory'),
    as,
    writable,
    ...sizes,
    ...rights,
    pull: parsePullPolicy(body['pull']),
    ...optional(body, 'requireAccess', flag),
    ...optional(body, 'timeoutMs', time),
  }
}

function parsePullPolicy(value: unknown = 'auto'): PullPolicy {
  const policy = pullPolicies.find((candidate) => candidate === value)
  if (policy === undefined) throw new P2pfsError('invalid', `pull takes one of ${pullPolicies.join(', ')}`)
  return policy
}

export function parseDirectoryRequest(body: RequestBody): UmountRequest {
  return { directory: path(body, 'directory') }
}

export function parseImportRequest(body: RequestBody): ImportRequest {
  const source = text(body, 'source')
  const { raw = false } = optional(body, 'raw', flag)
  if (raw || !source.startsWith('oci:')) path(body, 'source')
  if (raw && body['format'] !== undefined && body['format'] !== 'raw')
    throw new P2pfsError('invalid', '--format is for a filesystem that p2pfs makes; --raw takes the one that is there')
  if (!raw && body['format'] === 'raw')
    throw new P2pfsError(
      'invalid',
      'a directory, a tar or an image is made into ext4 or erofs; --raw takes a disk image',
    )
  return {
    source,
    name: text(body, 'name'),
    ...(raw && { raw }),
    ...optional(body, 'platform', platform),
    ...optional(body, 'format', text),
  }
}

export function parsePushRequest(body: RequestBody): PushRequest {
  return {
    image: text(body, 'image'),
    target: text(body, 'target'),
    ...optional(body, 'platform', platform),
    ...optional(body, 'auth', auth),
  }
}

export function parsePinRequest(body: RequestBody): PinRequest {
  return { ...parseImageRequest(body), ...optional(body, 'ttlMs', time) }
}

export function parseGcRequest(body: RequestBody): GcRequest {
  return { ...optional(body, 'dryRun', flag) }
}

export function parseLimitsRequest(body: RequestBody): LimitsRequest {
  const rates = (of: RequestBody, key: string): NonNullable<LimitsRequest['set']> => {
    const value = of[key]
    if (typeof value !== 'object' || value === null || !Object.values(value).every((rate) => typeof rate === 'string'))
      throw new P2pfsError('invalid', `${key} is not an object of rates: {"upload": "200Mbit"}`)
    return value
  }
  return { ...optional(body, 'set', rates), ...optional(body, 'reset', flag) }
}

export function parseExportRequest(body: RequestBody): ExportRequest {
  return { ...parseImageRequest(body), file: path(body, 'file') }
}

function text(body: RequestBody, key: string): string {
  const value = body[key]
  if (typeof value !== 'string' || value === '') throw new P2pfsError('invalid', `the request needs a text for ${key}`)
  return value
}

function platform(body: RequestBody, key: string): string {
  return normalizePlatform(text(body, key))
}

function path(body: RequestBody, key: string): string {
  const value = text(body, key)
  if (!isAbsolute(value)) throw new P2pfsError('invalid', `${key} is not an absolute path: ${value}`)
  return value
}

function flag(body: RequestBody, key: string): boolean {
  const value = body[key]
  if (typeof value !== 'boolean') throw new P2pfsError('invalid', `${key} is neither true nor false`)
  return value
}

function size(body: RequestBody, key: string): number {
  const value = body[key]
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value <= 0)
    throw new P2pfsError('invalid', `${key} is not a number of bytes`)
  return value
}

function owner(body: RequestBody, key: string): Owner {
  const { uid, gid } = (body[key] ?? {}) as Record<string, unknown>
  if (!isId(uid) || !isId(gid))
    throw new P2pfsError('invalid', `${key} is not a user and a group: {"uid": 1000, "gid": 1000}`)
  return { uid, gid }
}

const isId = (value: unknown): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= maxOwnerId

/** An object with the key if the body has it, otherwise an empty one. */
function optional<Key extends string, Value>(
  body: RequestBody,
  key: Key,
  parse: (body: RequestBody, key: string) => Value,
): Partial<Record<Key, Value>> {
  return body[key] === undefined ? {} : ({ [key]: parse(body, key) } as Record<Key, Value>)
}
