import { BoundedMap } from '../base/bounded-map.ts'
import { SingleFlight } from '../base/single-flight.ts'
import { authorize, type Authorization, type AuthorizeParts } from './authorization.ts'
import { chooseChallenge, type Challenge } from './challenge.ts'
import type { CredentialStore } from './credentials.ts'
import type { Headers } from './http-messages.ts'

/** Repositories whose authorizations are remembered. */
const maxAuthorizations = 256

export type RegistryAction = 'pull' | 'pull,push'

export interface AccessRequest {
  /** Credentials are looked up by this name, and messages use it: HOST or HOST:PORT. */
  registry: string
  /** The server that challenges: the registry, or a mirror of it. */
  origin: string
  repository: string
  action: RegistryAction
  signal: AbortSignal
}

interface Grant extends Authorization {
  challenge: Challenge | undefined
}

/** The authorizations of all servers, renewed before they end; one renewal at a time for each repository. */
export class Authorizer {
  readonly #parts: AuthorizeParts & { credentials: CredentialStore }
  readonly #grants = new BoundedMap<string, Grant>({ maxEntries: maxAuthorizations })
  readonly #renewals = new SingleFlight<string>()

  constructor(parts: AuthorizeParts & { credentials: CredentialStore }) {
    this.#parts = parts
  }

  /**
   * The header to send, renewed where it is about to end; undefined as long as the server has asked for none.
   * @throws as {@link authorize}
   */
  async header(request: AccessRequest): Promise<string | undefined> {
    const grant = this.#grants.get(keyOf(request))
    if (grant === undefined || grant.expiresAtMs > this.#parts.now()) return grant?.header
    return await this.#renew(request, grant.challenge)
  }

  /**
   * The header to try once more with, after a 401.
   * @param refused the header that was sent, if any
   * @throws as {@link authorize}
   */
  async answer(request: AccessRequest, headers: Headers, refused: string | undefined): Promise<string> {
    const grant = this.#grants.get(keyOf(request))
    // Another request may have renewed it in the meantime.
    if (grant !== undefined && grant.header !== refused && grant.expiresAtMs > this.#parts.now()) return grant.header
    return await this.#renew(request, chooseChallenge(headers))
  }

  async #renew(request: AccessRequest, challenge: Challenge | undefined): Promise<string> {
    const { registry, origin, repository, action } = request
    const key = keyOf(request)
    return await this.#renewals.run(key, request.signal, async (signal) => {
      const fresh = await authorize(challenge, this.#parts, {
        scope: `repository:${repository}:${action}`,
        registry,
        credentials: await this.#parts.credentials.find(registry),
        isSecure: origin.startsWith('https:'),
        signal,
      })
      this.#grants.set(key, { ...fresh, challenge })
      return fresh.header
    })
  }
}

const keyOf = ({ origin, repository, action }: AccessRequest): string => `${origin}/${repository}:${action}`
