import { digestOf, parseDigest, type Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import { Urgency } from '../base/urgency.ts'
import { Authorizer } from './authorization.ts'
import { BlobReader } from './blob-reader.ts'
import { DockerCredentials, type Credentials } from './credentials.ts'
import { HttpClient, textOf, type HttpClientOptions, type HttpRequest, type HttpResponse } from './http-client.ts'
import { checkSize, maxManifestBytes, mediaTypes, type Descriptor } from './image-manifest.ts'
import {
  checkRange,
  type ByteRange,
  type ImageStorage,
  type ReadBlobOptions,
  type ReadRangeOptions,
  type Referrer,
} from './image-storage.ts'
import { Mirrors, type Endpoint } from './mirrors.ts'
import { KeyedQueue } from '../base/keyed-queue.ts'
import type { Reference, RegistryReference } from './reference.ts'
import { ofType, parsePushed, parseReferrers, referrersTag, withReferrer } from './referrers.ts'
import { refusal } from './refusal.ts'
import { realClock, withRetry, type Clock } from './retry.ts'
import { SkipBudget } from './skip-budget.ts'
import { verifiedBlob } from './verified-blob.ts'

export interface HttpRegistryParts {
  log: Log
  credentials?: { find: (registry: string) => Promise<Credentials | undefined> }
  clock?: Clock
}

export interface HttpRegistryOptions extends HttpClientOptions {
  /** Hosts, with port where it is not 443, that are spoken to in plain HTTP. */
  insecureRegistries: readonly string[]
  /** `REGISTRY=URL`. */
  mirrors?: readonly string[]
}

/** A larger blob goes up in pieces of this: gateways refuse bodies of 100 MB and more, bytes. */
const uploadPieceBytes = 32 * 1024 * 1024
/** What an upload's answer may take longer for each byte that is sent: 200 KB/s, milliseconds. */
const uploadMsPerByte = 1000 / 200_000
/** Pages of the referrers API that are read; each has up to some thousand. */
const maxReferrerPages = 32
/** Somebody else may write the index of referrers at the same time: so many tries to have one's entry in it. */
const maxIndexWrites = 4

/** Of what somebody always waits for. */
const waitedFor = new Urgency(true)

/** Images in registries: OCI distribution spec 1.1, and Docker's registry HTTP API v2. */
export class HttpRegistry implements ImageStorage {
  readonly #http: HttpClient
  readonly #authorizer: Authorizer
  readonly #mirrors: Mirrors
  readonly #blobs: BlobReader
  readonly #skips: SkipBudget
  readonly #clock: Clock
  /** Of indexes of referrers: at least this host's own do not overwrite one another. */
  readonly #indexing = new KeyedQueue()
  readonly #closing = new AbortController()

  /** @throws invalid for mirrors that are none */
  constructor(
    { log, credentials = new DockerCredentials({ log }), clock: given = realClock }: HttpRegistryParts,
    { insecureRegistries, mirrors = [], ...options }: HttpRegistryOptions,
  ) {
    const closing = this.#closing.signal
    const clock = {
      ...given,
      sleep: async (ms: number, signal: AbortSignal) => await given.sleep(ms, AbortSignal.any([signal, closing])),
    }
    this.#clock = clock
    this.#http = new HttpClient({ clock }, options)
    this.#skips = new SkipBudget(clock)
    this.#authorizer = new Authorizer({ http: this.#http, credentials, now: clock.now })
    this.#mirrors = new Mirrors({ log, now: clock.now }, { mirrors, insecureRegistries })
    const get = async (
      ...[endpoint, at, path, headers, { signal, urgency }]: Parameters<
        ConstructorParameters<typeof BlobReader>[0]['get']
      >
    ): Promise<HttpResponse> =>
      await this.#send(endpoint, at, path, { method: 'GET', headers, signal, urgency }, [200, 206, 416])
    this.#blobs = new BlobReader({ get, mirrors: this.#mirrors, clock })
  }

  /** Reads what the options name. @throws invalid */
  async start(): Promise<void> {
    await this.#http.start()
  }

  /** Ends requests and pauses with `closed`; idempotent. */
  async close(): Promise<void> {
    this.#closing.abort(new P2pfsError('closed', 'the registry client has been closed'))
    await this.#http.close()
  }

  async manifest(reference: Reference, { signal }: { signal: AbortSignal }): Promise<{ digest: Digest; json: string }> {
    const at = asRegistry(reference)
    return await this.#fromAny(
      at,
      signal,
      async (endpoint) => await this.#manifestFrom(endpoint, at, at.digest ?? at.tag ?? 'latest', signal),
    )
  }

  async manifestByDigest(
    reference: Reference,
    descriptor: Descriptor,
    { signal }: { signal: AbortSignal },
  ): Promise<string> {
    checkSize(descriptor, maxManifestBytes, 'manifest')
    return (await this.manifest({ ...asRegistry(reference), digest: parseDigest(descriptor.digest) }, { signal })).json
  }

  async #manifestFrom(
    endpoint: Endpoint,
    at: RegistryReference,
    name: string,
    signal: AbortSignal,
  ): Promise<{ digest: Digest; json: string }> {
    const headers = { accept: Object.values(mediaTypes).join(', ') }
    const response = await this.#send(
      endpoint,
      at,
      `manifests/${name}`,
      { method: 'GET', headers, signal, urgency: waitedFor },
      [200],
    )
    const json = await textOf(response, endpoint.name)
    const digest = digestOf(Buffer.from(json))
    if (name.startsWith('sha256:') && name !== digest)
      throw new P2pfsError('invalid', `${endpoint.name} answers with a manifest that does not match ${name}`)
    return { digest, json }
  }

  async *blob(
    reference: Reference,
    descriptor: Descriptor,
    { signal, verify = true }: ReadBlobOptions,
  ): AsyncGenerator<Uint8Array> {
    const sources = new Set<Endpoint>()
    const options = {
      signal,
      urgency: new Urgency(false),
      originOnly: false,
      maxSkipBytes: Infinity,
      onSource: (endpoint: Endpoint) => void sources.add(endpoint),
    }
    const bytes = this.#blobs.read(asRegistry(reference), descriptor, { start: 0, end: descriptor.sizeBytes }, options)
    try {
      yield* verifiedBlob(bytes, descriptor, verify)
    } catch (error) {
      // Next time it comes from somewhere else.
      if (isP2pfsError(error, 'invalid')) for (const source of sources) this.#mirrors.failed(source, error)
      throw error
    }
  }

  async range(
    reference: Reference,
    descriptor: Descriptor,
    range: ByteRange,
    { signal, urgency = waitedFor, originOnly = false }: ReadRangeOptions,
  ): Promise<Uint8Array> {
    checkRange(range, descriptor)
    const bytes = Buffer.allocUnsafeSlow(range.end - range.start)
    if (bytes.length === 0) return bytes
    let length = 0
    const at = asRegistry(reference)
    const skips = {
      maxSkipBytes: this.#skips.left(at.registry),
      onSkip: (skipped: number) => this.#skips.spend(at.registry, skipped),
    }
    for await (const piece of this.#blobs.read(at, descriptor, range, { signal, urgency, originOnly, ...skips })) {
      // The blob is longer than it should be.
      if (length === bytes.length) break
      const wanted = piece.subarray(0, bytes.length - length)
      bytes.set(wanted, length)
      length += wanted.length
    }
    return bytes
  }

  async pushBlob(
    reference: Reference,
    bytes: Uint8Array,
    { signal }: { signal: AbortSignal },
  ): Promise<{ digest: Digest; sizeBytes: number }> {
    const at = asRegistry(reference)
    const digest = digestOf(bytes)
    await withRetry(async () => await this.#upload(at, digest, bytes, signal), { signal, clock: this.#clock })
    return { digest, sizeBytes: bytes.length }
  }

  async #upload(at: RegistryReference, digest: Digest, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    const endpoint = this.#mirrors.original(at.registry)
    // Where it would be redirected to its storage, it is there.
    const head = await this.#send(
      endpoint,
      at,
      `blobs/${digest}`,
      { method: 'HEAD', headers: {}, redirects: 'return', signal },
      [200, 302, 303, 307, 308, 404, 405],
      'pull,push',
    )
    await head.discard()
    if (head.status < 400) return
    const started = await this.#send(
      endpoint,
      at,
      'blobs/uploads/',
      { method: 'POST', headers: {}, signal },
      [201, 202],
      'pull,push',
    )
    await started.discard()
    if (started.status === 201) return
    let location = locationOf(started, endpoint)
    const pieceBytes = Math.max(uploadPieceBytes, Number([started.headers['oci-chunk-min-length']].flat()[0] ?? 0) || 0)
    let offset = 0
    for (; bytes.length - offset > pieceBytes; offset += pieceBytes) {
      const piece = bytes.subarray(offset, offset + pieceBytes)
      const headers = { ...octets, 'content-range': `${offset}-${offset + piece.length - 1}` }
      const answer = await this.#send(
        endpoint,
        at,
        location,
        { method: 'PATCH', headers, body: piece, headersMs: uploadMs(piece), signal },
        [202],
        'pull,push',
      )
      await answer.discard()
      location = locationOf(answer, endpoint)
    }
    const last = bytes.subarray(offset)
    location.searchParams.set('digest', digest)
    const headers = { ...octets, ...(offset === 0 ? {} : { 'content-range': `${offset}-${bytes.length - 1}` }) }
    const done = await this.#send(
      endpoint,
      at,
      location,
      { method: 'PUT', headers, body: last, headersMs: uploadMs(last), signal },
      [201, 204],
      'pull,push',
    )
    await done.discard()
  }

  async pushManifest(
    reference: Reference,
    name: string,
    json: string,
    mediaType: string,
    { signal }: { signal: AbortSignal },
  ): Promise<{ digest: Digest; sizeBytes: number }> {
    const at = asRegistry(reference)
    const { subject, artifactType, annotations } = parsePushed(json)
    const digest = digestOf(Buffer.from(json))
    if (name.startsWith('sha256:') && name !== digest) throw new TypeError('a manifest is pushed by its own digest')
    const sizeBytes = Buffer.byteLength(json)
    const answer = await this.#putManifest(at, name, json, mediaType, signal)
    // A registry that has the API says so: distribution spec 1.1, "Pushing Manifests with Subject".
    if (subject !== undefined && [answer['oci-subject']].flat()[0] !== subject) {
      const added = { digest, mediaType, sizeBytes, artifactType, annotations }
      await this.#indexing.run(
        `${at.registry}/${at.repository}@${subject}`,
        async () => await this.#indexReferrer(at, subject, added, signal),
      )
    }
    return { digest, sizeBytes }
  }

  async #putManifest(
    at: RegistryReference,
    name: string,
    json: string,
    mediaType: string,
    signal: AbortSignal,
  ): Promise<HttpResponse['headers']> {
    const endpoint = this.#mirrors.original(at.registry)
    return await withRetry(
      async () => {
        const response = await this.#send(
          endpoint,
          at,
          `manifests/${name}`,
          { method: 'PUT', headers: { 'content-type': mediaType }, body: json, signal },
          [201],
          'pull,push',
        )
        await response.discard()
        return response.headers
      },
      { signal, clock: this.#clock },
    )
  }

  /** Adds to the index that the referrers tag names: read, changed, written, and read again, for there is no lock. */
  async #indexReferrer(at: RegistryReference, subject: Digest, added: Referrer, signal: AbortSignal): Promise<void> {
    const tag = referrersTag(subject)
    for (let write = 0; ; write++) {
      const json = withReferrer(
        await this.#referrersByTag(at, subject, signal),
        added,
        `index of referrers of ${subject}`,
      )
      if (json === undefined) return
      if (write === maxIndexWrites)
        throw new P2pfsError('unavailable', `others keep writing ${tag} of ${at.repository}; try again`, {
          registry: at.registry,
        })
      await this.#putManifest(at, tag, json, mediaTypes.ociIndex, signal)
    }
  }

  /** The index that the referrers tag names, from the registry itself; undefined where there is none. */
  async #referrersByTag(at: RegistryReference, subject: Digest, signal: AbortSignal): Promise<string | undefined> {
    const endpoint = this.#mirrors.original(at.registry)
    try {
      return (
        await withRetry(async () => await this.#manifestFrom(endpoint, at, referrersTag(subject), signal), {
          signal,
          clock: this.#clock,
        })
      ).json
    } catch (error) {
      if (isP2pfsError(error, 'missing')) return undefined
      throw error
    }
  }

  async referrers(
    reference: Reference,
    digest: Digest,
    artifactType: string | undefined,
    { signal }: { signal: AbortSignal },
  ): Promise<Referrer[]> {
    const at = asRegistry(reference)
    const found = await this.#referrersByApi(at, digest, artifactType, signal)
    if (found !== undefined) return ofType(found, artifactType)
    const json = await this.#referrersByTag(at, digest, signal)
    return json === undefined ? [] : ofType(parseReferrers(json, `index of referrers of ${digest}`), artifactType)
  }

  /** All pages; undefined where the registry has no such API. From the registry itself: mirrors rarely have it, and are late. */
  async #referrersByApi(
    at: RegistryReference,
    digest: Digest,
    artifactType: string | undefined,
    signal: AbortSignal,
  ): Promise<Referrer[] | undefined> {
    const endpoint = this.#mirrors.original(at.registry)
    const what = `referrers of ${digest}`
    const found: Referrer[] = []
    let next: URL | undefined = new URL(`${at.repository}/referrers/${digest}`, endpoint.base)
    if (artifactType !== undefined) next.searchParams.set('artifactType', artifactType)
    for (let page = 0; next !== undefined && page < maxReferrerPages; page++) {
      const url: URL = next
      const request: HttpRequest = { method: 'GET', headers: { accept: mediaTypes.ociIndex }, signal }
      const { status, headers, text } = await withRetry(
        async () => {
          const response = await this.#send(endpoint, at, url, request, [200, 400, 404, 405, 406])
          return { status: response.status, headers: response.headers, text: await textOf(response, endpoint.name) }
        },
        { signal, clock: this.#clock },
      )
      if (status !== 200) return page === 0 ? undefined : found
      found.push(...parseReferrers(text, what))
      const link = /<([^>]+)>\s*;\s*rel="?next"?/.exec([headers['link']].flat().join(','))?.[1]
      next = link !== undefined && URL.canParse(link, url.href) ? new URL(link, url) : undefined
      if (next !== undefined && next.origin !== url.origin)
        throw new P2pfsError('unavailable', `${endpoint.name} continues its list of referrers at ${next.host}`, {
          registry: endpoint.name,
        })
    }
    return found
  }

  /** Asks the mirrors, then the registry, until one has it. */
  async #fromAny<T>(at: RegistryReference, signal: AbortSignal, ask: (endpoint: Endpoint) => Promise<T>): Promise<T> {
    const tried = new Set<Endpoint>()
    for (
      let mirror = this.#mirrors.next(at.registry, tried);
      mirror !== undefined;
      mirror = this.#mirrors.next(at.registry, tried)
    ) {
      tried.add(mirror)
      try {
        const found = await ask(mirror)
        this.#mirrors.succeeded(mirror)
        return found
      } catch (error) {
        if (signal.aborted || !isP2pfsError(error) || error.code === 'closed') throw error
        this.#mirrors.failed(mirror, error)
      }
    }
    const original = this.#mirrors.original(at.registry)
    return await withRetry(async () => await ask(original), { signal, clock: this.#clock })
  }

  /**
   * A request with what the server wants for authorization.
   * @param where below the repository; or a URL that the server gave
   * @returns an answer with one of `statuses` @throws as {@link refusal} has it
   */
  async #send(
    endpoint: Endpoint,
    at: RegistryReference,
    where: string | URL,
    request: HttpRequest,
    statuses: readonly number[],
    action: 'pull' | 'pull,push' = 'pull',
  ): Promise<HttpResponse> {
    const url = typeof where === 'string' ? new URL(`${at.repository}/${where}`, endpoint.base) : where
    const { origin } = endpoint.base
    const access = { registry: endpoint.name, origin, repository: at.repository, action, signal: request.signal }
    const isOwn = url.origin === origin
    const sent = isOwn ? await this.#authorizer.header(access) : undefined
    let response = await this.#http.send(url, withAuthorization(request, sent))
    if (response.status === 401 && isOwn && !response.redirected) {
      await response.discard()
      response = await this.#http.send(
        url,
        withAuthorization(request, await this.#authorizer.answer(access, response.headers, sent)),
      )
    }
    if (statuses.includes(response.status)) return response
    await response.discard()
    const path = typeof where === 'string' ? where : 'an upload'
    const error = refusal(
      { registry: endpoint.name, repository: at.repository, path, isPush: action !== 'pull' },
      response,
      this.#clock.now(),
    )
    const { retryAfterMs } = error.details
    if (typeof retryAfterMs === 'number' && !response.redirected) this.#http.pause(url.host, retryAfterMs)
    throw error
  }
}

