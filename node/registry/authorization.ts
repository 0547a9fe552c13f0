import { P2pfsError } from '../../protocol/errors.ts'
import type { Credentials } from './credentials.ts'
import type { HttpClient } from './http-client.ts'

/** A WWW-Authenticate challenge: RFC 9110, section 11.6.1. */
export interface Challenge {
  scheme: string
  parameters: Map<string, string>
}

/** Renewed so long before it ends, milliseconds. */
const marginMs = 10_000
/** What the token specification says where the answer does not. */
const defaultLifeSeconds = 60

export function parseChallenge(header: string): Challenge | undefined {
  const match = /^\s*([A-Za-z]+)\s*(.*)$/s.exec(header)
  if (match === null) return undefined
  const parameters = new Map<string, string>()
  for (const [, key = '', quoted, plain] of match[2]!.matchAll(/([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^,\s]+))/g)) {
    parameters.set(key.toLowerCase(), quoted?.replaceAll(/\\(.)/g, '$1') ?? plain ?? '')
  }
  return { scheme: match[1]!.toLowerCase(), parameters }
}

/** What goes into the Authorization header for one repository of one registry. */
export interface Authorization {
  header: string
  expiresAtMs: number
}

/**
 * Answers a challenge: basic, or a token from the service that it names (distribution's token specification).
 * @throws denied where the registry wants credentials that there are not, or does not accept those there are
 */
export async function authorize(
  challenge: Challenge | undefined,
  scope: string,
  registry: string,
  credentials: Credentials | undefined,
  http: HttpClient,
  { signal, now, secure }: { signal: AbortSignal; now: () => number; secure: boolean },
): Promise<Authorization> {
  const login = `docker login ${registry === 'docker.io' ? '' : registry}`.trim()
  if (challenge?.scheme === 'basic') {
    if (credentials === undefined || credentials.username === '') throw new P2pfsError('denied', `${registry} wants credentials; give them with ${login} as the daemon's user`, { registry })
    return { header: basic(credentials), expiresAtMs: Number.POSITIVE_INFINITY }
  }
  const realm = challenge?.parameters.get('realm')
  if (challenge?.scheme !== 'bearer' || realm === undefined || !URL.canParse(realm)) {
    throw new P2pfsError('denied', `${registry} refuses access and offers no way to log in that is known here`, { registry })
  }
  if (secure && new URL(realm).protocol !== 'https:') {
    throw new P2pfsError('denied', `${registry} sends credentials to ${realm}, in clear; that is done only for --insecure-registry`, { registry })
  }
  const service = challenge.parameters.get('service') ?? ''
  const wanted = challenge.parameters.get('scope') ?? scope
  const { status, body } =
    credentials?.identityToken === undefined
      ? await getToken(realm, service, wanted, credentials, http, signal)
      : await postToken(realm, service, wanted, credentials.identityToken, http, signal)
  if (status === 401 || status === 403 || status === 400) {
    throw new P2pfsError('denied', `${new URL(realm).host} gives no token for ${wanted}: ${credentials === undefined ? `log in with ${login}` : `the credentials are not accepted; renew them with ${login}`}`, { registry })
  }
  if (status !== 200) throw new P2pfsError('unavailable', `${new URL(realm).host} answers ${status} to the request for a token`, { registry })
  const { token, life } = parseToken(body)
  if (token === undefined) throw new P2pfsError('unavailable', `${new URL(realm).host} answers without a token`, { registry })
  return { header: `Bearer ${token}`, expiresAtMs: now() + life * 1000 - marginMs }
}

/** What the specification says, and OAuth2's name for the same; a token is what may stand in a header (RFC 6750, section 2.1). */
function parseToken(body: string): { token: string | undefined; life: number } {
  let answer: { token?: unknown; access_token?: unknown; expires_in?: unknown }
  try {
    answer = (JSON.parse(body) ?? {}) as typeof answer
  } catch {
    return { token: undefined, life: 0 }
  }
  const token = [answer.token, answer.access_token].find((one): one is string => typeof one === 'string' && /^[\x21-\x7e]+$/.test(one))
  const life = answer.expires_in
  return { token, life: typeof life === 'number' && Number.isSafeInteger(life) && life >= 0 ? life : defaultLifeSeconds }
}

const basic = ({ username, password }: Credentials): string => `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`

async function getToken(realm: string, service: string, scope: string, credentials: Credentials | undefined, http: HttpClient, signal: AbortSignal): Promise<{ status: number; body: string }> {
  const url = new URL(realm)
  if (service !== '') url.searchParams.set('service', service)
  url.searchParams.set('scope', scope)
  return await http.text(url, { method: 'GET', headers: credentials === undefined ? {} : { authorization: basic(credentials) }, signal })
}

async function postToken(realm: string, service: string, scope: string, identityToken: string, http: HttpClient, signal: AbortSignal): Promise<{ status: number; body: string }> {
  const form = new URLSearchParams({ grant_type: 'refresh_token', service, scope, client_id: 'p2pfs', refresh_token: identityToken })
  return await http.text(new URL(realm), {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: form.toString(),
    signal,
  })
}
