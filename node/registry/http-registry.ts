import { digestOf, type Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import { Urgency } from '../base/urgency.ts'
import { Authorizer } from './authorizer.ts'
import { BlobReader } from './blob-reader.ts'
import { BlobUploader } from './blob-uploader.ts'
import type { CredentialStore } from './credential-store.ts'
import { DockerCredentials } from './credentials.ts'
import { EndpointClient } from './endpoint-client.ts'
import { parseRegistryName, type Capability, type Endpoint } from './endpoint.ts'
import { HttpClient, type HttpClientOptions } from './http-client.ts'
import { checkSize, maxManifestBytes, type Descriptor } from './image-manifest.ts'
import {
  checkRange,
  type ByteRange,
  type ImageStorage,
  type ReadBlobOptions,
  type ReadRangeOptions,
  type Referrer,
  type StoredManifest,
} from './image-storage.ts'
import { Mirrors } from './mirrors.ts'
import type { Reference, RegistryReference } from './reference.ts'
import { parsePushed } from './referrers.ts'
import { RegistryManifests } from './registry-manifests.ts'
import { RegistryReferrers } from './registry-referrers.ts'
import { publicReach, type Reach, type ReachGuard } from './reach.ts'
import { realClock, withRetry, type Clock } from './retry.ts'
import { SkipBudget } from './skip-budget.ts'
import { verifiedBlob } from './verified-blob.ts'

export interface HttpRegistryParts {
  log: Log
  credentials?: CredentialStore
  clock?: Clock
  /** For connections of {@link HttpRegistryOptions.forOthers}. */
  guard?: ReachGuard
}

export interface HttpRegistryOptions extends HttpClientOptions {
  /** Hosts, with the port where it is not 443, that are spoken to in plain HTTP. */
  insecureRegistries: readonly string[]
  /** `REGISTRY=URL`. */
  mirrors?: readonly string[]
  /** Directories as containerd's `/etc/containerd/certs.d`. */
  hostsDirectories?: readonly string[]
  /**
   * Given where all requests are sent for others, who choose what is asked for. Connections lead to public addresses,
   * and to addresses of the class that a named registry or a mirror is in; what a registry redirects to gets no
   * credentials of this host. `named`: registries that the operator has named, besides those that have credentials or
   * mirrors.
   */
  forOthers?: { named: readonly string[] }
}

/** Images in registries: OCI distribution spec 1.1, and Docker's registry HTTP API v2. */
export class HttpRegistry implements ImageStorage {
  readonly #http: HttpClient
  readonly #credentials: CredentialStore
  readonly #named: ReadonlySet<string>
  readonly #mirrors: Mirrors
  readonly #manifests: RegistryManifests
  readonly #blobs: BlobReader
  readonly #uploader: BlobUploader
  readonly #referrers: RegistryReferrers
  readonly #skips: SkipBudget
  readonly #clock: Clock
  readonly #closing = new AbortController()

  /** @throws invalid for what is not a mirror */
  constructor(
    { log, credentials = new DockerCredentials({ log }), clock: outerClock = realClock, guard }: HttpRegistryParts,
    { insecureRegistries, mirrors = [], hostsDirectories = [], forOthers, ...options }: HttpRegistryOptions,
  ) {
    const closing = this.#closing.signal
    const clock = {
      ...outerClock,
      sleep: async (ms: number, signal: AbortSignal) => await outerClock.sleep(ms, AbortSignal.any([signal, closing])),
    }
    const { now } = clock
    const insecure = new Set(insecureRegistries.map(parseRegistryName))
    this.#clock = clock
    this.#http = new HttpClient({ clock, guard }, options)
    this.#credentials = credentials
    this.#named = new Set(forOthers?.named.map(parseRegistryName))
    this.#skips = new SkipBudget(clock)
    this.#mirrors = new Mirrors({ log, now }, { mirrors, insecureRegistries, hostsDirectories })
    const authorizer = new Authorizer({ http: this.#http, credentials, now })
    const client = new EndpointClient({
      http: this.#http,
      authorizer,
      now,
      isInsecure: (host) => insecure.has(host),
      ...(forOthers && { reachOf: async (endpoint, image) => await this.#reachOf(endpoint, image) }),
    })
    this.#manifests = new RegistryManifests({ client })
    this.#blobs = new BlobReader({ client, mirrors: this.#mirrors, clock })
    this.#uploader = new BlobUploader({ client })
    this.#referrers = new RegistryReferrers({ client, manifests: this.#manifests, clock })
  }

  /** Reads the files that the options name. @throws invalid */
  async start(): Promise<void> {
    await this.#mirrors.load()
    await this.#http.start()
  }

  /** Ends requests and pauses with `closed`; idempotent. */
  async close(): Promise<void> {
    this.#closing.abort(new P2pfsError('closed', 'the registry client has been closed'))
    await this.#http.close()
  }

  /**
   * Whether the operator of this host has named the image's registry: by credentials, by a mirror, or as `named` of
   * {@link HttpRegistryOptions.forOthers}. An entry that is for all registries does not count.
   * @throws invalid for hosts that cannot be read
   */
  async isNamed(reference: Reference): Promise<boolean> {
    const { registry, repository } = asRegistry(reference)
    return (
      this.#named.has(registry) ||
      (await this.#mirrors.names(registry)) ||
      (await this.#credentials.names?.(registry, { repository })) === true
    )
  }

  async manifest(reference: Reference, { signal }: { signal: AbortSignal }): Promise<StoredManifest> {
    const image = asRegistry(reference)
    const name = image.digest ?? image.tag ?? 'latest'
    return await this.#fromAny(
      image,
      signal,
      image.digest === undefined ? 'resolve' : 'pull',
      async (endpoint) => await this.#manifests.get(endpoint, image, name, signal),
    )
  }

  async digest(reference: Reference, { signal }: { signal: AbortSignal }): Promise<Digest> {
    const image = asRegistry(reference)
    if (image.digest !== undefined) return image.digest
    const name = image.tag ?? 'latest'
    return await this.#fromAny(
      image,
      signal,
      'resolve',
      async (endpoint) => await this.#manifests.digest(endpoint, image, name, signal),
    )
  }

  /**
   * Asks the registry itself, with one request, for what only somebody who may read the image gets an answer to.
   * @throws denied, missing where the credentials do not give him that right; the codes of the transport
   */
  async checkAccess(reference: Reference, { signal }: { signal: AbortSignal }): Promise<void> {
    const image = asRegistry(reference)
    const { original } = await this.#mirrors.servers(image.registry)
    const name = image.digest ?? image.tag ?? 'latest'
    const ask = async (): Promise<void> => await this.#manifests.check(original, image, name, signal)
    await withRetry(ask, { signal, clock: this.#clock })
  }

  async manifestByDigest(
    reference: Reference,
    descriptor: Descriptor,
    { signal }: { signal: AbortSignal },
  ): Promise<string> {
    checkSize(descriptor, maxManifestBytes, 'manifest')
    return (await this.manifest({ ...asRegistry(reference), digest: descriptor.digest }, { signal })).json
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
      // The next read is to come from another server.
      if (isP2pfsError(error, 'invalid')) for (const source of sources) this.#mirrors.failed(source, error)
      throw error
    }
  }

  async range(
    reference: Reference,
    descriptor: Descriptor,
    range: ByteRange,
    { signal, urgency = new Urgency(true), originOnly = false }: ReadRangeOptions,
  ): Promise<Uint8Array> {
    checkRange(range, descriptor)
    const bytes = Buffer.allocUnsafeSlow(range.end - range.start)
    if (bytes.length === 0) return bytes
    let length = 0
    const image = asRegistry(reference)
    const skips = {
      maxSkipBytes: this.#skips.left(image.registry),
      onSkip: (skipped: number) => this.#skips.spend(image.registry, skipped),
    }
    for await (const piece of this.#blobs.read(image, descriptor, range, { signal, urgency, originOnly, ...skips })) {
      // The blob is longer than its descriptor says.
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
    const image = asRegistry(reference)
    const { original: endpoint } = await this.#mirrors.servers(image.registry)
    const digest = digestOf(bytes)
    const upload = async (): Promise<void> => await this.#uploader.upload(endpoint, image, { digest, bytes }, signal)
    await withRetry(upload, { signal, clock: this.#clock })
    return { digest, sizeBytes: bytes.length }
  }

  async pushManifest(
    reference: Reference,
    name: string,
    json: string,
    mediaType: string,
    { signal }: { signal: AbortSignal },
  ): Promise<{ digest: Digest; sizeBytes: number }> {
    const image = asRegistry(reference)
    const { original: endpoint } = await this.#mirrors.servers(image.registry)
    const { subject, artifactType, annotations } = parsePushed(json)
    const stored = { digest: digestOf(Buffer.from(json)), sizeBytes: Buffer.byteLength(json) }
    if (name.startsWith('sha256:') && name !== stored.digest)
      throw new TypeError('a manifest is pushed by its own digest')
    const headers = await withRetry(
      async () => await this.#manifests.put(endpoint, image, name, { json, mediaType }, signal),
      { signal, clock: this.#clock },
    )
    if (subject !== undefined) {
      const added = { ...stored, mediaType, artifactType, annotations }
      await this.#referrers.add(endpoint, image, subject, added, { headers, signal })
    }
    return stored
  }

  async referrers(
    reference: Reference,
    digest: Digest,
    artifactType: string | undefined,
    { signal }: { signal: AbortSignal },
  ): Promise<Referrer[]> {
    const image = asRegistry(reference)
    const { original } = await this.#mirrors.servers(image.registry)
    return await this.#referrers.list(original, image, digest, artifactType, signal)
  }

  /** Mirrors are the operator's choice; a registry is only where he names it. */
  async #reachOf({ isMirror, base }: Endpoint, image: RegistryReference): Promise<Reach> {
    return isMirror || (await this.isNamed(image)) ? await this.#http.reachOf(base.hostname) : publicReach
  }

  /** Asks the mirrors, then the registry, until one answers. The credentials of a caller are not for mirrors. */
  async #fromAny<T>(
    { registry, caller }: RegistryReference,
    signal: AbortSignal,
    capability: Capability,
    ask: (endpoint: Endpoint) => Promise<T>,
  ): Promise<T> {
    const servers = await this.#mirrors.servers(registry)
    const tried = new Set<Endpoint>()
    const next = (): Endpoint | undefined =>
      caller === undefined ? this.#mirrors.next(servers, capability, tried) : undefined
    for (let mirror = next(); mirror !== undefined; mirror = next()) {
      tried.add(mirror)
      try {
        const answer = await ask(mirror)
        this.#mirrors.succeeded(mirror)
        return answer
      } catch (error) {
        if (signal.aborted || !isP2pfsError(error) || error.code === 'closed') throw error
        this.#mirrors.failed(mirror, error)
      }
    }
    return await withRetry(async () => await ask(servers.original), { signal, clock: this.#clock })
  }
}

function asRegistry(reference: Reference): RegistryReference {
  if (reference.kind !== 'registry') throw new TypeError('not a registry reference')
  return reference
}
