import { createHash, randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { answerRange } from './byte-ranges.ts'
import { emptyAnswer, failed, jsonAnswer, type Answer, type BackendRequest, type RegistryBackend } from './backend.ts'
import { RegistryFront, type FrontOptions } from './front.ts'

export interface FaultRegistryOptions extends FrontOptions {
  /** Whether it has the referrers API of distribution-spec 1.1; true by default. */
  referrersApi?: boolean
  /** The page size of the referrers API. */
  referrersPerPage?: number
}

export interface StoredDescriptor {
  mediaType: string
  digest: string
  size: number
}

/** A blob in memory or in a file. */
type Blob = { bytes: Buffer } | { file: string; sizeBytes: number }

interface Repository {
  manifests: Map<string, { bytes: Buffer; mediaType: string }>
  tags: Map<string, string>
}

interface ManifestJson {
  mediaType?: string
  artifactType?: string
  annotations?: Record<string, string>
  config?: StoredDescriptor
  layers?: StoredDescriptor[]
  manifests?: StoredDescriptor[]
  subject?: StoredDescriptor
}

const indexType = 'application/vnd.oci.image.index.v1+json'
const manifestType = 'application/vnd.oci.image.manifest.v1+json'
const route = /^\/v2\/(?<name>.+)\/(?<kind>manifests|blobs|tags|referrers)\/(?<rest>.*)$/

/**
 * A small OCI registry (distribution-spec 1.1) in this process. It has what skopeo needs to push and pull. Its blobs
 * are in memory, or in the files of OCI layouts. `front.faults` makes it fail.
 */
export class FaultRegistry implements RegistryBackend, AsyncDisposable {
  /** May be changed at any time. */
  referrersApi: boolean
  readonly #perPage: number
  readonly #blobs = new Map<string, Blob>()
  readonly #repositories = new Map<string, Repository>()
  readonly #uploads = new Map<string, Buffer[]>()
  #front: RegistryFront | undefined

  private constructor({ referrersApi = true, referrersPerPage = Infinity }: FaultRegistryOptions) {
    this.referrersApi = referrersApi
    this.#perPage = referrersPerPage
  }

  static async start(options: FaultRegistryOptions = {}): Promise<FaultRegistry> {
    const registry = new FaultRegistry(options)
    registry.#front = await RegistryFront.start(registry, options)
    return registry
  }

  /** Its server, with faults, log and address. */
  get front(): RegistryFront {
    return this.#front!
  }

  get faults(): RegistryFront['faults'] {
    return this.front.faults
  }

  get authority(): string {
    return this.front.authority
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.front[Symbol.asyncDispose]()
  }

  addBlob(bytes: Uint8Array, mediaType = 'application/octet-stream'): StoredDescriptor {
    const digest = sha256(bytes)
    this.#blobs.set(digest, { bytes: Buffer.from(bytes) })
    return { mediaType, digest, size: bytes.length }
  }

  /** @param json is stored unchanged */
  addManifest(repository: string, tag: string | undefined, json: string, mediaType = manifestType): StoredDescriptor {
    const bytes = Buffer.from(json)
    const digest = sha256(bytes)
    const { manifests, tags } = this.#repository(repository)
    manifests.set(digest, { bytes, mediaType })
    if (tag !== undefined) tags.set(tag, digest)
    return { mediaType, digest, size: bytes.length }
  }

  /** Adds the images of an OCI layout under their names there. Blobs stay in their files. */
  async addLayout(repository: string, directory: string): Promise<void> {
    const index = JSON.parse(await readFile(join(directory, 'index.json'), 'utf8')) as {
      manifests: (StoredDescriptor & { annotations?: Record<string, string> })[]
    }
    for (const { annotations, ...descriptor } of index.manifests) {
      await this.#addStored(repository, annotations?.['org.opencontainers.image.ref.name'], descriptor, directory)
    }
  }

  async #addStored(
    repository: string,
    tag: string | undefined,
    { digest, mediaType }: StoredDescriptor,
    directory: string,
  ): Promise<void> {
    const file = (of: string): string => join(directory, 'blobs', of.replace(':', '/'))
    const json = await readFile(file(digest), 'utf8')
    this.addManifest(repository, tag, json, mediaType)
    const { config, layers = [], manifests = [] } = JSON.parse(json) as ManifestJson
    for (const child of manifests) await this.#addStored(repository, undefined, child, directory)
    for (const blob of config === undefined ? layers : [config, ...layers]) {
      this.#blobs.set(blob.digest, { file: file(blob.digest), sizeBytes: (await stat(file(blob.digest))).size })
    }
  }

  hasBlob(digest: string): boolean {
    return this.#blobs.has(digest)
  }

  /** The stored manifest of a tag or digest. */
  manifest(repository: string, name: string): string | undefined {
    const { manifests, tags } = this.#repository(repository)
    return manifests.get(tags.get(name) ?? name)?.bytes.toString()
  }

  /** The manifest stays, under its digest. */
  deleteTag(repository: string, tag: string): void {
    this.#repository(repository).tags.delete(tag)
  }

  async answer(request: BackendRequest): Promise<Answer> {
    if (/^\/v2\/?$/.test(request.url.pathname))
      return jsonAnswer(200, {}, { 'docker-distribution-api-version': 'registry/2.0' })
    const { name, kind, rest } = route.exec(request.url.pathname)?.groups ?? {}
    if (name === undefined || rest === undefined) return failed(404, 'NOT_FOUND')
    if (kind === 'manifests') return await this.#manifests(request, name, rest)
    if (kind === 'tags') return this.#tagList(request, name)
    if (kind === 'referrers') return this.#referrers(request, name, rest)
    return rest.startsWith('uploads') ? await this.#upload(request, name, rest) : this.#blob(request, rest)
  }

  async #manifests({ method, headers, body }: BackendRequest, name: string, which: string): Promise<Answer> {
    const { manifests, tags } = this.#repository(name)
    const digest = tags.get(which) ?? which
    const found = manifests.get(digest)
    if (method === 'PUT')
      return this.#putManifest(name, which, await bytesOf(body), headers['content-type'] ?? manifestType)
    if (found === undefined) return failed(404, 'MANIFEST_UNKNOWN')
    if (method === 'DELETE') {
      if (which === digest) manifests.delete(digest)
      else tags.delete(which)
      return emptyAnswer(202)
    }
    const { bytes, mediaType } = found
    return {
      status: 200,
      headers: { 'content-type': mediaType, 'docker-content-digest': digest },
      length: bytes.length,
      body: [bytes],
    }
  }

  #putManifest(name: string, which: string, bytes: Buffer, mediaType: string): Answer {
    const digest = sha256(bytes)
    const isTag = !which.startsWith('sha256:')
    if (!isTag && which !== digest) return failed(400, 'DIGEST_INVALID')
    let manifest: ManifestJson
    try {
      manifest = JSON.parse(bytes.toString()) as ManifestJson
    } catch {
      return failed(400, 'MANIFEST_INVALID')
    }
    const { config, layers = [], manifests = [], subject } = manifest
    const { manifests: stored } = this.#repository(name)
    if ([config, ...layers].some((blob) => blob !== undefined && !this.#blobs.has(blob.digest)))
      return failed(404, 'MANIFEST_BLOB_UNKNOWN')
    if (manifests.some((child) => !stored.has(child.digest))) return failed(404, 'MANIFEST_UNKNOWN')
    this.addManifest(name, isTag ? which : undefined, bytes.toString(), mediaType)
    const headers = { location: `/v2/${name}/manifests/${digest}`, 'docker-content-digest': digest }
    return emptyAnswer(
      201,
      subject === undefined || !this.referrersApi ? headers : { ...headers, 'oci-subject': subject.digest },
    )
  }

  #tagList({ url }: BackendRequest, name: string): Answer {
    const last = url.searchParams.get('last') ?? ''
    const tags = [...this.#repository(name).tags.keys()].sort().filter((tag) => tag > last)
    return jsonAnswer(200, { name, tags: tags.slice(0, Number(url.searchParams.get('n') ?? tags.length)) })
  }

  #referrers({ url }: BackendRequest, name: string, digest: string): Answer {
    if (!this.referrersApi) return failed(404, 'NOT_FOUND')
    const wanted = url.searchParams.get('artifactType')
    const all = [...this.#repository(name).manifests].flatMap(([own, { bytes, mediaType }]) => {
      const { subject, artifactType, config, annotations } = JSON.parse(bytes.toString()) as ManifestJson
      const type = artifactType ?? config?.mediaType
      if (subject?.digest !== digest || (wanted !== null && type !== wanted)) return []
      return [
        {
          mediaType,
          digest: own,
          size: bytes.length,
          ...(type === undefined ? {} : { artifactType: type }),
          ...(annotations === undefined ? {} : { annotations }),
        },
      ]
    })
    const from = Number(url.searchParams.get('from') ?? 0)
    const next = from + this.#perPage
    const nextUrl = new URL(url)
    nextUrl.searchParams.set('from', String(next))
    return jsonAnswer(
      200,
      { schemaVersion: 2, mediaType: indexType, manifests: all.slice(from, next) },
      {
        'content-type': indexType,
        ...(wanted === null ? {} : { 'oci-filters-applied': 'artifactType' }),
        ...(next < all.length ? { link: `<${nextUrl.pathname}${nextUrl.search}>; rel="next"` } : {}),
      },
    )
  }

  #blob({ method, headers }: BackendRequest, digest: string): Answer {
    const blob = this.#blobs.get(digest)
    if (blob === undefined) return failed(404, 'BLOB_UNKNOWN')
    if (method === 'DELETE') {
      this.#blobs.delete(digest)
      return emptyAnswer(202)
    }
    const ranged = {
      sizeBytes: 'bytes' in blob ? blob.bytes.length : blob.sizeBytes,
      mediaType: 'application/octet-stream',
      read: (start: number, end: number) => readBlob(blob, start, end),
    }
    return answerRange(ranged, method === 'GET' ? headers['range'] : undefined, { 'docker-content-digest': digest })
  }

  /** POST begins an upload, or is all of it if it has `digest`. PATCH appends. PUT ends. */
  async #upload({ method, url, headers, body }: BackendRequest, name: string, path: string): Promise<Answer> {
    const id = path.split('/')[1] ?? ''
    const digest = url.searchParams.get('digest')
    const bytes = await bytesOf(body)
    if (method === 'POST') {
      if (digest !== null) return this.#finish(name, digest, bytes)
      const mounted = url.searchParams.get('mount')
      if (mounted !== null && this.#blobs.has(mounted))
        return emptyAnswer(201, { location: `/v2/${name}/blobs/${mounted}` })
      const fresh = randomUUID()
      this.#uploads.set(fresh, [])
      return emptyAnswer(202, { location: `/v2/${name}/blobs/uploads/${fresh}?state=0`, range: '0-0' })
    }
    const upload = this.#uploads.get(id)
    if (upload === undefined) return failed(404, 'BLOB_UPLOAD_UNKNOWN')
    const length = (): number => upload.reduce((sum, piece) => sum + piece.length, 0)
    const from = /^(\d+)-/.exec(headers['content-range'] ?? '')?.[1]
    if (from !== undefined && Number(from) !== length())
      return failed(416, 'BLOB_UPLOAD_INVALID', { range: `0-${length() - 1}` })
    if (method === 'DELETE') {
      this.#uploads.delete(id)
      return emptyAnswer(204)
    }
    upload.push(bytes)
    if (method === 'PATCH')
      return emptyAnswer(202, {
        location: `/v2/${name}/blobs/uploads/${id}?state=${length()}`,
        range: `0-${length() - 1}`,
      })
    this.#uploads.delete(id)
    return this.#finish(name, digest ?? '', Buffer.concat(upload))
  }

  #finish(name: string, digest: string, bytes: Buffer): Answer {
    if (sha256(bytes) !== digest) return failed(400, 'DIGEST_INVALID')
    this.addBlob(bytes)
    return emptyAnswer(201, { location: `/v2/${name}/blobs/${digest}`, 'docker-content-digest': digest })
  }

  #repository(name: string): Repository {
    const repository = this.#repositories.get(name)
    if (repository !== undefined) return repository
    const fresh: Repository = { manifests: new Map(), tags: new Map() }
    this.#repositories.set(name, fresh)
    return fresh
  }
}

function readBlob(blob: Blob, start: number, end: number): AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
  if ('bytes' in blob) return [blob.bytes.subarray(start, end)]
  return end === start ? [] : (createReadStream(blob.file, { start, end: end - 1 }) as AsyncIterable<Buffer>)
}

const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

async function bytesOf(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  for await (const piece of body) pieces.push(piece)
  return Buffer.concat(pieces)
}
