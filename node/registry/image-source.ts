import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { BoundedMap } from '../base/bounded-map.ts'
import type { Log } from '../base/log.ts'
import type { ContentSharing } from '../model/content-sharing.ts'
import type { CredentialStore } from './credential-store.ts'
import { HeldCallers } from './held-callers.ts'
import { HttpRegistry, type HttpRegistryOptions } from './http-registry.ts'
import { layersOf, type Descriptor, type LayerDescriptor } from './image-manifest.ts'
import type { ByteRange, ImageStorage, ReadBlobOptions, ReadRangeOptions, Referrer } from './image-storage.ts'
import { ImageSearch } from './image-search.ts'
import { platformOf, suits } from './index-candidates.ts'
import { localImages } from './local-images.ts'
import { OciLayout } from './oci-layout.ts'
import { formatReference, type Reference } from './reference.ts'
import { SharedStorage } from './shared-storage.ts'

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
  registry: ImageStorage & Partial<Pick<HttpRegistry, 'start' | 'close' | 'isNamed' | 'checkAccess'>>
  layout: ImageStorage
  /** In whose name the content of images is read, besides this host's own. */
  callers?: HeldCallers
  /** For what {@link ImageSource.resolve} reads by digest; without it each host reads that from the registry. */
  sharing?: ContentSharing
  log: Log
}

/** The places that images come from: registries, and OCI layouts on disk. */
export class ImageSource implements AsyncDisposable {
  readonly #registry: ImageSourceParts['registry']
  readonly #layout: ImageStorage
  readonly #callers: HeldCallers
  readonly #shared: SharedStorage | undefined
  readonly #log: Log
  /** Images whose config does not fit their index: each is warned of once. */
  readonly #misfits = new BoundedMap<Digest, true>({ maxEntries: maxMisfits })

  constructor({ registry, layout, callers = new HeldCallers(), sharing, log }: ImageSourceParts) {
    this.#registry = registry
    this.#layout = layout
    this.#callers = callers
    this.#shared = sharing && new SharedStorage(registry, sharing)
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
    const storage = (reference.kind === 'registry' ? this.#shared : undefined) ?? this.#storage(reference)
    const search = new ImageSearch({ storage }, { reference, platform, signal, onAnswer })
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

  /** See {@link HttpRegistry.checkAccess}; everybody may read what is in no registry. */
  async checkAccess(reference: Reference, { signal }: { signal: AbortSignal }): Promise<void> {
    if (reference.kind === 'registry') await this.#registry.checkAccess?.(reference, { signal })
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
    const readers = this.#callers.readersOf(reference)
    return readers.length === 1
      ? this.#storage(reference).blob(reference, layer, options)
      : this.#blob(readers, layer, options)
  }

  async *#blob(readers: readonly Reference[], layer: Descriptor, options: ReadBlobOptions): AsyncGenerator<Uint8Array> {
    for (const [i, reader] of readers.entries()) {
      let hasBegun = false
      try {
        for await (const piece of this.#storage(reader).blob(reader, layer, options)) {
          hasBegun = true
          yield piece
        }
        return
      } catch (error) {
        if (hasBegun || i === readers.length - 1 || !this.#isRefused(reader, error)) throw error
      }
    }
  }

  /** Asks in the name of one reader after the other, until one is not refused. */
  async #inNameOf<T>(reference: Reference, ask: (reader: Reference) => Promise<T>): Promise<T> {
    const readers = this.#callers.readersOf(reference)
    for (const reader of readers.slice(0, -1)) {
      try {
        return await ask(reader)
      } catch (error) {
        if (!this.#isRefused(reader, error)) throw error
      }
    }
    return await ask(readers.at(-1)!)
  }

  /** Registries hide what is private: they answer that it is missing. */
  #isRefused(reader: Reference, error: unknown): boolean {
    if (isP2pfsError(error, 'denied')) this.#callers.refused(reader)
    return isP2pfsError(error, 'denied', 'missing')
  }

  /** See {@link ImageStorage.range}. */
  async range(
    reference: Reference,
    blob: Descriptor,
    range: ByteRange,
    options: ReadRangeOptions,
  ): Promise<Uint8Array> {
    return await this.#inNameOf(
      reference,
      async (reader) => await this.#storage(reader).range(reader, blob, range, options),
    )
  }

  /** See {@link ImageStorage.manifestByDigest}. */
  async manifest(reference: Reference, descriptor: Descriptor, options: { signal: AbortSignal }): Promise<string> {
    return await this.#inNameOf(
      reference,
      async (reader) => await this.#storage(reader).manifestByDigest(reader, descriptor, options),
    )
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
    return await this.#inNameOf(
      reference,
      async (reader) => await this.#storage(reader).referrers(reader, digest, artifactType, options),
    )
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
  callers?: HeldCallers
  sharing?: ContentSharing
}

export function createImageSource({ log, credentials, callers, sharing, ...options }: ImageSourceOptions): ImageSource {
  const registry = new HttpRegistry({ log, ...(credentials && { credentials }) }, options)
  const layout = new OciLayout()
  return new ImageSource({ registry, layout, ...(callers && { callers }), ...(sharing && { sharing }), log })
}
