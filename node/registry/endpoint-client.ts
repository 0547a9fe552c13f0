import type { Authorizer, RegistryAction } from './authorizer.ts'
import type { Endpoint } from './endpoint.ts'
import type { HttpClient } from './http-client.ts'
import type { HttpRequest, HttpResponse } from './http-messages.ts'
import type { RegistryReference } from './reference.ts'
import { refusal } from './refusal.ts'

export interface EndpointRequest extends HttpRequest {
  /** Answers with another status are thrown. */
  statuses: readonly number[]
  /** `pull` by default. */
  action?: RegistryAction
}

export interface EndpointClientParts {
  http: Pick<HttpClient, 'send' | 'pause'>
  authorizer: Pick<Authorizer, 'header' | 'answer'>
  now: () => number
}

/** Requests to the servers of registries, with the authorization that each server wants. */
export class EndpointClient {
  readonly #parts: EndpointClientParts

  constructor(parts: EndpointClientParts) {
    this.#parts = parts
  }

  /**
   * @param target a path below the repository, or a URL that the server gave
   * @throws as {@link refusal} describes; as {@link HttpClient.send} and {@link authorize} do
   */
  async send(
    endpoint: Endpoint,
    { repository }: RegistryReference,
    target: string | URL,
    { statuses, action = 'pull', ...request }: EndpointRequest,
  ): Promise<HttpResponse> {
    const { http, authorizer, now } = this.#parts
    const url = typeof target === 'string' ? new URL(`${repository}/${target}`, endpoint.base) : target
    const { origin } = endpoint.base
    const access = { registry: endpoint.name, origin, repository, action, signal: request.signal }
    const isOwn = url.origin === origin
    const header = isOwn ? await authorizer.header(access) : undefined
    let response = await http.send(url, withAuthorization(request, header))
    if (response.status === 401 && isOwn && !response.isRedirected) {
      await response.discard()
      const answer = await authorizer.answer(access, response.headers, header)
      response = await http.send(url, withAuthorization(request, answer))
    }
    if (statuses.includes(response.status)) return response
    await response.discard()
    const path = typeof target === 'string' ? target : 'an upload'
    const error = refusal({ registry: endpoint.name, repository, path, isPush: action !== 'pull' }, response, now())
    const { retryAfterMs } = error.details
    if (typeof retryAfterMs === 'number' && !response.isRedirected) http.pause(url.host, retryAfterMs)
    throw error
  }
}

function withAuthorization(request: HttpRequest, authorization: string | undefined): HttpRequest {
  return authorization === undefined ? request : { ...request, headers: { ...request.headers, authorization } }
}
