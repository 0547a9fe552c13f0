import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { ImageRecord } from '../../protocol/image-record.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { Log } from '../log.ts'
import type { Reference } from '../registry/reference.ts'
import { formatReference } from '../registry/reference.ts'
import type { ResolvedImage } from '../registry/image-source.ts'
import { SingleFlight } from '../single-flight.ts'

/** An image whose rootfs this host can mount. */
export interface KnownImage {
  record: ImageRecord
  manifest: RootfsManifest
  /** Where the manifest came from. */
  origin: 'local' | 'peer' | 'registry'
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

export interface ImagesParts {
  catalog: {
    image: (reference: string, platform: string) => Promise<ImageRecord | undefined>
    putImage: (record: ImageRecord) => Promise<void>
    rootfs: (digest: Digest) => Promise<RootfsManifest | undefined>
    putRootfs: (manifest: RootfsManifest) => Promise<Digest>
  }
  region: {
    findImage: (reference: string, platform: string, options: { signal: AbortSignal }) => Promise<{ record: ImageRecord; peer: string } | undefined>
    fetchRootfs: (digest: Digest, options: { signal: AbortSignal }) => Promise<RootfsManifest | undefined>
  }
  registry: { resolve: (reference: Reference, platform: string, options: { signal: AbortSignal }) => Promise<ResolvedImage> }
  /** Reads all layers once: chunks into the store, metadata made. */
  importImage: (reference: Reference, image: ResolvedImage, options: FindOptions) => Promise<RootfsManifest>
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
   * For a mount, which must be quick: what this host knows, then what the region knows, then the registry.
   * @throws what {@link FindOptions.signal} and the registry client throw
   */
  async forMount(reference: Reference, platform: string, options: FindOptions): Promise<KnownImage> {
    const name = formatReference(reference)
    return await this.#finding.run(`mount ${platform} ${name}`, options.signal, async (signal) => {
      const found = (await this.#local(name, platform)) ?? (await this.#fromPeers(name, platform, undefined, signal))
      if (found !== undefined) return found
      const resolved = await this.#parts.registry.resolve(reference, platform, { signal })
      return await this.#import(reference, resolved, { ...options, signal })
    })
  }

  /**
   * For a seed, which must be current: the registry says what the reference stands for now. Where it cannot be
   * reached, the last known answer is used, with a warning.
   */
  async forSeed(reference: Reference, platform: string, options: FindOptions): Promise<KnownImage> {
    const name = formatReference(reference)
    return await this.#finding.run(`seed ${platform} ${name}`, options.signal, async (signal) => {
      let resolved: ResolvedImage
      try {
        resolved = await this.#parts.registry.resolve(reference, platform, { signal })
      } catch (error) {
        if (!isP2pfsError(error, 'unavailable', 'timeout', 'busy', 'denied', 'missing')) throw error
        const known = (await this.#local(name, platform)) ?? (await this.#fromPeers(name, platform, undefined, signal))
        if (known === undefined) throw error
        this.#parts.log.warn('registry does not answer for the image; seeding what the region last knew it as', {
          error,
          image: name,
          digest: known.record.manifestDigest,
        })
        return known
      }
      const known = await this.#local(name, platform)
      if (known?.record.manifestDigest === resolved.manifestDigest) return known
      const found = await this.#fromPeers(name, platform, resolved.manifestDigest, signal)
      return found ?? (await this.#import(reference, resolved, { ...options, signal }))
    })
  }

  async #local(name: string, platform: string): Promise<KnownImage | undefined> {
    const record = await this.#parts.catalog.image(name, platform)
    if (record === undefined) return undefined
    const manifest = await this.#parts.catalog.rootfs(record.rootfsDigest)
    return manifest === undefined ? undefined : { record, manifest, origin: 'local' }
  }

  async #fromPeers(name: string, platform: string, manifestDigest: Digest | undefined, signal: AbortSignal): Promise<KnownImage | undefined> {
    const { region, log } = this.#parts
    const found = await region.findImage(name, platform, { signal })
    if (found === undefined) return undefined
    const { record, peer } = found
    if (record.reference !== name || record.platform !== platform) {
      log.warn('peer answers for another image than was asked for', { peer })
      return undefined
    }
    if (manifestDigest !== undefined && record.manifestDigest !== manifestDigest) return undefined
    const manifest = await region.fetchRootfs(record.rootfsDigest, { signal })
    if (manifest === undefined) return undefined
    await this.#know(record, manifest)
    return { record, manifest, origin: 'peer' }
  }

  async #import(reference: Reference, image: ResolvedImage, options: FindOptions): Promise<KnownImage> {
    const manifest = await this.#parts.importImage(reference, image, options)
    const record: ImageRecord = {
      reference: formatReference(reference),
      platform: image.platform,
      manifestDigest: image.manifestDigest,
      manifest: image.manifest,
      rootfsDigest: await this.#parts.catalog.putRootfs(manifest),
    }
    await this.#know(record, manifest)
    return { record, manifest, origin: 'registry' }
  }

  async #know(record: ImageRecord, manifest: RootfsManifest): Promise<void> {
    const digest = await this.#parts.catalog.putRootfs(manifest)
    if (digest !== record.rootfsDigest) throw new P2pfsError('invalid', 'rootfs manifest does not match the image record')
    this.#parts.onManifest(manifest)
    await this.#parts.catalog.putImage(record)
  }
}