const octets = { 'content-type': 'application/octet-stream' }

/** The time that sending takes comes on top of that for an answer. */
const uploadMs = (piece: Uint8Array): number => 30_000 + Math.ceil(piece.length * uploadMsPerByte)

function withAuthorization(request: HttpRequest, authorization: string | undefined): HttpRequest {
  return authorization === undefined ? request : { ...request, headers: { ...request.headers, authorization } }
}

/** Where an upload goes on. @throws unavailable */
function locationOf({ headers }: HttpResponse, { base, name }: Endpoint): URL {
  const location = [headers['location']].flat()[0]
  if (location === undefined || !URL.canParse(location, base.href))
    throw new P2pfsError('unavailable', `${name} does not say where an upload goes on`, { registry: name })
  const url = new URL(location, base)
  // A registry behind a gateway that ends TLS does not know of it.
  if (base.protocol === 'https:' && url.hostname === base.hostname && url.protocol === 'http:')
    return new URL(`${url.pathname}${url.search}`, base)
  if (base.protocol === 'https:' && url.protocol !== 'https:')
    throw new P2pfsError('unavailable', `${name} has uploads go to ${url.host} in clear`, { registry: name })
  return url
}

function asRegistry(reference: Reference): RegistryReference {
  if (reference.kind !== 'registry') throw new TypeError('not a registry reference')
  return reference
}
