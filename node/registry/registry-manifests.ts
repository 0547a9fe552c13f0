import { digestOf, parseDigest, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { Urgency } from '../base/urgency.ts'
import { decodeContent } from './content-encoding.ts'
import type { Endpoint } from './endpoint.ts'
import type { EndpointClient } from './endpoint-client.ts'
import { bytesOf, headerOf, type Headers, type HttpResponse } from './http-messages.ts'
import { mediaTypes } from './image-manifest.ts'
import type { RegistryReference } from './reference.ts'

const headers = { accept: Object.values(mediaTypes).join(', ') }

/** Somebody waits for a manifest. */
const urgent = new Urgency(true)

/** Manifests of one server of a registry, by tag or digest. */
export class RegistryManifests {
  readonly #client: Pick<EndpointClient, 'send'>

  constructor({ client }: { client: Pick<EndpointClient, 'send'> }) {
    this.#client = client
  }

  /** The digest of the manifest that a tag names: by a HEAD request, where the registry answers it with the digest. */
  async digest(endpoint: Endpoint, image: RegistryReference, tag: string, signal: AbortSignal): Promise<Digest> {
    const { status, headers } = await this.#head(endpoint, image, tag, signal)
    const digest = headerOf(headers, 'docker-content-digest') ?? ''
    if (status === 200 && /^sha256:[0-9a-f]{64}$/.test(digest)) return parseDigest(digest)
    return (await this.get(endpoint, image, tag, signal)).digest
  }

  /** Whether there is such a manifest for whoever asks: an error says why not. @param name a tag or a digest */
  async check(endpoint: Endpoint, image: RegistryReference, name: string, signal: AbortSignal): Promise<void> {
    const { status } = await this.#head(endpoint, image, name, signal)
    if (status !== 200) await this.get(endpoint, image, name, signal)
  }

  async #head(
    endpoint: Endpoint,
    image: RegistryReference,
    name: string,
    signal: AbortSignal,
  ): Promise<Pick<HttpResponse, 'status' | 'headers'>> {
    const response = await this.#client.send(endpoint, image, `manifests/${name}`, {
      method: 'HEAD',
      headers,
      // Some servers do not know HEAD.
      statuses: [200, 400, 405, 501],
      urgency: urgent,
      signal,
    })
    await response.discard()
    return response
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
      headers,
      statuses: [200],
      urgency: urgent,
      signal,
    })
    const bytes = await bytesOf(response, endpoint.name)
    // The digest is that of the manifest itself. Bytes that match it are not decoded, whatever the answer calls them.
    const content = digestOf(bytes) === name ? bytes : await decodeContent(bytes, response.headers, endpoint.name)
    const digest = digestOf(content)
    if (name.startsWith('sha256:') && name !== digest)
      throw new P2pfsError('invalid', `${endpoint.name} answers with a manifest that does not match ${name}`)
    return { digest, json: content.toString() }
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
