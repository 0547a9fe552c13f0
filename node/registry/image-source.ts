import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import { BoundedMap } from '../base/bounded-map.ts'
import type { Log } from '../base/log.ts'
import { HttpRegistry, type HttpRegistryOptions } from './http-registry.ts'
import {
  checkSize,
  layersOf,
  maxConfigBytes,
  parseManifest,
  type Descriptor,
  type LayerDescriptor,
} from './image-manifest.ts'
import type {
  ByteRange,
  ImageStorage,
  ReadBlobOptions,
  ReadRangeOptions,
  Referrer,
  StoredManifest,
} from './image-storage.ts'
import { candidatesFor, platformOf, suits } from './index-candidates.ts'
import { localImages } from './local-images.ts'
import { OciLayout } from './oci-layout.ts'
import { formatReference, type Reference } from './reference.ts'

export { layersOf, type Descriptor, type LayerDescriptor } from './image-manifest.ts'
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

/** Levels of indexes that name one another; nobody makes more than two. */
const maxIndexDepth = 3
/** Manifests of indexes that are read to find one image: most indexes need one. */
const maxManifests = 16
/** Images that are remembered, so that each is warned of once. */
const maxMisfits = 1024

/** An image that was found below a reference, perhaps in an index. */
interface FoundImage extends StoredManifest {
  descriptor: Descriptor
  isArtifact: boolean
  /** An index names the platform of the image. */
  isNamed: boolean
}

/** A search for an image: what it asks for, and how much it may still read. */
interface Search {
  reference: Reference
  platform: string
  signal: AbortSignal
  onAnswer: () => void
  manifestsLeft: number
}

export interface ImageSourceParts {
  registry: ImageStorage & Partial<Pick<HttpRegistry, 'start' | 'close'>>
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
    const search = { reference, platform, signal, onAnswer, manifestsLeft: maxManifests }
    const { digest, json, descriptor, isNamed } = await this.#find(top, search)
    const config = await this.#config(reference, descriptor, signal)
    const layers = layersOf(json, config)
    if (!suits(config, platform)) this.#misfit(config, { name, platform, digest, isNamed })
    const image = { reference: name, platform, manifestDigest: digest, manifest: json, config, layers }
    return { ...image, topDigest: top.digest }
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

  /** The image for the platform below a manifest or index: itself, or the first that fits. */
  async #find({ digest, json }: StoredManifest, search: Search, depth = 0): Promise<FoundImage> {
    const { reference, platform, signal } = search
    const name = formatReference(reference)
    const manifest = parseManifest(json, `manifest of ${name}`)
    if (manifest.kind === 'image') {
      const { config: descriptor, isArtifact } = manifest
      return { digest, json, descriptor, isArtifact, isNamed: false }
    }
    if (depth === maxIndexDepth)
      throw new P2pfsError('invalid', `${name} is an index in more than ${maxIndexDepth} others`)
    const entries = candidatesFor(manifest.entries, platform, name)
    for (const entry of entries) {
      if (search.manifestsLeft-- === 0)
        throw new P2pfsError(
          'invalid',
          `${name} has no image for ${platform} among its first ${maxManifests} manifests`,
        )
      const child = await this.#storage(reference).manifestByDigest(reference, entry, { signal })
      search.onAnswer()
      try {
        const found = await this.#find({ digest: entry.digest, json: child }, search, depth + 1)
        const isNamed = found.isNamed || entry.platform !== undefined
        // A single candidate is taken for what it is, and refused with what is wrong with it.
        if (entries.length === 1 || (await this.#fits({ ...found, isNamed }, search))) return { ...found, isNamed }
      } catch (error) {
        if (entries.length === 1 || !isP2pfsError(error, 'missing')) throw error
      }
    }
    throw new P2pfsError('missing', `${name} has no image for ${platform}: choose with --platform`)
  }

  /** Whether an entry of an index is an image for the platform, by what it says itself. */
  async #fits(
    { descriptor, isArtifact, isNamed }: FoundImage,
    { reference, platform, signal }: Search,
  ): Promise<boolean> {
    if (isArtifact) return false
    return isNamed || suits(await this.#config(reference, descriptor, signal), platform)
  }

  /** An index is believed where it names the platform: it is what the image was chosen by. @throws missing otherwise */
  #misfit(
    config: string,
    { name, platform, digest, isNamed }: { name: string; platform: string; digest: Digest; isNamed: boolean },
  ): void {
    const { os, architecture } = platformOf(config) ?? {}
    const own = `${os}/${architecture}`
    if (!isNamed) throw new P2pfsError('missing', `${name} is for ${own}, not for ${platform}; choose with --platform`)
    if (this.#misfits.has(digest)) return
    this.#misfits.set(digest, true)
    this.#log.warn('image config names another platform than the index that lists the image; the index is believed', {
      image: name,
      digest,
      platform,
      config: own,
    })
  }

  async #config(reference: Reference, descriptor: Descriptor, signal: AbortSignal): Promise<string> {
    checkSize(descriptor, maxConfigBytes, 'image config')
    const pieces: Uint8Array[] = []
    for await (const piece of this.#storage(reference).blob(reference, descriptor, { signal })) pieces.push(piece)
    return Buffer.concat(pieces).toString()
  }
}

export interface ImageSourceOptions extends HttpRegistryOptions {
  log: Log
}

export function createImageSource({ log, ...options }: ImageSourceOptions): ImageSource {
  return new ImageSource({ registry: new HttpRegistry({ log }, options), layout: new OciLayout(), log })
}
