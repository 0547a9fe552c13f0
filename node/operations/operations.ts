import { randomUUID } from 'node:crypto'
import type { Digest } from '../../protocol/digest.ts'
import type { LayerIndex } from '../../protocol/layer-index.ts'
import { encodeBootProfile, sketchOf } from '../../protocol/boot-profile.ts'
import { rootfsFormats, parseRootfsFormat, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { BootProfiles } from '../boot/profiles.ts'
import type { Config } from '../config.ts'
import type {
  ExportRequest,
  ExportResult,
  ImageRequest,
  ImportRequest,
  InspectRequest,
  InspectResult,
  MountReport,
  MountRequest,
  MountResult,
  Placed,
  ResetRequest,
  SeedRequest,
  SeedResult,
  Status,
  UmountRequest,
  VerifyRequest,
  VerifyResult,
} from '../control/api.ts'
import type { OperationOptions, Operations } from '../control/operations.ts'
import type { Fetcher } from '../fetch/fetcher.ts'
import type { Importer } from '../images/importer.ts'
import { inspect, sizeOf, type Known } from './inspect.ts'
import type { Log } from '../base/log.ts'
import type { Mounts } from '../mount/mounts.ts'
import type { PublishedImages } from '../publish/published-images.ts'
import type { Publisher } from '../publish/publisher.ts'
import { parseReference, type Reference } from '../registry/reference.ts'
import { exportRootfs } from './export-file.ts'
import { checkMountDirectory } from './mount-directory.ts'
import type { ResolvedRootfs, Variant } from '../model/image.ts'
import type { ImageResolver } from '../images/resolver.ts'
import { seedRootfs } from './make-whole.ts'
import type { Catalog } from '../store/catalog.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import type { Holdings } from '../store/holdings.ts'
import type { Verification } from './verify.ts'

export interface ImageOperationsParts {
  catalog: Catalog
  store: ChunkStore
  holdings: Pick<Holdings, 'localBytes'>
  fetcher: Fetcher
  images: ImageResolver
  origins: Importer
  published: Pick<PublishedImages, 'layerIndexes'>
  publisher: Publisher
  profiles: Pick<BootProfiles, 'find'>
  verification: Verification
  /** Undefined until the daemon serves. */
  mounts: () => Mounts | undefined
  /** How the reads of a mounted rootfs fare. */
  report: (digest: Digest, manifest: RootfsManifest) => MountReport
  status: () => Promise<Status>
  log: Log
}

/** What users ask of the daemon. */
export class ImageOperations implements Operations {
  readonly #parts: ImageOperationsParts
  readonly #config: Config

  constructor(parts: ImageOperationsParts, config: Config) {
    this.#parts = parts
    this.#config = config
  }

  async status(): Promise<Status> {
    return await this.#parts.status()
  }

  async seed(request: SeedRequest, { signal, onProgress }: OperationOptions): Promise<SeedResult> {
    const { reference, variant } = this.#parse(request)
    const known = await this.#parts.images.resolveForSeed(reference, variant, {
      signal,
      onProgress: (progress) => onProgress({ step: 'import', ...progress }),
    })
    const seeded = await this.#makeWhole(known, { signal, onProgress })
    if (request.publish !== true) return seeded
    const profile = await this.#profileOf(known, signal)
    const published = await this.#parts.publisher.publish(known, {
      signal,
      ...(profile && { profile }),
      onProgress: (progress) => onProgress({ step: 'publish', ...progress }),
    })
    this.#parts.log.info('index published', {
      image: seeded.reference,
      format: seeded.format,
      artifact: published.digest,
      maker: published.key,
    })
    return { ...seeded, published }
  }

  /** What is known of boots of the image, to be published with it. */
  async #profileOf({ record, manifest }: ResolvedRootfs, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const regions = manifest.layers.map(({ chunks }) => chunks)
    const found = await this.#parts.profiles.find(
      { rootfs: record.rootfsDigest, sketch: sketchOf(regions) },
      regions.map(({ id }) => id),
      { signal },
    )
    return found === undefined ? undefined : encodeBootProfile(found.profile)
  }

  async import(request: ImportRequest, { signal, onProgress }: OperationOptions): Promise<SeedResult> {
    const reference = parseReference(`local:${request.name.replace(/^local:/, '')}`)
    const source = request.source.startsWith('oci:') ? parseReference(request.source) : request.source
    const variant = this.#variant(request)
    const { record, ...imported } = await this.#parts.origins.importLocal(source, reference, variant, {
      signal,
      onProgress: (progress) => onProgress({ step: 'import', ...progress }),
    })
    const known = await this.#parts.images.add(record, imported)
    return await this.#makeWhole({ ...known, origin: 'local', resolution: 'last-known' }, { signal, onProgress })
  }

  async mount(request: MountRequest, { signal, onProgress }: OperationOptions): Promise<MountResult> {
    const { directory, as = 'drive', writable = false, limitBytes, scratchBytes, pull = 'auto' } = request
    await checkMountDirectory(directory, this.#config.stateDir)
    const { reference, variant } = this.#parse(request, as === 'tree' ? 'erofs' : 'ext4')
    const { record, manifest, origin, resolution, unanswered } = await this.#parts.images.resolveForMount(
      reference,
      variant,
      {
        pull,
        signal,
        onProgress: (progress) => onProgress({ step: 'import', ...progress }),
      },
    )
    const mount = {
      id: randomUUID(),
      directory,
      rootfsDigest: record.rootfsDigest,
      manifestDigest: record.manifestDigest,
      reference: record.reference,
      ...variant,
      origin,
      resolution,
      as,
      writable,
      ...(limitBytes === undefined ? {} : { limitBytes }),
      ...(scratchBytes === undefined ? {} : { scratchBytes }),
      mountedAt: new Date().toISOString(),
    }
    const placed = await this.#mounts.mount(manifest, mount, { signal })
    this.#parts.log.info('image mounted', {
      image: record.reference,
      directory,
      as,
      digest: record.rootfsDigest,
      origin,
      resolution,
    })
    return {
      ...placed,
      as,
      format: manifest.format,
      digest: record.rootfsDigest,
      manifestDigest: record.manifestDigest,
      origin,
      resolution,
      ...(unanswered === undefined ? {} : { unanswered }),
      ...this.#parts.report(record.rootfsDigest, manifest),
      config: JSON.parse(manifest.config) as unknown,
    }
  }

  async reset({ directory }: ResetRequest): Promise<Placed> {
    const placed = await this.#mounts.reset(directory)
    this.#parts.log.info('mount reset', { directory })
    return placed
  }

  async umount({ directory }: UmountRequest): Promise<Record<string, never>> {
    await this.#mounts.umount(directory)
    this.#parts.log.info('mount ended', { directory })
    return {}
  }

  async export(request: ExportRequest, { signal, onProgress }: OperationOptions): Promise<ExportResult> {
    const { reference, variant } = this.#parse(request)
    const { record, manifest } = await this.#parts.images.resolveForMount(reference, variant, {
      pull: 'auto',
      signal,
      onProgress: (progress) => onProgress({ step: 'import', ...progress }),
    })
    const { fetcher } = this.#parts
    await exportRootfs(
      manifest,
      request.file,
      { fetch: async (chunk, options) => await fetcher.fetch(chunk, options) },
      { signal, onProgress: (progress) => onProgress({ step: 'export', ...progress }) },
    )
    return { file: request.file, digest: record.rootfsDigest, sizeBytes: sizeOf(manifest) }
  }

  /** Of what this host or its region knows: nothing is imported to be looked at. */
  async inspect(request: InspectRequest, { signal }: OperationOptions): Promise<InspectResult> {
    const { reference, variant } = this.#parse(request)
    const { images, origins, holdings } = this.#parts
    const known = await images.find(reference, variant, { signal })
    if (known === undefined) {
      throw new P2pfsError(
        'missing',
        `neither this host nor its region knows ${request.image} for ${variant.platform}; p2pfs seed ${request.image} first`,
      )
    }
    let indexes: ReturnType<PublishedImages['layerIndexes']> | undefined
    const fromRegistry = async (diffId: Digest): Promise<LayerIndex | undefined> => {
      indexes ??= this.#parts.published.layerIndexes(known.record, { signal })
      return (await indexes)?.get(diffId)
    }
    return await inspect(known, await this.#all(variant.format), {
      localBytes: (tables) => holdings.localBytes(tables),
      layer: async (diffId) => (await origins.knownLayer(diffId, signal)) ?? (await fromRegistry(diffId)),
    })
  }

  async verify(request: VerifyRequest, { signal, onProgress }: OperationOptions): Promise<VerifyResult> {
    const { reference, variant } = this.#parse(request)
    const result = await this.#parts.verification.verify(reference, variant, {
      signal,
      onProgress: (progress) => onProgress({ step: 'verify', ...progress }),
    })
    if (!result.same)
      this.#parts.log.error('an image is used for what its layers do not make', {
        image: result.reference,
        digest: result.digest,
      })
    return result
  }

  async #all(format: Variant['format']): Promise<Known[]> {
    const { catalog } = this.#parts
    const all: Known[] = []
    for (const record of await catalog.images()) {
      const manifest = record.format === format ? await catalog.rootfs(record.rootfsDigest) : undefined
      if (manifest !== undefined) all.push({ record, manifest })
    }
    return all
  }

  async #makeWhole(
    { record, manifest, origin }: ResolvedRootfs,
    { signal, onProgress }: OperationOptions,
  ): Promise<SeedResult> {
    const { store, fetcher, log } = this.#parts
    await seedRootfs(
      manifest,
      {
        has: (digest) => store.has(digest),
        fetch: async (chunk, options) => await fetcher.fetch(chunk, options),
        settled: async () => await fetcher.settled(),
      },
      { signal, onProgress: (progress) => onProgress({ step: 'fetch', ...progress }) },
    )
    const { reference, platform, format, rootfsDigest: digest } = record
    log.info('image seeded', { image: reference, format, digest, origin })
    return { reference, platform, format, digest, sizeBytes: sizeOf(manifest), origin }
  }

  get #mounts(): Mounts {
    const mounts = this.#parts.mounts()
    if (mounts === undefined) throw new P2pfsError('unavailable', 'the daemon is starting; try again')
    return mounts
  }

  #parse(request: ImageRequest, format?: Variant['format']): { reference: Reference; variant: Variant } {
    return { reference: parseReference(request.image), variant: this.#variant(request, format) }
  }

  #variant(
    { platform, format }: Pick<ImageRequest, 'platform' | 'format'>,
    fallback: Variant['format'] = rootfsFormats[0],
  ): Variant {
    return {
      platform: platform ?? this.#config.platform,
      format: format === undefined ? fallback : parseRootfsFormat(format),
    }
  }
}
