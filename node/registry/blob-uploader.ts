import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Endpoint } from './endpoint.ts'
import type { EndpointClient } from './endpoint-client.ts'
import { headerOf, type HttpRequest, type HttpResponse } from './http-messages.ts'
import type { RegistryReference } from './reference.ts'

/** A larger blob goes up in pieces of this size: gateways refuse bodies of 100 MB and more (bytes). */
const pieceBytes = 32 * 1024 * 1024
/** An answer to an upload may take longer by this for each byte that is sent: 200 KB/s (ms). */
const msPerByte = 1000 / 200_000
/** The time for an answer, besides the time for sending (ms). */
const answerMs = 30_000

/** Uploads of blobs: OCI distribution spec, "Pushing blobs". */
export class BlobUploader {
  readonly #client: Pick<EndpointClient, 'send'>

  constructor({ client }: { client: Pick<EndpointClient, 'send'> }) {
    this.#client = client
  }

  /** Stores a blob in the image's repository, unless it is there. @throws denied; the codes of the transport */
  async upload(
    endpoint: Endpoint,
    image: RegistryReference,
    { digest, bytes }: { digest: Digest; bytes: Uint8Array },
    signal: AbortSignal,
  ): Promise<void> {
    if (await this.#isStored(endpoint, image, digest, signal)) return
    const send = async (
      target: string | URL,
      request: Pick<HttpRequest, 'method'> & Partial<HttpRequest>,
      statuses: readonly number[],
    ): Promise<HttpResponse> => {
      const all = { headers: {}, action: 'pull,push', statuses, signal, ...request } as const
      const response = await this.#client.send(endpoint, image, target, all)
      await response.discard()
      return response
    }
    const started = await send('blobs/uploads/', { method: 'POST' }, [201, 202])
    if (started.status === 201) return
    let location = locationOf(started, endpoint)
    const minBytes = Number(headerOf(started.headers, 'oci-chunk-min-length') ?? 0) || 0
    const stepBytes = Math.max(pieceBytes, minBytes)
    let offset = 0
    for (; bytes.length - offset > stepBytes; offset += stepBytes) {
      const piece = bytes.subarray(offset, offset + stepBytes)
      const headers = { ...octets, 'content-range': `${offset}-${offset + piece.length - 1}` }
      const answer = await send(location, { method: 'PATCH', headers, ...bodyOf(piece) }, [202])
      location = locationOf(answer, endpoint)
    }
    location.searchParams.set('digest', digest)
    const headers = { ...octets, ...(offset === 0 ? {} : { 'content-range': `${offset}-${bytes.length - 1}` }) }
    await send(location, { method: 'PUT', headers, ...bodyOf(bytes.subarray(offset)) }, [201, 204])
  }

  /** A registry that redirects to its storage has the blob. */
  async #isStored(endpoint: Endpoint, image: RegistryReference, digest: Digest, signal: AbortSignal): Promise<boolean> {
    const head = await this.#client.send(endpoint, image, `blobs/${digest}`, {
      method: 'HEAD',
      headers: {},
      redirects: 'same-path',
      statuses: [200, 302, 303, 307, 308, 404, 405],
      action: 'pull,push',
      signal,
    })
    await head.discard()
    return head.status < 400
  }
}

const octets = { 'content-type': 'application/octet-stream' }

const bodyOf = (piece: Uint8Array): { body: Uint8Array; headersMs: number } => ({
  body: piece,
  headersMs: answerMs + Math.ceil(piece.length * msPerByte),
})

/** The URL at which an upload goes on. @throws unavailable */
function locationOf({ headers, url: base }: HttpResponse, { name }: Endpoint): URL {
  const location = headerOf(headers, 'location')
  if (location === undefined || !URL.canParse(location, base.href))
    throw new P2pfsError('unavailable', `${name} does not say where an upload goes on`, { registry: name })
  const url = new URL(location, base)
  // A registry behind a gateway that ends TLS does not know that it is reached by TLS.
  if (base.protocol === 'https:' && url.hostname === base.hostname && url.protocol === 'http:')
    return new URL(`${url.pathname}${url.search}`, base)
  if (base.protocol === 'https:' && url.protocol !== 'https:')
    throw new P2pfsError('unavailable', `${name} has uploads go to ${url.host} in clear`, { registry: name })
  return url
}
