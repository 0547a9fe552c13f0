import { P2pfsError } from '../../protocol/errors.ts'
import { SingleFlight } from '../base/single-flight.ts'
import type { Credentials } from './credentials.ts'
import type { Headers, HttpClient } from './http-client.ts'
import { parseRetryAfter } from './refusal.ts'

/** A WWW-Authenticate challenge: RFC 9110, section 11.6.1. */
export interface Challenge {
  scheme: string
  parameters: Map<string, string>
}

/** Renewed so long before it ends, milliseconds; a token that is short-lived, after so much of its life. */
const marginMs = 10_000
const usedLife = 0.8
/** A token is asked for again after this, whatever its service says: by then a password may be another, milliseconds. */
const maxLifeMs = 24 * 3600 * 1000
/** Repositories whose tokens are remembered. */
const maxAuthorizations = 256
/** What the token specification says where the answer does not. */
const defaultLifeSeconds = 60

export function parseChallenge(header: string): Challenge | undefined {
  const match = /^\s*([A-Za-z]+)\s*(.*)$/s.exec(header)
  if (match === null) return undefined
  const parameters = new Map<string, string>()
  for (const [, key = '', quoted, plain] of match[2]!.matchAll(
    /([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^,\s]+))/g,
  )) {
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
    if (credentials === undefined || credentials.username === '')
      throw new P2pfsError('denied', `${registry} wants credentials; give them with ${login} as the daemon's user`, {
        registry,
      })
    return { header: basic(credentials), expiresAtMs: Number.POSITIVE_INFINITY }
  }
  const realm = challenge?.parameters.get('realm')
  if (challenge?.scheme !== 'bearer' || realm === undefined || !URL.canParse(realm)) {
    throw new P2pfsError('denied', `${registry} refuses access and offers no way to log in that is known here`, {
      registry,
    })
  }
  if (secure && new URL(realm).protocol !== 'https:') {
    throw new P2pfsError(
      'denied',
      `${registry} sends credentials to ${new URL(realm).host}, in clear; that is done only for --insecure-registry`,
      { registry },
    )
  }
  const service = challenge.parameters.get('service') ?? ''
  const wanted = challenge.parameters.get('scope') ?? scope
  const { status, headers, body } =
    credentials?.identityToken === undefined
      ? await getToken(realm, service, wanted, credentials, http, signal)
      : await postToken(realm, service, wanted, credentials.identityToken, http, signal)
  if (status === 401 || status === 403 || status === 400) {
    throw new P2pfsError(
      'denied',
      `${new URL(realm).host} gives no token for ${wanted}: ${credentials === undefined ? `log in with ${login}` : `the credentials are not accepted; renew them with ${login}`}`,
      { registry },
    )
  }
  if (status !== 200) {
    const retryAfterMs = parseRetryAfter(headers, now())
    throw new P2pfsError(
      status === 429 ? 'busy' : 'unavailable',
      `${new URL(realm).host} answers ${status} to the request for a token`,
      { registry, retryAfterMs },
    )
  }
  const { token, life } = parseToken(body)
  if (token === undefined)
    throw new P2pfsError('unavailable', `${new URL(realm).host} answers without a token`, { registry })
  return { header: `Bearer ${token}`, expiresAtMs: now() + usableMs(life * 1000) }
}

const usableMs = (lifeMs: number): number => Math.min(Math.max(lifeMs - marginMs, lifeMs * usedLife), maxLifeMs)

/** What the specification says, and OAuth2's name for the same; a token is what may stand in a header (RFC 6750, section 2.1). */
function parseToken(body: string): { token: string | undefined; life: number } {
  let answer: { token?: unknown; access_token?: unknown; expires_in?: unknown }
  try {
    answer = (JSON.parse(body) ?? {}) as typeof answer
  } catch {
    return { token: undefined, life: 0 }
  }
  const token = [answer.token, answer.access_token].find(
    (one): one is string => typeof one === 'string' && /^[\x21-\x7e]+$/.test(one),
  )
  const life = answer.expires_in
  return {
    token,
    life: typeof life === 'number' && Number.isSafeInteger(life) && life >= 0 ? life : defaultLifeSeconds,
  }
}

