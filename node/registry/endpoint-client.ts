import type { AccessRequest, Authorizer, RegistryAction } from './authorizer.ts'
import { endpointName, endpointUrl, repositoryAt, type Endpoint } from './endpoint.ts'
import type { HttpClient } from './http-client.ts'
import type { HttpRequest, HttpResponse } from './http-messages.ts'
import type { RegistryReference } from './reference.ts'
import type { Reach } from './reach.ts'
import { refusal } from './refusal.ts'

export interface EndpointRequest extends Omit<HttpRequest, 'subject'> {
  /** By default the path and the repository. */
  subject?: string
  /** Answers with another status are thrown. */
  statuses: readonly number[]
  /** `pull` by default. */
  action?: RegistryAction
}

export interface EndpointClientParts {
  http: Pick<HttpClient, 'send' | 'pause'>
  authorizer: Pick<Authorizer, 'header' | 'current' | 'answer' | 'refusedAgain'>
  now: () => number
  /** Whether a server, HOST or HOST:PORT, may be sent credentials in clear: by default none but the endpoints. */
  isInsecure?: (host: string) => boolean
  /**
   * Given where requests are sent for others: where those to a server may lead to. Then the servers that it redirects to
   * get no credentials of this host.
   */
  reachOf?: (endpoint: Endpoint, image: RegistryReference) => Promise<Reach>
}

/** Requests to the servers of registries, with the authorization that each server wants. */
export class EndpointClient {
  readonly #parts: EndpointClientParts

  constructor(parts: EndpointClientParts) {
    this.#parts = parts
  }

  /**
   * Sends a request, and once more to each origin that refuses it and accepts other credentials. A registry may
   * redirect to another one, which has its own.
   * @param target a path below the repository, or a URL that the server gave
   * @throws as {@link refusal} describes; as {@link HttpClient.send} and {@link authorize} do
   */
  async send(
    endpoint: Endpoint,
    image: RegistryReference,
    target: string | URL,
    { statuses, action = 'pull', subject, ...options }: EndpointRequest,
  ): Promise<HttpResponse> {
    const { http, now, reachOf, isInsecure = () => false } = this.#parts
    const { repository, caller } = image
    const reach = await reachOf?.(endpoint, image)
    const path = typeof target === 'string' ? target : 'an upload'
    const request = { ...options, subject: subject ?? `${path} of ${repository}` }
    const url = typeof target === 'string' ? endpointUrl(endpoint, repository, target) : target
    const { tls: settings, base } = endpoint
    const tls = settings === undefined ? undefined : { hostname: base.hostname, settings }
    const accessTo = (origin: string): AccessRequest => {
      const isOwn = origin === base.origin
      const { protocol, host } = new URL(origin)
      // A server that redirects, or somebody on the way, must not have credentials for another server sent in clear.
      const isInClear = protocol !== 'https:' && !isInsecure(host)
      return {
        registry: isOwn ? endpoint.name : endpointName(host),
        base: isOwn ? base : new URL('/v2/', origin),
        repository: isOwn ? repositoryAt(endpoint, repository) : repository,
        action,
        tls,
        reach,
        caller,
        isAnonymous: !isOwn && (isInClear || reach !== undefined || caller !== undefined),
        signal: request.signal,
      }
    }
    // The headers that the operator has given for the server may be credentials.
    const own = caller === undefined ? endpoint : { ...endpoint, headers: {} }
    const response = await this.#exchange(url, own, { ...request, tls, reach }, accessTo)
    if (statuses.includes(response.status)) return response
    await response.discard()
    const isRedirected = response.url.origin !== url.origin
    const isFromStorage = isRedirected && !isApi(response.url, target)
    const registry = isRedirected && !isFromStorage ? response.url.host : endpoint.name
    const refused = {
      registry,
      repository,
      path,
      isPush: action !== 'pull',
      isFromStorage,
      isCaller: caller !== undefined,
    }
    const error = refusal(refused, response, now())
    const { retryAfterMs } = error.details
    if (typeof retryAfterMs === 'number' && !isRedirected) http.pause(url.host, retryAfterMs)
    throw error
  }

  async #exchange(
    url: URL,
    endpoint: Endpoint,
    request: HttpRequest,
    accessTo: (origin: string) => AccessRequest,
  ): Promise<HttpResponse> {
    const { http, authorizer } = this.#parts
    const answered = new Set<string>()
    for (;;) {
      const sent = new Map([[url.origin, await authorizer.header(accessTo(url.origin))]])
      const headersFor = ({ origin }: URL): Record<string, string> => {
        if (!sent.has(origin)) sent.set(origin, authorizer.current(accessTo(origin)))
        const authorization = sent.get(origin)
        return {
          ...(origin === endpoint.base.origin ? endpoint.headers : {}),
          ...(authorization === undefined ? {} : { authorization }),
        }
      }
      const response = await http.send(url, { ...request, headersFor })
      const { origin } = response.url
      const isRefusal = [401, 403, 404].includes(response.status)
      if (isRefusal && answered.has(origin)) authorizer.refusedAgain(accessTo(origin), response)
      if (!isRefusal || answered.has(origin)) return response
      answered.add(origin)
      const refused = { header: sent.get(origin), isForeign: origin !== endpoint.base.origin }
      // An answer holds a connection, which the token service may need.
      await response.discard()
      if (!(await authorizer.answer(accessTo(origin), response, refused))) return response
    }
  }
}

/** Whether a registry answers, and not a storage that has the bytes at a path of its own. */
function isApi({ pathname }: URL, target: string | URL): boolean {
  return pathname.startsWith('/v2/') && (typeof target !== 'string' || pathname.endsWith(`/${target}`))
}
