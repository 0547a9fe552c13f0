import { attest } from '../../protocol/attestation.ts'
import type { Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import type { RootfsFormat } from '../../protocol/rootfs-manifest.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { Log } from '../base/log.ts'
import { SingleFlight } from '../base/single-flight.ts'
import {
  isRootfsOf,
  type FindOptions,
  type FoundRootfs,
  type ImageRootfs,
  type PullPolicy,
  type ResolvedRootfs,
  type UnsignedRecord,
  type Variant,
} from '../model/image.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import type { PeerNetwork } from '../peers/network.ts'
import type { RegionObjects } from '../peers/object/region-objects.ts'
import type { IndexTrust } from '../publish/index-trust.ts'
import type { PublishedImages } from '../publish/published-images.ts'
import { layersOf, type ResolvedImage } from '../registry/image-source.ts'
import { formatReference, type Reference } from '../registry/reference.ts'
import type { Catalog } from '../store/catalog.ts'
import type { Inventory } from '../store/inventory.ts'
import {
  chooseAnswerer,
  fitOf,
  imageKey,
  isPinned,
  judgeFailure,
  recordByDigest,
  registryOf,
  searchOrder,
} from './decisions.ts'
import type { Imported, Importer, ImportOptions } from './importer.ts'
import { answerMs, RegistryLookup, type LookupOptions, type RegistryLookupParts } from './registry-lookup.ts'
import { importOf, type RunningImports } from './running-imports.ts'
import type { Stewards } from './stewards.ts'

/**
 * A mount that can use the last known image waits this long for each answer of the registry (ms). A tag that has not
 * moved takes one answer; the image of one that has moved takes two to five.
 */
const mountAnswerMs = 2_000

/** A registry that did not answer is not asked again for this long (ms), unless the pull policy is `always`. */
const silenceMs = 10_000
/** Silent registries that are remembered. */
const maxSilentRegistries = 256

export interface ImageResolverParts extends RegistryLookupParts {
  catalog: RegistryLookupParts['catalog'] &
    Pick<Catalog, 'image' | 'images' | 'putImage' | 'rootfs' | 'putRootfs' | 'isUnverified' | 'putUnverified'>
  region: Pick<RegionObjects, 'findImage' | 'fetchRootfs'>
  published: Pick<PublishedImages, 'find'>
  trust: Pick<IndexTrust, 'acceptsFromPeer' | 'acceptsStored'>
  /** Signs the records of images that are built here. */
  identity: Pick<PeerNetwork, 'peerId' | 'sign'>
  importer: Pick<Importer, 'importImage'>
  imports: Pick<RunningImports, 'has' | 'run'>
  stewards: Pick<Stewards, 'ask'>
  /** Tracks the chunks of each rootfs that this host can mount. */
  inventory: Pick<Inventory, 'isWhole' | 'track'>
  log: Log
}

interface ResolveOptions extends FindOptions, LookupOptions {
  pull: PullPolicy
}

/**
 * Finds the rootfs that an image reference stands for: on this host, in the region, in the registry, or by an import.
 * The decisions are in `decisions.ts`; this class gathers what they depend on, and carries them out.
 */
export class ImageResolver {
  readonly #parts: ImageResolverParts
  readonly #lookup: RegistryLookup
  readonly #resolving = new SingleFlight<ResolvedRootfs>()
  readonly #silentRegistries: ExpiringMap<string>

  /** @param options `now`: the clock (ms) */
  constructor(parts: ImageResolverParts, { now = () => performance.now() }: { now?: () => number } = {}) {
    this.#parts = parts
    this.#lookup = new RegistryLookup(parts)
    this.#silentRegistries = new ExpiringMap({ maxEntries: maxSilentRegistries, now })
  }

  /**
   * Resolves a reference for a mount, which must be quick: if the registry does not answer soon, the last known image
   * is used. An image that is known in another format only is converted from its layer indexes; layers are read only if
   * nobody in the region has their index.
   * @throws missing if nobody knows the image and `pull` is `never`; timeout if nobody knows it and the registry is
   * silent; what the signal, the registry client and an import throw
   */
  async resolveForMount(
    reference: Reference,
    variant: Variant,
    options: FindOptions & { pull: PullPolicy },
  ): Promise<ResolvedRootfs> {
    return await this.#resolve('mount', reference, variant, { ...options, answerMs: mountAnswerMs })
  }

  /**
   * Resolves a reference for a seed, which must be current: the registry is always asked what a tag stands for now. If
   * it cannot be reached, the last known image is used, with a warning in the log.
   * @throws timeout if nobody knows the image and the registry is silent; what the signal, the registry client and an
   * import throw
   */
  async resolveForSeed(reference: Reference, variant: Variant, options: FindOptions): Promise<ResolvedRootfs> {
    return await this.#resolve('seed', reference, variant, { ...options, pull: 'always', answerMs })
  }

  /**
   * Finds a rootfs of the image on this host or in its region, as it is there: in this format, else in another. Nothing is
   * made or stored for that, and the registry is not asked.
   */
  async find(
    reference: Reference,
    variant: Variant,
    { signal }: { signal: AbortSignal },
  ): Promise<ImageRootfs | undefined> {
    const { region } = this.#parts
    for (const { place, format } of searchOrder(variant.format)) {
      const name = { reference: formatReference(reference), platform: variant.platform, format }
      if (place === 'host') {
        const stored = await this.findOnHost(name)
        if (stored !== undefined) return stored
        continue
      }
      const isOfUse = (record: ImageRecord, peer: string): boolean => this.#accepts(record, peer, name, undefined)
      const found = await region.findImage(name, { signal, isOfUse })
      if (found === undefined) continue
      const { record, peer } = found
      const manifest = await region.fetchRootfs(record.rootfsDigest, { signal, first: peer })
      if (manifest !== undefined) return { record, manifest }
    }
    return undefined
  }

  /** Signs and stores the record of an image that was made here. */
  async add(made: UnsignedRecord, { manifest, isUnverified }: Imported): Promise<ImageRootfs> {
    // Before the record: after a crash in between, an unverified rootfs must not pass for a verified one.
    await this.#parts.catalog.putUnverified(made.rootfsDigest, isUnverified)
    const { identity } = this.#parts
    const signer = { key: identity.peerId, sign: async (bytes: Uint8Array) => await identity.sign(bytes) }
    const record = { ...made, attestation: await attest(made, signer) }
    await this.#store({ record, manifest })
    return { record, manifest }
  }

  /** Callers that want the same at the same time share one resolution. */
  async #resolve(
    purpose: 'mount' | 'seed',
    reference: Reference,
    variant: Variant,
    { signal, ...options }: ResolveOptions,
  ): Promise<ResolvedRootfs> {
    const name = { reference: formatReference(reference), ...variant }
    const resolved = await this.#resolving.run(
      `${purpose} ${options.pull} ${imageKey(name)}`,
      signal,
      async (signal) => await this.#resolveOnce(reference, name, { ...options, signal }),
    )
    return isPinned(reference) ? { ...resolved, resolution: 'digest' } : resolved
  }

  async #resolveOnce(reference: Reference, name: ImageName, options: ResolveOptions): Promise<ResolvedRootfs> {
    const lastKnown = await this.#findLastKnown(reference, name, options)
    const answerer = chooseAnswerer(
      reference,
      options.pull,
      lastKnown && {
        isWholeHere: lastKnown.origin === 'local' && this.#parts.inventory.isWhole(lastKnown.manifest),
      },
      this.#silentRegistries.has(registryOf(reference)),
    )
    if (answerer === 'nobody')
      throw new P2pfsError(
        'missing',
        `neither this host nor its region knows ${name.reference}, and the registry was not to be asked`,
      )
    if (lastKnown !== undefined && answerer === 'record') return { ...lastKnown, resolution: 'last-known' }
    return await this.#resolveTag(reference, name, lastKnown, options)
  }

  /** Asks the registry what the reference stands for. If it does not answer, the last known image is used. */
  async #resolveTag(
    reference: Reference,
    name: ImageName,
    lastKnown: FoundRootfs | undefined,
    options: ResolveOptions,
  ): Promise<ResolvedRootfs> {
    const { signal } = options
    let image: ResolvedImage
    try {
      if (lastKnown === undefined) image = await this.#lookup.resolve(reference, name.platform, { signal, answerMs })
      else {
        const moved = await this.#lookup.findMoved(reference, lastKnown.record, options)
        if (moved === undefined) return { ...lastKnown, resolution: 'registry' }
        image = moved
      }
    } catch (error) {
      if (lastKnown === undefined || signal.aborted) throw error
      return this.#useLastKnown(reference, lastKnown, error)
    }
    const found =
      (await this.#findInRegion(name, image.manifestDigest, signal)) ??
      (await this.#findOrImport(reference, image, name.format, options))
    return { ...found, resolution: 'registry' }
  }

  /** @throws `error` unless the last known image may stand in for the registry's answer */
  #useLastKnown(reference: Reference, lastKnown: FoundRootfs, error: unknown): ResolvedRootfs {
    const { useLastKnown, isSilence } = judgeFailure(error)
    if (!useLastKnown) throw error
    const registry = registryOf(reference)
    if (isSilence) this.#silentRegistries.set(registry, true, silenceMs)
    this.#parts.log.warn('registry does not say what the tag stands for now; the last known image is used', {
      error,
      image: lastKnown.record.reference,
      digest: lastKnown.record.manifestDigest,
    })
    return {
      ...lastKnown,
      resolution: 'last-known',
      unanswered: (error as Error).message,
    }
  }

  /** Finds what this host or its region knows of the image, converted if it is of another format. */
  async #findLastKnown(reference: Reference, name: ImageName, options: FindOptions): Promise<FoundRootfs | undefined> {
    for (const { place, format } of searchOrder(name.format)) {
      const wanted = { ...name, format }
      const found =
        place === 'host' ? await this.findOnHost(wanted) : await this.#findInRegion(wanted, undefined, options.signal)
      if (found !== undefined)
        return format === name.format ? found : await this.#convert(reference, found, name.format, options)
    }
    return undefined
  }

  /** What this host has stored of the image, where its own or its maker's word counts here. */
  async findOnHost(name: ImageName): Promise<FoundRootfs | undefined> {
    const { catalog, trust } = this.#parts
    const record = (await catalog.image(name)) ?? (await this.#findByDigest(name))
    if (record === undefined) return undefined
    const isUnverified = await catalog.isUnverified(record.rootfsDigest)
    if (!trust.acceptsStored(record, { isUnverified })) return undefined
    const manifest = await catalog.rootfs(record.rootfsDigest)
    return manifest === undefined ? undefined : { record, manifest, origin: 'local' }
  }

  async #findByDigest(name: ImageName): Promise<ImageRecord | undefined> {
    return name.reference.includes('@') ? recordByDigest(await this.#parts.catalog.images(), name) : undefined
  }

  /** @param manifestDigest which image it must be; undefined if any that the region knows will do */
  async #findInRegion(
    name: ImageName,
    manifestDigest: Digest | undefined,
    signal: AbortSignal,
  ): Promise<FoundRootfs | undefined> {
    const isOfUse = (record: ImageRecord, peer: string): boolean => this.#accepts(record, peer, name, manifestDigest)
    const found = await this.#parts.region.findImage(name, { signal, isOfUse })
    return found === undefined ? undefined : await this.#takeFromPeer(found.record, found.peer, signal)
  }

  /** Whether a peer's record is of the image that was asked for, and is trusted. */
  #accepts(record: ImageRecord, peer: string, name: ImageName, manifestDigest: Digest | undefined): boolean {
    const fit = fitOf(record, name, manifestDigest)
    if (fit === 'other image') this.#parts.log.warn('peer answers with the record of another image', { peer })
    return fit === 'fits' && this.#parts.trust.acceptsFromPeer(record, peer)
  }

  /**
   * Fetches the rootfs that an accepted record names, and stores both.
   * @param image what the registry has; undefined if it was not asked
   */
  async #takeFromPeer(
    record: ImageRecord,
    peer: string,
    signal: AbortSignal,
    image?: ResolvedImage,
  ): Promise<FoundRootfs | undefined> {
    const { region, log } = this.#parts
    const manifest = await region.fetchRootfs(record.rootfsDigest, { signal, first: peer })
    if (manifest === undefined) return undefined
    if (image !== undefined && !(record.manifest === image.manifest && isRootfsOf(manifest, image))) {
      log.warn('peer has built the image from other layers than the registry has', {
        peer,
        image: record.reference,
        digest: record.rootfsDigest,
      })
      return undefined
    }
    await this.#store({ record, manifest })
    return { record, manifest, origin: 'peer' }
  }

  /**
   * Finds a publication of an image that nobody in the region knows, or has the image imported by a steward or here.
   */
  async #findOrImport(
    reference: Reference,
    image: ResolvedImage,
    format: RootfsFormat,
    options: FindOptions,
  ): Promise<FoundRootfs> {
    const { published, imports } = this.#parts
    const publication = await published.find(reference, image, format, options)
    if (publication !== undefined) {
      await this.#store(publication)
      const found: FoundRootfs = { ...publication, origin: 'registry' }
      return publication.record.format === format ? found : await this.#convert(reference, found, format, options)
    }
    const { platform, manifestDigest } = image
    const name = { reference: formatReference(reference), platform, format }
    if (reference.kind === 'registry' && !imports.has(manifestDigest)) {
      const found = await this.#askStewards(name, image, options)
      if (found !== undefined) return found
    }
    return await imports.run(
      importOf(name, manifestDigest),
      options,
      async (options) => await this.build(reference, image, format, options),
    )
  }

  async #askStewards(name: ImageName, image: ResolvedImage, options: FindOptions): Promise<FoundRootfs | undefined> {
    const { manifestDigest, layers } = image
    return await this.#parts.stewards.ask({ ...name, manifestDigest, layers }, options, async (record, peer, signal) =>
      this.#accepts(record, peer, name, manifestDigest)
        ? await this.#takeFromPeer(record, peer, signal, image)
        : undefined,
    )
  }

  /** Makes the rootfs of a known image in another format. */
  async #convert(
    reference: Reference,
    { record, manifest, origin }: FoundRootfs,
    format: RootfsFormat,
    options: FindOptions,
  ): Promise<FoundRootfs> {
    const { config } = manifest
    const image = { ...record, config, layers: layersOf(record.manifest, config) }
    return { ...(await this.build(reference, image, format, { ...options, other: record })), origin }
  }

  /** Imports the image here, and stores what it made. @throws as {@link Importer.importImage} */
  async build(
    reference: Reference,
    image: ResolvedImage,
    format: RootfsFormat,
    options: ImportOptions,
  ): Promise<FoundRootfs> {
    const imported = await this.#parts.importer.importImage(reference, image, format, options)
    const made = {
      reference: formatReference(reference),
      platform: image.platform,
      format,
      manifestDigest: image.manifestDigest,
      manifest: image.manifest,
      rootfsDigest: await this.#parts.catalog.putRootfs(imported.manifest),
    }
    return { ...(await this.add(made, imported)), origin: 'built' }
  }

  /** Stores a record after the manifest that it names, whose chunks are tracked from now on. */
  async #store({ record, manifest }: ImageRootfs): Promise<void> {
    const { catalog, inventory } = this.#parts
    const digest = await catalog.putRootfs(manifest)
    if (digest !== record.rootfsDigest)
      throw new P2pfsError('invalid', 'rootfs manifest does not match the image record')
    for (const table of tablesOf(manifest)) inventory.track(table)
    await catalog.putImage(record)
  }
}
