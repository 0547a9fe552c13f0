import { Urgency } from '../base/urgency.ts'
import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { KeyedQueue } from '../base/keyed-queue.ts'
import { endpointUrl, type Endpoint } from './endpoint.ts'
import type { EndpointClient } from './endpoint-client.ts'
import { headerOf, textOf, type Headers } from './http-messages.ts'
import { mediaTypes } from './image-manifest.ts'
import type { Referrer } from './image-storage.ts'
import type { RegistryReference } from './reference.ts'
import { ofType, parseReferrers, referrersTag, withReferrer } from './referrers.ts'
import type { RegistryManifests } from './registry-manifests.ts'
import { withRetry, type Clock } from './retry.ts'

export interface RegistryReferrersParts {
  client: Pick<EndpointClient, 'send'>
  manifests: Pick<RegistryManifests, 'get' | 'put'>
  clock: Clock
}

/** Pages of the referrers API that are read; each has up to some thousand entries. */
const maxPages = 32
/** Other hosts may write the index of referrers at the same time: so many tries to have an entry in it. */
const maxIndexWrites = 4

/**
 * Finds what refers to a manifest in a registry: by the referrers API, or by the index that a tag names where there is
 * no API (OCI distribution spec 1.1). Mirrors rarely have either, and are late: the registry itself is asked.
 */
export class RegistryReferrers {
  readonly #parts: RegistryReferrersParts
  /** By index: the tasks of this host do not overwrite one another's entries. */
  readonly #writes = new KeyedQueue()

  constructor(parts: RegistryReferrersParts) {
    this.#parts = parts
  }

  async list(
    endpoint: Endpoint,
    image: RegistryReference,
    subject: Digest,
    artifactType: string | undefined,
    signal: AbortSignal,
  ): Promise<Referrer[]> {
    const listed = await this.#byApi(endpoint, image, subject, artifactType, signal)
    if (listed !== undefined) return ofType(listed, artifactType)
    const json = await this.#byTag(endpoint, image, subject, signal)
    return json === undefined ? [] : ofType(parseReferrers(json, `index of referrers of ${subject}`), artifactType)
  }

  /** Adds an entry to the index that stands for the API, unless the registry says in its answer that it has the API. */
  async add(
    endpoint: Endpoint,
    image: RegistryReference,
    subject: Digest,
    added: Referrer,
    { headers, signal }: { headers: Headers; signal: AbortSignal },
  ): Promise<void> {
    // Distribution spec 1.1, "Pushing Manifests with Subject".
    if (headerOf(headers, 'oci-subject') === subject) return
    const key = `${image.registry}/${image.repository}@${subject}`
    await this.#writes.run(key, async () => await this.#addToIndex(endpoint, image, subject, added, signal))
  }

  /** Reads the index, writes it with the entry, and reads it again, for there is no lock. */
  async #addToIndex(
    endpoint: Endpoint,
    image: RegistryReference,
    subject: Digest,
    added: Referrer,
    signal: AbortSignal,
  ): Promise<void> {
    const { manifests, clock } = this.#parts
    const tag = referrersTag(subject)
    for (let writes = 0; ; writes++) {
      const stored = await this.#byTag(endpoint, image, subject, signal)
      const json = withReferrer(stored, added, `index of referrers of ${subject}`)
      if (json === undefined) return
      if (writes === maxIndexWrites) {
        throw new P2pfsError('unavailable', `other publishers keep writing ${tag} of ${image.repository}; try again`, {
          registry: image.registry,
        })
      }
      const index = { json, mediaType: mediaTypes.ociIndex }
      await withRetry(async () => await manifests.put(endpoint, image, tag, index, signal), { signal, clock })
    }
  }

  /** The index that the referrers tag names; undefined where there is none. */
  async #byTag(
    endpoint: Endpoint,
    image: RegistryReference,
    subject: Digest,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { manifests, clock } = this.#parts
    const get = async (): Promise<{ json: string }> =>
      await manifests.get(endpoint, image, referrersTag(subject), signal)
    try {
      return (await withRetry(get, { signal, clock })).json
    } catch (error) {
      if (isP2pfsError(error, 'missing')) return undefined
      throw error
    }
  }

  /** All pages; undefined where the registry has no such API. */
  async #byApi(
    endpoint: Endpoint,
    image: RegistryReference,
    subject: Digest,
    artifactType: string | undefined,
    signal: AbortSignal,
  ): Promise<Referrer[] | undefined> {
    const found: Referrer[] = []
    let next: URL | undefined = endpointUrl(endpoint, image.repository, `referrers/${subject}`)
    if (artifactType !== undefined) next.searchParams.set('artifactType', artifactType)
    for (let page = 0; next !== undefined && page < maxPages; page++) {
      const url: URL = next
      const { clock } = this.#parts
      const answer = await withRetry(async () => await this.#page(endpoint, image, url, signal), { signal, clock })
      if (answer === undefined) return page === 0 ? undefined : found
      found.push(...parseReferrers(answer.json, `referrers of ${subject}`))
      next = nextPage(answer, endpoint)
    }
    return found
  }

  async #page(
    endpoint: Endpoint,
    image: RegistryReference,
    url: URL,
    signal: AbortSignal,
  ): Promise<{ json: string; headers: Headers; url: URL } | undefined> {
    const response = await this.#parts.client.send(endpoint, image, url, {
      method: 'GET',
      headers: { accept: mediaTypes.ociIndex },
      subject: `referrers of ${image.repository}`,
      // Registries without the API answer with any of these.
      statuses: [200, 400, 404, 405, 406],
      // Small: it waits for no layer.
      urgency: new Urgency(true),
      signal,
    })
    if (response.status === 200)
      return { json: await textOf(response, endpoint.name), headers: response.headers, url: response.url }
    await response.discard()
    return undefined
  }
}

/** @throws unavailable for a page at another server */
function nextPage({ headers, url }: { headers: Headers; url: URL }, { name }: Endpoint): URL | undefined {
  const link = /<([^>]+)>\s*;\s*rel="?next"?/.exec([headers['link']].flat().join(','))?.[1]
  if (link === undefined || !URL.canParse(link, url.href)) return undefined
  const next = new URL(link, url)
  if (next.origin !== url.origin) {
    throw new P2pfsError('unavailable', `${name} continues its list of referrers at ${next.host}`, {
      registry: name,
    })
  }
  return next
}
