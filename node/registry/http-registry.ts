import { digestOf, parseDigest, type Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../log.ts'
import { authorize, parseChallenge, type Authorization } from './authorization.ts'
import { DockerCredentials, type Credentials } from './credentials.ts'
import { bodyOf, discard, HttpClient, type HttpResponse } from './http-client.ts'
import { checkSize, maxManifestBytes, mediaTypes, type Descriptor } from './image-manifest.ts'
import type { ImageStorage, ReadBlobOptions } from './image-storage.ts'
import type { Reference, RegistryReference } from './reference.ts'
import { pauseMs, withRetry, type RetryClock } from './retry.ts'
import { verifiedBlob } from './verified-blob.ts'

export interface HttpRegistryParts {
  log: Log
  credentials?: { find: (registry: string) => Promise<Credentials | undefined> }
  clock?: RetryClock & { now: () => number }
}

export interface HttpRegistryOptions {
  /** Hosts, with port where it is not 443, that are spoken to in plain HTTP. */
  insecureRegistries: readonly string[]
  userAgent: string
}

/** Where Docker Hub's registry is. */
const hubHost = 'registry-1.docker.io'
/** Connections lost in the middle of one blob, one after the other with less than this between, before giving up. */
const maxResumes = 5
const resumeBytes = 1024 * 1024
/** Repositories whose tokens are remembered. */
const maxAuthorizations = 256

const realClock = {
  now: Date.now,
  random: Math.random,
  sleep: async (ms: number, signal: AbortSignal): Promise<void> => {
    signal.throwIfAborted()
    await new Promise<void>((resolve, reject) => {
      const onAbort = (): void => {
        clearTimeout(timer)
        reject(signal.reason as Error)
      }
      const timer = setTimeout(() => {
        signal.removeEventListener('abort', onAbort)
        resolve()
      }, ms)
      signal.addEventListener('abort', onAbort, { once: true })
    })
  },
}

/** Images in registries: OCI distribution spec, and Docker's registry HTTP API v2. */
export class HttpRegistry implements ImageStorage {
  readonly #http: HttpClient
  readonly #credentials: NonNullable<HttpRegistryParts['credentials']>
  readonly #clock: NonNullable<HttpRegistryParts['clock']>
  readonly #insecure: ReadonlySet<string>
  readonly #authorizations = new Map<string, Authorization>()

  constructor({ log, credentials = new DockerCredentials({ log }), clock = realClock }: HttpRegistryParts, { insecureRegistries, userAgent }: HttpRegistryOptions) {
    this.#http = new HttpClient({ userAgent })
    this.#credentials = credentials
    this.#clock = clock
    this.#insecure = new Set(insecureRegistries)
  }

  async manifest(reference: Reference, { signal }: { signal: AbortSignal }): Promise<{ digest: Digest; json: string }> {
    const at = asRegistry(reference)
    const json = await this.#manifestText(at, at.digest ?? at.tag ?? 'latest', signal)
    const digest = digestOf(Buffer.from(json))
    if (at.digest !== undefined && at.digest !== digest) throw new P2pfsError('invalid', `${at.registry} answers with a manifest that does not match ${at.digest}`)
    return { digest, json }
  }

  async manifestByDigest(reference: Reference, descriptor: Descriptor, { signal }: { signal: AbortSignal }): Promise<string> {
    checkSize(descriptor, maxManifestBytes, 'manifest')
    return (await this.manifest({ ...asRegistry(reference), digest: parseDigest(descriptor.digest) }, { signal })).json
  }

  async #manifestText(at: RegistryReference, name: string, signal: AbortSignal): Promise<string> {
    return await withRetry(
      async () => {
        const url = this.#url(at, `manifests/${name}`)
        const response = await this.#get(at, url, { accept: Object.values(mediaTypes).join(', ') }, signal)
        const pieces: Uint8Array[] = []
        let length = 0
        for await (const piece of bodyOf(response, url, signal)) {
          length += piece.length
          if (length > maxManifestBytes) throw new P2pfsError('invalid', `manifest of ${at.repository} is larger than ${maxManifestBytes} bytes`)
          pieces.push(piece)
        }
        return Buffer.concat(pieces).toString()
      },
      { signal, clock: this.#clock },
    )
  }

  blob(reference: Reference, descriptor: Descriptor, { signal, verify = true }: ReadBlobOptions): AsyncIterable<Uint8Array> {
    return verifiedBlob(this.#resumed(asRegistry(reference), descriptor, signal), descriptor, verify)
  }

  /** The blob's bytes; a connection that is lost on the way is taken up again where it broke. */
  async *#resumed(at: RegistryReference, { digest, sizeBytes }: Descriptor, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const url = this.#url(at, `blobs/${digest}`)
    let offset = 0
    for (let failures = 0; ; ) {
      const from = offset
      try {
        for await (const piece of this.#blobFrom(at, url, from, signal)) {
          offset += piece.length
          yield piece
        }
        // Where a proxy ends a body early without a word.
        if (offset >= sizeBytes) return
        throw new P2pfsError('unavailable', `${at.registry} ends the blob after ${offset} of ${sizeBytes} bytes`, { digest })
      } catch (error) {
        if (signal.aborted || !isP2pfsError(error, 'unavailable', 'timeout', 'busy')) throw error
        if (offset >= sizeBytes) return
        failures = offset - from >= resumeBytes ? 1 : failures + 1
        if (failures > maxResumes) throw error
        await this.#clock.sleep(pauseMs(failures, error.details['retryAfterMs'], this.#clock), signal)
      }
    }
  }

  async *#blobFrom(at: RegistryReference, url: URL, offset: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const response = await this.#get(at, url, offset === 0 ? {} : { range: `bytes=${offset}-` }, signal)
    // Range ignored: the whole blob comes again.
    let skip = response.statusCode === 206 ? offset - rangeStart(response) : offset
    if (!(skip >= 0)) {
      await discard(response)
      throw new P2pfsError('invalid', `${at.registry} answers with another range than was asked for`, { registry: at.registry })
    }
    for await (const piece of bodyOf(response, url, signal)) {
      const used = piece.subarray(Math.min(skip, piece.length))
      skip -= piece.length - used.length
      if (used.length > 0) yield used
    }
  }

  /** @returns an answer with status 200 or 206 */
  async #get(at: RegistryReference, url: URL, headers: Record<string, string>, signal: AbortSignal): Promise<HttpResponse> {
    const key = `${at.registry}/${at.repository}`
    const known = this.#authorizations.get(key)
    const valid = known !== undefined && known.expiresAtMs > this.#clock.now() ? known : undefined
    let response = await this.#send(url, headers, valid, signal)
    if (response.statusCode === 401) {
      const challenge = response.headers['www-authenticate']
      await discard(response)
      const fresh = await authorize(
        parseChallenge([challenge].flat()[0] ?? ''),
        `repository:${at.repository}:pull`,
        at.registry,
        await this.#credentials.find(at.registry),
        this.#http,
        { signal, now: this.#clock.now, secure: !this.#insecure.has(at.registry) },
      )
      this.#authorizations.delete(key)
      this.#authorizations.set(key, fresh)
      if (this.#authorizations.size > maxAuthorizations) this.#authorizations.delete([...this.#authorizations.keys()][0]!)
      response = await this.#send(url, headers, fresh, signal)
    }
    if (response.statusCode === 200 || response.statusCode === 206) return response
    await discard(response)
    throw refusal(at, url, response)
  }

  async #send(url: URL, headers: Record<string, string>, authorization: Authorization | undefined, signal: AbortSignal): Promise<HttpResponse> {
    return await this.#http.send(url, {
      method: 'GET',
      headers: authorization === undefined ? headers : { ...headers, authorization: authorization.header },
      signal,
    })
  }

  #url({ registry, repository }: RegistryReference, path: string): URL {
    const name = registry === 'docker.io' ? hubHost : registry
    return new URL(`${this.#insecure.has(registry) ? 'http' : 'https'}://${name}/v2/${repository}/${path}`)
  }
}

