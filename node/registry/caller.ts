import { createHmac, randomBytes } from 'node:crypto'
import type { Credentials, CredentialStore } from './credential-store.ts'

/** A secret of this process: it keeps anybody from guessing credentials by the key that is made of them. */
const secret = randomBytes(32)

/**
 * Somebody who asks for an image with credentials of his own, or as nobody. His credentials are for one registry, stay in
 * memory, and have no form that could be logged or stored.
 */
export class Caller implements CredentialStore {
  /** Equal for the same credentials for the same registry. */
  readonly key: string
  readonly #registry: string
  readonly #credentials: Credentials | undefined

  /** @param credentials undefined for somebody who has none: the registry is asked as by anybody */
  constructor(registry: string, credentials: Credentials | undefined) {
    this.#registry = registry
    this.#credentials = credentials
    const { username, password, identityToken = '', registryToken = '' } = credentials ?? { username: '', password: '' }
    const parts = [registry, username, password, identityToken, registryToken]
    this.key = createHmac('sha256', secret).update(JSON.stringify(parts)).digest('hex')
  }

  /** For the memory that the next daemon of this host gets ({@link CallerMemory}), and for nothing else; undefined for nobody. */
  handOver(): { registry: string; credentials: Credentials } | undefined {
    return this.#credentials && { registry: this.#registry, credentials: this.#credentials }
  }

  /** His credentials for that registry; for another one there are none. */
  async find(registry: string): Promise<Credentials | undefined> {
    return await Promise.resolve(registry === this.#registry ? this.#credentials : undefined)
  }
}
