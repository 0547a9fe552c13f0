import { P2pfsError } from '../../protocol/errors.ts'
import type { Headers, HttpResponse } from './http-client.ts'

export interface Asked {
  /** HOST or HOST:PORT. */
  registry: string
  repository: string
  /** `blobs/sha256:...`, `manifests/latest`. */
  path: string
  isPush: boolean
}

/** The error for an answer that is no success, in terms of what to do. */
export function refusal(
  { registry, repository, path, isPush }: Asked,
  { status, headers, redirected }: Pick<HttpResponse, 'status' | 'headers' | 'redirected'>,
  nowMs: number,
): P2pfsError {
  const what = `${registry}/${repository}`
  const details = { registry, status }
  const retryAfterMs = parseRetryAfter(headers, nowMs)
  if (redirected && [400, 401, 403, 404, 410].includes(status)) {
    return new P2pfsError(
      'unavailable',
      `the storage that ${registry} redirects to answers ${status} for ${path}: the URL that it gives out may have expired`,
      details,
    )
  }
  if (status === 407)
    return new P2pfsError(
      'denied',
      `the proxy refuses to reach ${registry}: check the credentials in HTTP_PROXY and HTTPS_PROXY`,
      details,
    )
  if (status === 401 || status === 403) {
    const login = `docker login${registry === 'docker.io' ? '' : ` ${registry}`}`
    return new P2pfsError(
      'denied',
      `${registry} refuses ${isPush ? 'to take' : 'access to'} ${what}: log in with ${login} as the daemon's user${isPush ? ', as somebody who may push there' : ''}`,
      details,
    )
  }
  if (status === 404)
    return new P2pfsError(
      'missing',
      isPush
        ? `${registry} has no repository ${repository}, or not what the manifest is made of: create it, or check the name`
        : `${registry} has no ${path} of ${repository}: check the name and the tag`,
      details,
    )
  if (isPush && status === 405)
    return new P2pfsError('unsupported', `${registry} takes nothing that is pushed`, details)
  const later = retryAfterMs === undefined ? 'later' : `in ${Math.ceil(retryAfterMs / 1000)} s`
  if (status === 429)
    return new P2pfsError(
      'busy',
      `${registry} asks to slow down (429); try again ${later}, or log in for a higher limit`,
      { ...details, retryAfterMs },
    )
  if (status === 408 || status === 425 || status >= 500)
    return new P2pfsError('unavailable', `${registry} answers ${status}; try again ${later}`, {
      ...details,
      retryAfterMs,
    })
  return new P2pfsError('invalid', `${registry} answers ${status} for ${path} of ${repository}`, details)
}

/** Seconds, or an HTTP date: RFC 9110, section 10.2.3. */
export function parseRetryAfter(headers: Headers, nowMs: number): number | undefined {
  const text = [headers['retry-after']].flat()[0]
  if (text === undefined) return undefined
  // A date is by the clock of the server that gives it.
  const serverMs = Date.parse([headers['date']].flat()[0] ?? '')
  const ms = /^\d{1,9}$/.test(text)
    ? Number(text) * 1000
    : Date.parse(text) - (Number.isNaN(serverMs) ? nowMs : serverMs)
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined
}
