import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import { rootfsFormats, type RootfsFormat, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { Log } from '../log.ts'
import type { Reference } from '../registry/reference.ts'
import { formatReference } from '../registry/reference.ts'
import { layersOf, type ResolvedImage } from '../registry/image-source.ts'
import { SingleFlight } from '../single-flight.ts'

/** Where a rootfs manifest came from: this host knew it, a peer did, it was published in the registry, or it was built here. */
export type Origin = 'local' | 'peer' | 'registry' | 'built'

/** An image whose rootfs this host can mount. */
export interface KnownImage {
  record: ImageRecord
  manifest: RootfsManifest
  origin: Origin
}

/** Bytes of the image's compressed layers: how far an import is. */
export interface ImportProgress {
  doneBytes: number
  totalBytes: number
}

export interface FindOptions {
  signal: AbortSignal
  onProgress?: ((progress: ImportProgress) => void) | undefined
}

/** Which rootfs of an image. */
export type Variant = Pick<ImageName, 'platform' | 'format'>

export interface ImagesParts {
  catalog: {
    image: (name: ImageName) => Promise<ImageRecord | undefined>
    putImage: (record: ImageRecord) => Promise<void>
    rootfs: (digest: Digest) => Promise<RootfsManifest | undefined>
    putRootfs: (manifest: RootfsManifest) => Promise<Digest>
  }
  region: {
    findImage: (name: ImageName, options: { signal: AbortSignal }) => Promise<{ record: ImageRecord; peer: string } | undefined>
    fetchRootfs: (digest: Digest, options: { signal: AbortSignal }) => Promise<RootfsManifest | undefined>
  }
  registry: { resolve: (reference: Reference, platform: string, options: { signal: AbortSignal }) => Promise<ResolvedImage> }
  /** Reads all layers once: chunks into the store, metadata made. */
  importImage: (reference: Reference, image: ResolvedImage, format: RootfsFormat, options: FindOptions) => Promise<RootfsManifest>
  /** Called for each manifest that this host gets to know, before its image record is written. */
  onManifest: (manifest: RootfsManifest) => void
  log: Log
}

/** Finds out what rootfs an image reference stands for: from this host, from the region, by importing it. */
export class Images {
  readonly #parts: ImagesParts
  readonly #finding = new SingleFlight<KnownImage>()

  constructor(parts: ImagesParts) {
    this.#parts = parts
  }

  /**
   * For a mount, which must be quick: what this host knows, then what the region knows, then the registry. An image that
   * is known in another format is made again from its layer indexes; the registry is not asked for that.
   * @throws what {@link FindOptions.signal} and the registry client throw
   */
  async forMount(reference: Reference, { platform, format }: Variant, options: FindOptions): Promise<KnownImage> {
    const name = { reference: formatReference(reference), platform, format }
    return await this.#finding.run(`mount ${keyOf(name)}`, options.signal, async (signal) => {
      const found = await this.#known(reference, name, { ...options, signal })
      if (found !== undefined) return found
      const resolved = await this.#parts.registry.resolve(reference, platform, { signal })
      return await this.#obtain(reference, resolved, format, { ...options, signal })
    })
  }

  /**
   * For a seed, which must be current: the registry says what the reference stands for now. Where it cannot be
   * reached, the last known answer is used, with a warning.
   */
  async forSeed(reference: Reference, { platform, format }: Variant, options: FindOptions): Promise<KnownImage> {
    // Nobody but the region knows it.
    if (reference.kind === 'local') return await this.forMount(reference, { platform, format }, options)
    const name = { reference: formatReference(reference), platform, format }
    return await this.#finding.run(`seed ${keyOf(name)}`, options.signal, async (signal) => {
      let resolved: ResolvedImage
      try {
        resolved = await this.#parts.registry.resolve(reference, platform, { signal })
      } catch (error) {
        if (!isP2pfsError(error, 'unavailable', 'timeout', 'busy', 'denied', 'missing')) throw error
        const known = await this.#known(reference, name, { ...options, signal })
        if (known === undefined) throw error
        this.#parts.log.warn('registry does not answer for the image; seeding what the region last knew it as', {
          error,
          image: name.reference,
          digest: known.record.manifestDigest,
        })
        return known
      }
      const known = await this.#local(name)
      if (known?.record.manifestDigest === resolved.manifestDigest) return known
      const found = await this.#fromPeers(name, resolved.manifestDigest, signal)
      return found ?? (await this.#obtain(reference, resolved, format, { ...options, signal }))
    })
  }

  /** What this host or its region knows; nothing is imported. */
  async find(reference: Reference, variant: Variant, options: FindOptions): Promise<KnownImage | undefined> {
    return await this.#known(reference, { reference: formatReference(reference), ...variant }, options)
  }

  /** An image that was made here. */
  async add({ record, manifest }: KnownImage): Promise<void> {
    await this.#parts.catalog.putRootfs(manifest)
    await this.#know(record, manifest)
  }

  /** What this host or its region knows, in this format or in another. */
  async #known(reference: Reference, name: ImageName, options: FindOptions): Promise<KnownImage | undefined> {
    const others = rootfsFormats.filter((format) => format !== name.format).map((format) => ({ ...name, format }))
    for (const find of [async (one: ImageName) => await this.#local(one), async (one: ImageName) => await this.#fromPeers(one, undefined, options.signal)]) {
      const found = await find(name)
      if (found !== undefined) return found
      for (const other of others) {
        const known = await find(other)
        if (known !== undefined) return await this.#convert(reference, known, name.format, options)
      }
    }
    return undefined
  }

  async #convert(reference: Reference, { record, manifest, origin }: KnownImage, format: RootfsFormat, options: FindOptions): Promise<KnownImage> {
    const { config } = manifest
    const image = { ...record, config, layers: layersOf(record.manifest, config) }
    return { ...(await this.#import(reference, image, format, options)), origin }
  }

  async #local(name: ImageName): Promise<KnownImage | undefined> {
    const record = await this.#parts.catalog.image(name)
    if (record === undefined) return undefined
    const manifest = await this.#parts.catalog.rootfs(record.rootfsDigest)
    return manifest === undefined ? undefined : { record, manifest, origin: 'local' }
  }

  async #fromPeers(name: ImageName, manifestDigest: Digest | undefined, signal: AbortSignal): Promise<KnownImage | undefined> {
    const { region, log } = this.#parts
    const found = await region.findImage(name, { signal })
    if (found === undefined) return undefined
    const { record, peer } = found
    if (keyOf(record) !== keyOf(name)) {
      log.warn('peer answers for another image than was asked for', { peer })
      return undefined
    }
    if (manifestDigest !== undefined && record.manifestDigest !== manifestDigest) return undefined
    const manifest = await region.fetchRootfs(record.rootfsDigest, { signal })
    if (manifest === undefined) return undefined
    await this.#know(record, manifest)
    return { record, manifest, origin: 'peer' }
  }

  /** What nobody in the region knows. */
  async #obtain(reference: Reference, image: ResolvedImage, format: RootfsFormat, options: FindOptions): Promise<KnownImage> {
    return await this.#import(reference, image, format, options)
  }

  async #import(reference: Reference, image: ResolvedImage, format: RootfsFormat, options: FindOptions): Promise<KnownImage> {
    const manifest = await this.#parts.importImage(reference, image, format, options)
    const record: ImageRecord = {
      reference: formatReference(reference),
      platform: image.platform,
      format,
      manifestDigest: image.manifestDigest,
      manifest: image.manifest,
      rootfsDigest: await this.#parts.catalog.putRootfs(manifest),
    }
    await this.#know(record, manifest)
    return { record, manifest, origin: 'built' }
  }

  async #know(record: ImageRecord, manifest: RootfsManifest): Promise<void> {
    const digest = await this.#parts.catalog.putRootfs(manifest)
    if (digest !== record.rootfsDigest) throw new P2pfsError('invalid', 'rootfs manifest does not match the image record')
    this.#parts.onManifest(manifest)
    await this.#parts.catalog.putImage(record)
  }
}

const keyOf = ({ reference, platform, format }: ImageName): string => `${format} ${platform} ${reference}`