const basic = ({ username, password }: Credentials): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`

async function getToken(
  realm: string,
  service: string,
  scope: string,
  credentials: Credentials | undefined,
  http: HttpClient,
  signal: AbortSignal,
): Promise<{ status: number; headers: Headers; body: string }> {
  const url = new URL(realm)
  if (service !== '') url.searchParams.set('service', service)
  url.searchParams.set('scope', scope)
  return await http.text(url, {
    method: 'GET',
    headers: credentials === undefined ? {} : { authorization: basic(credentials) },
    signal,
  })
}

async function postToken(
  realm: string,
  service: string,
  scope: string,
  identityToken: string,
  http: HttpClient,
  signal: AbortSignal,
): Promise<{ status: number; headers: Headers; body: string }> {
  const form = new URLSearchParams({
    grant_type: 'refresh_token',
    service,
    scope,
    client_id: 'p2pfs',
    refresh_token: identityToken,
  })
  return await http.text(new URL(realm), {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: form.toString(),
    // It has the credentials in it.
    redirects: 'own',
    signal,
  })
}

export interface AccessRequest {
  /** What credentials are looked up by, and what messages name: HOST or HOST:PORT. */
  registry: string
  /** Tells apart who challenges: the origin of registry or mirror. */
  origin: string
  repository: string
  action: 'pull' | 'pull,push'
  signal: AbortSignal
}

interface KnownAccess extends Authorization {
  challenge: Challenge | undefined
}

/** The authorizations that there are, renewed before they end; one renewal at a time for each repository. */
export class Authorizer {
  readonly #http: HttpClient
  readonly #credentials: { find: (registry: string) => Promise<Credentials | undefined> }
  readonly #now: () => number
  readonly #known = new Map<string, KnownAccess>()
  readonly #renewals = new SingleFlight<string>()

  constructor({
    http,
    credentials,
    now,
  }: {
    http: HttpClient
    credentials: { find: (registry: string) => Promise<Credentials | undefined> }
    now: () => number
  }) {
    this.#http = http
    this.#credentials = credentials
    this.#now = now
  }

  /** The header to send, renewed where it is about to end; undefined where none has been asked for. @throws as {@link authorize} */
  async header(request: AccessRequest): Promise<string | undefined> {
    const known = this.#known.get(keyOf(request))
    if (known === undefined || known.expiresAtMs > this.#now()) return known?.header
    return await this.#renew(request, known.challenge)
  }

  /** After a 401: the header to try once more with. @param refused what was sent, if anything */
  async answer(request: AccessRequest, headers: Headers, refused: string | undefined): Promise<string> {
    const known = this.#known.get(keyOf(request))
    // Somebody else has renewed it in the meantime.
    if (known !== undefined && known.header !== refused && known.expiresAtMs > this.#now()) return known.header
    const challenges = [headers['www-authenticate']].flat().flatMap((header) => parseChallenge(header ?? '') ?? [])
    return await this.#renew(
      request,
      challenges.find(({ scheme }) => scheme === 'bearer' || scheme === 'basic') ?? challenges[0],
    )
  }

  async #renew(request: AccessRequest, challenge: Challenge | undefined): Promise<string> {
    const { registry, origin, repository, action } = request
    const key = keyOf(request)
    return await this.#renewals.run(key, request.signal, async (signal) => {
      const secure = origin.startsWith('https:')
      const fresh = await authorize(
        challenge,
        `repository:${repository}:${action}`,
        registry,
        await this.#credentials.find(registry),
        this.#http,
        { signal, now: this.#now, secure },
      )
      this.#known.delete(key)
      this.#known.set(key, { ...fresh, challenge })
      if (this.#known.size > maxAuthorizations) this.#known.delete([...this.#known.keys()][0]!)
      return fresh.header
    })
  }
}

const keyOf = ({ origin, repository, action }: AccessRequest): string => `${origin}/${repository}:${action}`
