import { P2pfsError } from '../../protocol/errors.ts'
import type { Challenge } from './challenge.ts'
import type { Credentials } from './credential-store.ts'
import type { HttpClient } from './http-client.ts'
import type { HttpRequest, TextResponse } from './http-messages.ts'
import { parseJsonObject } from './json.ts'
import { loginAdvice, parseRetryAfter } from './refusal.ts'
import type { Reach } from './reach.ts'
import type { ServerTls } from './tls-settings.ts'

/** A token is renewed this long before it ends (ms). */
const marginMs = 10_000
/** A short-lived token is renewed after this part of its life. */
const usedLife = 0.8
/** A token is renewed after this, however long its service says it lives: by then the password may be another (ms). */
const maxLifeMs = 24 * 3600 * 1000
/** The life of a token whose service names none: distribution's token specification (s). */
const defaultLifeSeconds = 60

/** The value of the Authorization header for one repository of one server. */
export interface Authorization {
  header: string
  /** Milliseconds of the given clock; Infinity for a password. */
  expiresAtMs: number
}

export interface AuthorizeParts {
  http: Pick<HttpClient, 'text'>
  now: () => number
}

export interface AuthorizeOptions {
  /** For a token, where the challenge names none: `repository:NAME:pull`. */
  scope: string
  /** The server's name in messages. */
  registry: string
  credentials: Credentials | undefined
  /** Whether the credentials are those of a caller, and not this host's. */
  isCaller?: boolean
  /** Whether the server is reached by TLS: then so is its token service. */
  isSecure: boolean
  tls?: ServerTls | undefined
  reach?: Reach | undefined
  signal: AbortSignal
}

/**
 * Answers a challenge with a password, or with a token from the service that it names (distribution's token
 * specification).
 * @throws denied where the server wants credentials and there are none, or refuses those that there are
 */
export async function authorize(
  challenge: Challenge | undefined,
  parts: AuthorizeParts,
  options: AuthorizeOptions,
): Promise<Authorization> {
  const { registry, credentials, isSecure, isCaller = false } = options
  // Its owner has got a token elsewhere.
  if (credentials?.registryToken !== undefined)
    return { header: `Bearer ${credentials.registryToken}`, expiresAtMs: Number.POSITIVE_INFINITY }
  if (challenge?.scheme === 'basic') {
    if (credentials === undefined || credentials.username === '') {
      throw new P2pfsError('denied', `${registry} wants credentials: ${loginAdvice(registry, isCaller)}`, { registry })
    }
    return { header: basicHeader(credentials), expiresAtMs: Number.POSITIVE_INFINITY }
  }
  const realm = challenge?.parameters.get('realm') ?? ''
  if (challenge?.scheme !== 'bearer' || !URL.canParse(realm) || !/^https?:$/.test(new URL(realm).protocol)) {
    throw new P2pfsError('denied', `${registry} refuses access and offers no way to log in that is known here`, {
      registry,
    })
  }
  const service = new URL(realm)
  if (isSecure && service.protocol !== 'https:') {
    throw new P2pfsError(
      'denied',
      `${registry} sends credentials to ${service.host}, in clear; that is done only for --insecure-registry`,
      { registry },
    )
  }
  return await fetchToken(service, challenge.parameters, parts, options)
}

async function fetchToken(
  realm: URL,
  parameters: Challenge['parameters'],
  { http, now }: AuthorizeParts,
  { registry, credentials, isCaller = false, tls, reach, signal, scope: defaultScope }: AuthorizeOptions,
): Promise<Authorization> {
  const scope = parameters.get('scope') || defaultScope
  const request = { service: parameters.get('service') ?? '', scope }
  const options = { subject: `a token for ${registry}`, tls, reach, signal }
  const answer =
    credentials?.identityToken === undefined
      ? await getToken(realm, request, credentials, http, options)
      : await postToken(realm, request, credentials.identityToken, http, options)
  const { status } = answer
  if (status === 401 || status === 403 || status === 400) {
    const advice = loginAdvice(registry, isCaller)
    const why = credentials === undefined ? advice : `the credentials are not accepted: ${advice}`
    throw new P2pfsError('denied', `${realm.host} gives no token for ${scope}: ${why}`, { registry })
  }
  if (status !== 200) {
    throw new P2pfsError(
      status === 429 ? 'busy' : 'unavailable',
      `${realm.host} answers ${status} to the request for a token`,
      { registry, retryAfterMs: parseRetryAfter(answer.headers, now()) },
    )
  }
  const token = parseToken(answer.body)
  if (token === undefined) throw new P2pfsError('unavailable', `${realm.host} answers without a token`, { registry })
  return { header: `Bearer ${token.text}`, expiresAtMs: now() + usableMs(token.lifeSeconds * 1000) }
}

const usableMs = (lifeMs: number): number => Math.min(Math.max(lifeMs - marginMs, lifeMs * usedLife), maxLifeMs)

/**
 * `token` by the token specification, or `access_token` by OAuth2; its characters are those of RFC 6750, section 2.1.
 */
function parseToken(body: string): { text: string; lifeSeconds: number } | undefined {
  let answer
  try {
    answer = parseJsonObject(body, 'token')
  } catch {
    return undefined
  }
  const isToken = (value: unknown): value is string => typeof value === 'string' && /^[\x21-\x7e]+$/.test(value)
  const text = [answer['token'], answer['access_token']].find(isToken)
  if (text === undefined) return undefined
  const life = answer['expires_in']
  const isLife = typeof life === 'number' && Number.isSafeInteger(life) && life >= 0
  return { text, lifeSeconds: isLife ? life : defaultLifeSeconds }
}

const basicHeader = ({ username, password }: Credentials): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`

interface TokenRequest {
  service: string
  scope: string
}

async function getToken(
  realm: URL,
  { service, scope }: TokenRequest,
  credentials: Credentials | undefined,
  http: AuthorizeParts['http'],
  options: Pick<HttpRequest, 'subject' | 'tls' | 'reach' | 'signal'>,
): Promise<TextResponse> {
  const url = new URL(realm)
  if (service !== '') url.searchParams.set('service', service)
  // One parameter for each scope: distribution's token specification.
  for (const part of scope.split(' ')) url.searchParams.append('scope', part)
  return await http.text(url, {
    method: 'GET',
    headers: credentials === undefined ? {} : { authorization: basicHeader(credentials) },
    ...options,
  })
}

async function postToken(
  realm: URL,
  { service, scope }: TokenRequest,
  identityToken: string,
  http: AuthorizeParts['http'],
  options: Pick<HttpRequest, 'subject' | 'tls' | 'reach' | 'signal'>,
): Promise<TextResponse> {
  const form = new URLSearchParams({
    grant_type: 'refresh_token',
    service,
    scope,
    client_id: 'p2pfs',
    refresh_token: identityToken,
  })
  return await http.text(realm, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: form.toString(),
    // The body holds the credentials.
    redirects: 'own',
    ...options,
  })
}
