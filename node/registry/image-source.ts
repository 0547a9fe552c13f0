import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import { BoundedMap } from '../base/bounded-map.ts'
import type { Log } from '../base/log.ts'
import type { CredentialStore } from './credentials.ts'
import { HttpRegistry, type HttpRegistryOptions } from './http-registry.ts'
import { layersOf, type Descriptor, type LayerDescriptor } from './image-manifest.ts'
import type { ByteRange, ImageStorage, ReadBlobOptions, ReadRangeOptions, Referrer } from './image-storage.ts'
import { ImageSearch } from './image-search.ts'
import { platformOf, suits } from './index-candidates.ts'
import { localImages } from './local-images.ts'
import { OciLayout } from './oci-layout.ts'
import { formatReference, type Reference } from './reference.ts'

export { configDigestOf, layersOf, type Descriptor, type LayerDescriptor } from './image-manifest.ts'
export type { ByteRange, ReadRangeOptions, Referrer } from './image-storage.ts'

/** An image for one platform, without its layers' bytes. */
export interface ResolvedImage {
  /** Canonical. */
  reference: string
  platform: string
  manifestDigest: Digest
  /** JSON, as stored. */
  manifest: string
  /** The OCI image config: JSON, as stored. */
  config: string
  layers: LayerDescriptor[]
}

/** Images that are remembered, so that each is warned of once. */
const maxMisfits = 1024

export interface ImageSourceParts {
  registry: ImageStorage & Partial<Pick<HttpRegistry, 'start' | 'close' | 'isNamed'>>
  layout: ImageStorage
  log: Log
}

/** The places that images come from: registries, and OCI layouts on disk. */
export class ImageSource implements AsyncDisposable {
  readonly #registry: ImageSourceParts['registry']
  readonly #layout: ImageStorage
  readonly #log: Log
  /** Images whose config does not fit their index: each is warned of once. */
  readonly #misfits = new BoundedMap<Digest, true>({ maxEntries: maxMisfits })

  constructor({ registry, layout, log }: ImageSourceParts) {
    this.#registry = registry
    this.#layout = layout
    this.#log = log
  }

  /** Reads the files that the options name. @throws invalid */
  async start(): Promise<void> {
    await this.#registry.start?.()
  }

  /** Ends requests with `closed`; idempotent. */
  async close(): Promise<void> {
    await this.#registry.close?.()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /**
   * The image that the reference names now, and `topDigest`: the digest of the manifest or index that it names.
   * @param options `onAnswer` is called for each manifest that comes
   * @throws missing, denied, unavailable, timeout, invalid, unsupported
   */
  async resolve(
    reference: Reference,
    platform: string,
    { signal, onAnswer = () => undefined }: { signal: AbortSignal; onAnswer?: () => void },
  ): Promise<ResolvedImage & { topDigest: Digest }> {
    const name = formatReference(reference)
    const top = await this.#storage(reference).manifest(reference, { signal })
    onAnswer()
    const search = new ImageSearch({ storage: this.#storage(reference) }, { reference, platform, signal, onAnswer })
    const found = await search.find(top)
    const { digest, json } = found
    const config = await search.config(found)
    const layers = layersOf(json, config)
    if (!suits(config, platform)) this.#misfit(config, { name, platform, ...found })
    const image = { reference: name, platform, manifestDigest: digest, manifest: json, config, layers }
    return { ...image, topDigest: top.digest }
  }

  /** See {@link HttpRegistry.isNamed}; false for images that are in no registry. */
  async isNamed(reference: Reference): Promise<boolean> {
    return reference.kind === 'registry' && (await this.#registry.isNamed?.(reference)) === true
  }

  /** See {@link ImageStorage.digest}. */
  async topDigest(reference: Reference, { signal }: { signal: AbortSignal }): Promise<Digest> {
    return await this.#storage(reference).digest(reference, { signal })
  }

  /**
   * The layer's bytes as they are stored.
   * @throws invalid where they are not what the descriptor says; as {@link resolve}
   */
  openLayer(reference: Reference, layer: Descriptor, options: ReadBlobOptions): AsyncIterable<Uint8Array> {
    return this.#storage(reference).blob(reference, layer, options)
  }

  /** See {@link ImageStorage.range}. */
  async range(
    reference: Reference,
    blob: Descriptor,
    range: ByteRange,
    options: ReadRangeOptions,
  ): Promise<Uint8Array> {
    return await this.#storage(reference).range(reference, blob, range, options)
  }

  /** See {@link ImageStorage.manifestByDigest}. */
  async manifest(reference: Reference, descriptor: Descriptor, options: { signal: AbortSignal }): Promise<string> {
    return await this.#storage(reference).manifestByDigest(reference, descriptor, options)
  }

  /** See {@link ImageStorage.pushBlob}. */
  async pushBlob(
    reference: Reference,
    bytes: Uint8Array,
    options: { signal: AbortSignal },
  ): Promise<{ digest: Digest; sizeBytes: number }> {
    return await this.#storage(reference).pushBlob(reference, bytes, options)
  }

  /** See {@link ImageStorage.pushManifest}. */
  async pushManifest(
    reference: Reference,
    name: string,
    json: string,
    mediaType: string,
    options: { signal: AbortSignal },
  ): Promise<{ digest: Digest; sizeBytes: number }> {
    return await this.#storage(reference).pushManifest(reference, name, json, mediaType, options)
  }

  /** See {@link ImageStorage.referrers}. */
  async referrers(
    reference: Reference,
    digest: Digest,
    artifactType: string | undefined,
    options: { signal: AbortSignal },
  ): Promise<Referrer[]> {
    return await this.#storage(reference).referrers(reference, digest, artifactType, options)
  }

  #storage(reference: Reference): ImageStorage {
    if (reference.kind === 'local') return localImages
    return reference.kind === 'layout' ? this.#layout : this.#registry
  }

  /** An index is believed where it names the platform: it is what the image was chosen by. @throws missing otherwise */
  #misfit(
    config: string,
    { name, platform, digest, isNamed }: { name: string; platform: string; digest: Digest; isNamed: boolean },
  ): void {
    const { os, architecture } = platformOf(config) ?? {}
    const own = `${os}/${architecture}`
    if (!isNamed)
      throw new P2pfsError(
        'missing',
        `${name} is for ${own} only, and not for ${platform}: --platform ${own} takes it as it is`,
      )
    if (this.#misfits.has(digest)) return
    this.#misfits.set(digest, true)
    this.#log.warn('image config names another platform than the index that lists the image; the index is believed', {
      image: name,
      digest,
      platform,
      config: own,
    })
  }
}

export interface ImageSourceOptions extends HttpRegistryOptions {
  log: Log
  /** Those of Docker's configuration by default. */
  credentials?: CredentialStore
}

export function createImageSource({ log, credentials, ...options }: ImageSourceOptions): ImageSource {
  const registry = new HttpRegistry({ log, ...(credentials && { credentials }) }, options)
  return new ImageSource({ registry, layout: new OciLayout(), log })
}
