import { BoundedMap } from '../base/bounded-map.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import { SingleFlight } from '../base/single-flight.ts'
import { authorize, type Authorization, type AuthorizeParts } from './authorization.ts'
import { chooseChallenge, type Challenge } from './challenge.ts'
import type { Caller } from './caller.ts'
import type { Credentials, CredentialStore } from './credential-store.ts'
import type { HttpResponse } from './http-messages.ts'
import type { Reach } from './reach.ts'
import type { ServerTls } from './tls-settings.ts'

/** Repositories, each by each caller, whose authorizations are remembered: a token has a few KB. */
const maxAuthorizations = 1024
/** A server that names no way to log in at the root of its API is not asked there again for this long (ms). */
const openMs = 60_000
/** After fresh credentials were refused with 403, the credential helper is not asked again for this long (ms). */
const refusalMs = 5_000

export type RegistryAction = 'pull' | 'pull,push'

export interface AccessRequest {
  /** Credentials are looked up by this name, and messages use it: HOST or HOST:PORT. */
  registry: string
  /** The root of the API of the server that challenges: the registry, a mirror of it, or where it redirects to. */
  base: URL
  repository: string
  action: RegistryAction
  tls?: ServerTls | undefined
  /** The addresses that connections to its token service may lead to; all by default. */
  reach?: Reach | undefined
  /** The caller whose credentials and tokens are used, in place of this host's. */
  caller?: Caller | undefined
  /** True: the server gets no credentials of anybody, and may give a token to anybody. */
  isAnonymous?: boolean
  signal: AbortSignal
}

/** A request that a server refused. */
export interface RefusedAccess {
  /** The header that was sent, if any. */
  header: string | undefined
  /** The server is one that the registry redirects to: another registry, or a storage. */
  isForeign: boolean
}

interface Grant extends Authorization {
  challenge: Challenge | undefined
}

/** The authorizations of all servers, renewed before they end; one renewal at a time for each repository. */
export class Authorizer {
  readonly #parts: AuthorizeParts & { credentials: CredentialStore }
  readonly #grants = new BoundedMap<string, Grant>({ maxEntries: maxAuthorizations })
  readonly #renewals = new SingleFlight<string>()
  /** Repositories that fresh credentials give no access to. */
  readonly #refusals: ExpiringMap<string>
  /** Servers, by the root of their API, that want no credentials there. */
  readonly #openServers: ExpiringMap<string>

  constructor(parts: AuthorizeParts & { credentials: CredentialStore }) {
    this.#parts = parts
    this.#refusals = new ExpiringMap({ maxEntries: maxAuthorizations, now: parts.now })
    this.#openServers = new ExpiringMap({ maxEntries: maxAuthorizations, now: parts.now })
  }

  /**
   * The header to send, renewed where it is about to end; undefined as long as the server has asked for none.
   * @throws as {@link authorize}
   */
  async header(request: AccessRequest): Promise<string | undefined> {
    const grant = this.#grants.get(keyOf(request))
    if (grant === undefined) return undefined
    return this.current(request) ?? (await this.#renew(request, grant.challenge))
  }

  /** The header that was given last, as long as it is good. */
  current(request: AccessRequest): string | undefined {
    const grant = this.#grants.get(keyOf(request))
    return grant !== undefined && grant.expiresAtMs > this.#parts.now() ? grant.header : undefined
  }

  /**
   * Answers a refusal with other credentials, or with a fresh token.
   * @returns whether to send the request again
   * @throws as {@link authorize}
   */
  async answer(
    request: AccessRequest,
    { status, headers }: Pick<HttpResponse, 'status' | 'headers'>,
    { header, isForeign }: RefusedAccess,
  ): Promise<boolean> {
    const key = keyOf(request)
    if (status === 404 && (header !== undefined || isForeign)) return false
    // A registry does not choose another one that is written to with the credentials for that one.
    if (isForeign && request.action !== 'pull') return false
    const current = this.current(request)
    // Another request may have renewed it in the meantime.
    if (current !== undefined && current !== header) return true
    const offered = chooseChallenge(headers) ?? this.#grants.get(key)?.challenge
    const challenge = offered ?? (header === undefined && !isForeign ? await this.#askRoot(request, status) : undefined)
    // A storage refuses a URL that has expired with 401 or 403, and offers no way to log in.
    if (challenge === undefined && (isForeign || status !== 401)) return false
    // 403 may mean that a password or a token has expired: ECR says so after 12 hours.
    if (status === 403 && this.#refusals.has(key)) return false
    const fresh = await this.#renew(request, challenge)
    if (fresh === header) this.refusedAgain(request, { status })
    return fresh !== header
  }

  /** Called when fresh credentials are refused like the ones before. */
  refusedAgain(request: AccessRequest, { status }: Pick<HttpResponse, 'status'>): void {
    if (status === 403) this.#refusals.set(keyOf(request), true, refusalMs)
  }

  /**
   * The challenge at the root of the API. Some registries hide what is private: they answer 404 or 403 to requests
   * without credentials, and name a way to log in only there. Without credentials they are not asked.
   */
  async #askRoot(request: AccessRequest, status: number): Promise<Challenge | undefined> {
    const { base, tls, reach, signal } = request
    if ((status !== 404 && status !== 403) || this.#openServers.has(base.href)) return undefined
    if ((await this.#credentials(request, signal)) === undefined) return undefined
    try {
      const answer = await this.#parts.http.text(base, {
        method: 'GET',
        headers: {},
        subject: 'the root of its API',
        tls,
        reach,
        signal,
      })
      const challenge = answer.status === 401 ? chooseChallenge(answer.headers) : undefined
      if (challenge === undefined) this.#openServers.set(base.href, true, openMs)
      return challenge
    } catch {
      signal.throwIfAborted()
      // The refusal is the better error, and the next one is not to wait for the root again.
      this.#openServers.set(base.href, true, openMs)
      return undefined
    }
  }

  async #credentials(
    { registry, repository, caller, isAnonymous = false }: AccessRequest,
    signal: AbortSignal,
  ): Promise<Credentials | undefined> {
    if (isAnonymous) return undefined
    return await (caller ?? this.#parts.credentials).find(registry, { repository, signal })
  }

  async #renew(request: AccessRequest, challenge: Challenge | undefined): Promise<string> {
    const { registry, base, repository, action, tls, reach, caller } = request
    const key = keyOf(request)
    return await this.#renewals.run(key, request.signal, async (signal) => {
      const fresh = await authorize(challenge, this.#parts, {
        scope: `repository:${repository}:${action}`,
        registry,
        credentials: await this.#credentials(request, signal),
        isSecure: base.protocol === 'https:',
        isCaller: caller !== undefined,
        tls,
        reach,
        signal,
      })
      this.#grants.set(key, { ...fresh, challenge })
      return fresh.header
    })
  }
}

/** A token is for whoever's credentials have got it. */
const keyOf = ({ base, repository, action, caller }: AccessRequest): string =>
  `${caller?.key ?? ''} ${base.href}${repository}:${action}`
