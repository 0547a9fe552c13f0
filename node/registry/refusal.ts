import { P2pfsError } from '../../protocol/errors.ts'
import { headerOf, type Headers, type HttpResponse } from './http-messages.ts'
import { proxyRefusal } from './transport-error.ts'

/** A request that a registry refused. */
export interface RefusedRequest {
  /** HOST or HOST:PORT. */
  registry: string
  repository: string
  /** `blobs/sha256:...`, `manifests/latest`. */
  path: string
  isPush: boolean
  /** The answer comes from the storage that the registry redirects to. */
  isFromStorage: boolean
  /** The request was sent for a caller, not with this host's credentials. */
  isCaller?: boolean
}

/** The command that gives credentials for a registry. */
export const loginCommand = (registry: string): string =>
  registry === 'docker.io' ? 'docker login' : `docker login ${registry}`

/** Advice about credentials that are missing, or not accepted. */
export const loginAdvice = (registry: string, isCaller: boolean): string =>
  isCaller
    ? `give credentials for ${registry} that may read the image, with --authfile or --creds-stdin`
    : `log in with ${loginCommand(registry)} as the daemon's user`

/** The error for an answer that is not a success, in terms of what to do. */
export function refusal(
  { registry, repository, path, isPush, isFromStorage, isCaller = false }: RefusedRequest,
  { status, headers }: Pick<HttpResponse, 'status' | 'headers'>,
  nowMs: number,
): P2pfsError {
  const details = { registry, status }
  const retryAfterMs = parseRetryAfter(headers, nowMs)
  if (isFromStorage && [400, 401, 403, 404, 410].includes(status)) {
    return new P2pfsError(
      'unavailable',
      `the storage that ${registry} redirects to answers ${status} for ${path}: ` +
        'the URL that it gives out may have expired',
      details,
    )
  }
  if (status === 407) return proxyRefusal(registry, details)
  if (status === 401 || status === 403) {
    const [what, who] = isPush ? ['to take', ', as somebody who may push there'] : ['access to', '']
    return new P2pfsError(
      'denied',
      `${registry} refuses ${what} ${registry}/${repository}: ${loginAdvice(registry, isCaller)}${who}`,
      details,
    )
  }
  if (status === 404) {
    if (!isPush && path.startsWith('manifests/')) return noImage(registry, repository, path.slice(10), details)
    const why = isPush
      ? `repository ${repository}, or not what the manifest is made of: create it, or check the name`
      : `${path} of ${repository}: check the name and the tag`
    return new P2pfsError('missing', `${registry} has no ${why}`, details)
  }
  if (isPush && status === 405)
    return new P2pfsError('unsupported', `${registry} takes nothing that is pushed`, details)
  const when = retryAfterMs === undefined ? 'later' : `in ${Math.ceil(retryAfterMs / 1000)} s`
  if (status === 429) {
    return new P2pfsError(
      'busy',
      `${registry} asks to slow down (429); try again ${when}, or log in for a higher limit`,
      { ...details, retryAfterMs },
    )
  }
  if (status === 408 || status === 425 || status >= 500)
    return new P2pfsError('unavailable', `${registry} answers ${status}; try again ${when}`, {
      ...details,
      retryAfterMs,
    })
  return new P2pfsError('invalid', `${registry} answers ${status} for ${path} of ${repository}`, details)
}

/** The error for a manifest that is not there. */
function noImage(registry: string, repository: string, name: string, details: object): P2pfsError {
  const [what, check] = name.includes(':') ? ['image', 'the digest'] : ['tag', 'the tag']
  return new P2pfsError(
    'missing',
    `${registry} has no ${what} ${name} of ${repository}, or no such repository: check the name and ${check}`,
    { ...details },
  )
}

/** Retry-After, seconds or an HTTP date: RFC 9110, section 10.2.3 (ms). */
export function parseRetryAfter(headers: Headers, nowMs: number): number | undefined {
  const text = headerOf(headers, 'retry-after')
  if (text === undefined) return undefined
  // A date is by the clock of the server that gives it.
  const serverMs = Date.parse(headerOf(headers, 'date') ?? '')
  const ms = /^\d{1,9}$/.test(text)
    ? Number(text) * 1000
    : Date.parse(text) - (Number.isNaN(serverMs) ? nowMs : serverMs)
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined
}
