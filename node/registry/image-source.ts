import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Log } from '../base/log.ts'
import { HttpRegistry, type HttpRegistryOptions } from './http-registry.ts'
import {
  checkSize,
  choosePlatform,
  layersOf,
  maxConfigBytes,
  parseManifest,
  type Descriptor,
  type LayerDescriptor,
} from './image-manifest.ts'
import type { ByteRange, ImageStorage, ReadBlobOptions, ReadRangeOptions, Referrer } from './image-storage.ts'
import { localImages } from './local-images.ts'
import { OciLayout } from './oci-layout.ts'
import { formatReference, type Reference } from './reference.ts'

export { layersOf, type Descriptor, type LayerDescriptor } from './image-manifest.ts'
export type { ByteRange, ReadRangeOptions, Referrer } from './image-storage.ts'

/** An image for one platform, all that is small of it. */
export interface ResolvedImage {
  /** Canonical. */
  reference: string
  platform: string
  manifestDigest: Digest
  /** JSON, as stored. */
  manifest: string
  /** The OCI image config, JSON, as stored. */
  config: string
  layers: LayerDescriptor[]
}

/** Where images come from: registries, and OCI layouts on disk. */
export class ImageSource implements AsyncDisposable {
  readonly #registry: ImageStorage & Partial<Pick<HttpRegistry, 'start' | 'close'>>
  readonly #layout: ImageStorage

  constructor({
    registry,
    layout,
  }: {
    registry: ImageStorage & Partial<Pick<HttpRegistry, 'start' | 'close'>>
    layout: ImageStorage
  }) {
    this.#registry = registry
    this.#layout = layout
  }

  /** Reads the certificates that the options name. @throws invalid */
  async start(): Promise<void> {
    await this.#registry.start?.()
  }

  /** Ends what is under way with `closed`; idempotent. */
  async close(): Promise<void> {
    await this.#registry.close?.()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** What the reference stands for now. @throws missing, denied, unavailable, timeout, invalid, unsupported */
  async resolve(reference: Reference, platform: string, { signal }: { signal: AbortSignal }): Promise<ResolvedImage> {
    const storage = this.#storage(reference)
    const name = formatReference(reference)
    let { digest, json } = await storage.manifest(reference, { signal })
    let manifest = parseManifest(json, `manifest of ${name}`)
    // An index may name another one; two levels are more than anybody makes.
    for (let depth = 0; manifest.kind === 'index' && depth < 3; depth++) {
      const entry = choosePlatform(manifest.entries, platform, name)
      digest = entry.digest
      json = await storage.manifestByDigest(reference, entry, { signal })
      manifest = parseManifest(json, `manifest of ${name}`)
    }
    const config = manifest.kind === 'image' ? await this.#text(reference, manifest.config, signal) : ''
    const layers = layersOf(json, config)
    checkPlatform(config, platform, name)
    return { reference: name, platform, manifestDigest: digest, manifest: json, config, layers }
  }

  /** The digest of the image manifest that the reference stands for now: one request, where {@link resolve} takes up to three. */
  async manifestDigest(reference: Reference, platform: string, { signal }: { signal: AbortSignal }): Promise<Digest> {
    const { digest, json } = await this.#storage(reference).manifest(reference, { signal })
    const name = formatReference(reference)
    const manifest = parseManifest(json, `manifest of ${name}`)
    return manifest.kind === 'index' ? choosePlatform(manifest.entries, platform, name).digest : digest
  }

  /** The layer's bytes as they are stored. @throws invalid where they are not what the descriptor says; as {@link resolve} */
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

  /** A manifest by its digest, as stored. @throws invalid where it is not what the descriptor says */
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

  async #text(reference: Reference, descriptor: Descriptor, signal: AbortSignal): Promise<string> {
    checkSize(descriptor, maxConfigBytes, 'image config')
    const pieces: Uint8Array[] = []
    for await (const piece of this.#storage(reference).blob(reference, descriptor, { signal })) pieces.push(piece)
    return Buffer.concat(pieces).toString()
  }
}

/** An image that is no index says in its config what it is for. @throws missing */
function checkPlatform(config: string, platform: string, name: string): void {
  const { os, architecture } = JSON.parse(config) as { os?: unknown; architecture?: unknown }
  if (typeof os !== 'string' || typeof architecture !== 'string' || os === '' || architecture === '') return
  const base = platform.split('/').slice(0, 2).join('/')
  if (`${os}/${architecture}` !== base)
    throw new P2pfsError(
      'missing',
      `${name} is for ${os}/${architecture}, not for ${platform}; use --platform ${os}/${architecture}`,
    )
}

export interface ImageSourceOptions extends HttpRegistryOptions {
  log: Log
}

export function createImageSource({ log, ...options }: ImageSourceOptions): ImageSource {
  return new ImageSource({ registry: new HttpRegistry({ log }, options), layout: new OciLayout() })
}
