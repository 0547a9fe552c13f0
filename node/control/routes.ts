import { endpoints, type Method } from './endpoints.ts'
import type { Operation, OperationName, OperationOptions, Operations, RequestOf } from './operations.ts'
import { HttpError } from './problem.ts'
import {
  parseAuthorizedRequest,
  parseCancelSeedRequest,
  parseDirectoryRequest,
  parseDoctorRequest,
  parseEmptyRequest,
  parseExportRequest,
  parseGcRequest,
  parseImageRequest,
  parseImportRequest,
  parseLimitsRequest,
  parseMountRequest,
  parsePinRequest,
  parsePushRequest,
  parseSeedJobRequest,
  parseSeedRequest,
  type RequestBody,
} from './requests.ts'
import { asUsage } from './usage.ts'

/** Parses the fields of a request. All throw `invalid` for what does not parse. */
type Parsers = { [Name in OperationName]: (fields: RequestBody) => RequestOf<Name> }

const parsers: Parsers = {
  status: parseEmptyRequest,
  listMounts: parseEmptyRequest,
  mount: parseMountRequest,
  umount: parseDirectoryRequest,
  reset: parseDirectoryRequest,
  placeSeed: parseSeedJobRequest,
  listSeeds: parseEmptyRequest,
  cancelSeed: parseCancelSeedRequest,
  seed: parseSeedRequest,
  import: parseImportRequest,
  push: parsePushRequest,
  export: parseExportRequest,
  inspect: parseImageRequest,
  verify: parseAuthorizedRequest,
  doctor: parseDoctorRequest,
  limits: parseEmptyRequest,
  changeLimits: parseLimitsRequest,
  listImages: parseEmptyRequest,
  removeImage: parseImageRequest,
  pin: parsePinRequest,
  unpin: parseImageRequest,
  gc: parseGcRequest,
}

/** A request of the API: what it asks for, and the fields that its path has. */
export interface Route {
  method: Method
  name: OperationName
  parameters: Record<string, string>
}

interface Pattern {
  method: Method
  name: OperationName
  path: RegExp
}

const patterns: readonly Pattern[] = Object.entries(endpoints).map(([name, [method, path]]) => ({
  method,
  name: name as OperationName,
  path: new RegExp(`^${path.replaceAll('.', '\\.').replace(/\{(\w+)\}/g, '(?<$1>[^/]+)')}$`),
}))

/**
 * Finds what a request asks for.
 * @param path without the query
 * @throws HttpError: missing for a path that there is not, unsupported for a method that the path does not have
 */
export function findRoute(method: string, path: string): Route {
  const matches = patterns.filter((pattern) => pattern.path.test(path))
  // As RFC 9110 has it: the same answer without its content, which Node's server leaves out.
  const wanted = method === 'HEAD' ? 'GET' : method
  const found = matches.find((pattern) => pattern.method === wanted)
  if (found !== undefined) {
    const groups = found.path.exec(path)?.groups ?? {}
    return { method: found.method, name: found.name, parameters: mapValues(groups, decode) }
  }
  if (matches.length === 0) throw noSuchPath(path)
  const allowed = matches
    .map((pattern) => pattern.method)
    .flatMap((each) => (each === 'GET' ? ['GET', 'HEAD'] : [each]))
  throw new HttpError('unsupported', `${path} takes ${allowed.join(', ')}, not ${method}`, 405, {
    allow: allowed.join(', '),
  })
}

/**
 * Parses the fields of a request and runs its operation.
 * @param begin is called between the two
 * @throws invalid for fields that do not parse; what the operation throws
 */
export async function runOperation(
  operations: Operations,
  name: OperationName,
  fields: RequestBody,
  options: OperationOptions,
  begin: () => void,
): Promise<object> {
  const request = asUsage(() => parsers[name](fields))
  begin()
  // The parser of a name makes the request that the operation of that name takes.
  const operation: Operation<never, object> = operations[name]
  return await operation.run(request as never, options)
}

function noSuchPath(path: string): HttpError {
  const version = /^\/(v\d+)(?:\/|$)/.exec(path)?.[1]
  const why =
    version === undefined || version === 'v1'
      ? 'all paths are in /v1/openapi.json'
      : `this daemon speaks v1 of the API, not ${version}`
  return new HttpError('missing', `no such path: ${path}; ${why}`)
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new HttpError('invalid', `not a part of a path: ${text}`)
  }
}

function mapValues(record: Record<string, string>, map: (value: string) => string): Record<string, string> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value)]))
}