function asRegistry(reference: Reference): RegistryReference {
  if (reference.kind !== 'registry') throw new TypeError('not a registry reference')
  return reference
}

function refusal(at: RegistryReference, url: URL, { statusCode, headers }: HttpResponse): P2pfsError {
  const what = `${at.registry}/${at.repository}`
  const details = { registry: at.registry, status: statusCode }
  if (statusCode === 401 || statusCode === 403) return new P2pfsError('denied', `${at.registry} refuses access to ${what}: log in with docker login as the daemon's user`, details)
  if (statusCode === 404) return new P2pfsError('missing', `${at.registry} has no ${url.pathname.split('/').slice(-2).join('/')} of ${at.repository}: check the name and the tag`, details)
  const retryAfterMs = parseRetryAfter(headers['retry-after'])
  if (statusCode === 429) return new P2pfsError('busy', `${at.registry} asks to slow down (429); try again later`, { ...details, retryAfterMs })
  if (statusCode === 408 || statusCode >= 500) return new P2pfsError('unavailable', `${at.registry} answers ${statusCode}; try again later`, { ...details, retryAfterMs })
  return new P2pfsError('invalid', `${at.registry} answers ${statusCode} for ${what}`, details)
}

/** Where a partial answer begins: RFC 9110, section 14.4. */
function rangeStart({ headers }: HttpResponse): number {
  const [, start] = /^bytes (\d+)-/.exec([headers['content-range']].flat()[0] ?? '') ?? []
  return start === undefined ? Number.NaN : Number(start)
}

/** Seconds, or an HTTP date: RFC 9110, section 10.2.3. */
function parseRetryAfter(value: string | string[] | undefined): number | undefined {
  const text = [value].flat()[0]
  if (text === undefined) return undefined
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now()
  return Number.isFinite(ms) && ms >= 0 ? ms : undefined
}
