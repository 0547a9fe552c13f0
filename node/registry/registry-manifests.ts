import { digestOf, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { Urgency } from '../base/urgency.ts'
import type { Endpoint } from './endpoint.ts'
import type { EndpointClient } from './endpoint-client.ts'
import { textOf, type Headers } from './http-messages.ts'
import { mediaTypes } from './image-manifest.ts'
import type { RegistryReference } from './reference.ts'

/** Somebody waits for a manifest. */
const urgent = new Urgency(true)

/** Manifests of one server of a registry, by tag or digest. */
export class RegistryManifests {
  readonly #client: Pick<EndpointClient, 'send'>

  constructor({ client }: { client: Pick<EndpointClient, 'send'> }) {
    this.#client = client
  }

  /** @param name a tag or a digest @throws invalid for a manifest that does not match its digest */
  async get(
    endpoint: Endpoint,
    image: RegistryReference,
    name: string,
    signal: AbortSignal,
  ): Promise<{ digest: Digest; json: string }> {
    const response = await this.#client.send(endpoint, image, `manifests/${name}`, {
      method: 'GET',
      headers: { accept: Object.values(mediaTypes).join(', ') },
      statuses: [200],
      urgency: urgent,
      signal,
    })
    const json = await textOf(response, endpoint.name)
    const digest = digestOf(Buffer.from(json))
    if (name.startsWith('sha256:') && name !== digest)
      throw new P2pfsError('invalid', `${endpoint.name} answers with a manifest that does not match ${name}`)
    return { digest, json }
  }

  /** @returns the headers of the answer */
  async put(
    endpoint: Endpoint,
    image: RegistryReference,
    name: string,
    { json, mediaType }: { json: string; mediaType: string },
    signal: AbortSignal,
  ): Promise<Headers> {
    const response = await this.#client.send(endpoint, image, `manifests/${name}`, {
      method: 'PUT',
      headers: { 'content-type': mediaType },
      body: json,
      statuses: [201],
      action: 'pull,push',
      signal,
    })
    await response.discard()
    return response.headers
  }
}
