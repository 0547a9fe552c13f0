import type { Attestation, Statement } from '../../protocol/attestation.ts'
import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import { rootfsFormats, type RootfsFormat, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { Log } from '../base/log.ts'
import type { Reference } from '../registry/reference.ts'
import { formatReference, parseReference } from '../registry/reference.ts'
import { layersOf, type ImageSource, type ResolvedImage } from '../registry/image-source.ts'
import { SingleFlight } from '../base/single-flight.ts'
import type { FindOptions, ImageRootfs, PullPolicy, ResolvedRootfs, UnsignedRecord, Variant } from '../model/image.ts'
import type { ImportOptions } from './importer.ts'
import type { RunningImports, WaitOptions } from './running-imports.ts'
import type { Stewards } from './stewards.ts'

export interface ImageResolverParts {
  catalog: {
    image: (name: ImageName) => Promise<ImageRecord | undefined>
    images: () => Promise<ImageRecord[]>
    putImage: (record: ImageRecord) => Promise<void>
    rootfs: (digest: Digest) => Promise<RootfsManifest | undefined>
    putRootfs: (manifest: RootfsManifest) => Promise<Digest>
    isUnverified: (rootfs: Digest) => Promise<boolean>
    putUnverified: (rootfs: Digest, isUnverified: boolean) => Promise<void>
  }
  region: {
    findImage: (
      name: ImageName,
      options: { signal: AbortSignal; isOfUse: (record: ImageRecord, peer: string) => boolean },
    ) => Promise<{ record: ImageRecord; peer: string } | undefined>
    fetchRootfs: (
      digest: Digest,
      options: { signal: AbortSignal; first?: string },
    ) => Promise<RootfsManifest | undefined>
  }
  registry: Pick<ImageSource, 'resolve' | 'manifestDigest'>
  /** Whether all chunks of the rootfs are on this host. */
  isWhole: (manifest: RootfsManifest) => boolean
  /** What was published of the image in its registry, in this format or else in another: metadata into the store. */
  published: {
    find: (
      reference: Reference,
      image: ResolvedImage,
      format: RootfsFormat,
      options: { signal: AbortSignal },
    ) => Promise<ImageRootfs | undefined>
  }
  /** Whose word is taken for what rootfs an image is. */
  trust: {
    acceptsFromPeer: (record: ImageRecord, peer: string) => boolean
    acceptsStored: (record: ImageRecord, options: { isUnverified: boolean }) => boolean
  }
  /** Signs for what was built here. */
  attest: (statement: Statement) => Promise<Attestation>
  /** Reads all layers once, those whose index is nowhere known: chunks into the store, metadata made. */
  importImage: (
    reference: Reference,
    image: ResolvedImage,
    format: RootfsFormat,
    options: ImportOptions,
  ) => Promise<{ manifest: RootfsManifest; isUnverified: boolean }>
  imports: RunningImports
  stewards: Pick<Stewards, 'ask'>
  /** Called for each manifest that this host gets to know, before its image record is written. */
  onManifest: (manifest: RootfsManifest) => void
  log: Log
}

/** Finds out what rootfs an image reference stands for: from this host, from the region, from the registry, by importing it. */
export class ImageResolver {
  readonly #parts: ImageResolverParts
  readonly #finding = new SingleFlight<ResolvedRootfs>()
  /** Registries that did not answer: one entry for each that images came from. */
  readonly #silentUntilMs = new Map<string, number>()
  readonly #now: () => number

  constructor(parts: ImageResolverParts, { now = () => performance.now() }: { now?: () => number } = {}) {
    this.#parts = parts
    this.#now = now
  }

  /**
   * For a mount, which must be quick: what this host or its region knows, if the registry does not say otherwise soon. An
   * image that is known in another format is made again from its layer indexes; layers are read where those are nowhere known.
   * @throws missing where nobody knows it and `never` was said; what {@link FindOptions.signal} and the registry client throw
   */
  async resolveForMount(
    reference: Reference,
    variant: Variant,
    { pull, ...options }: FindOptions & { pull: PullPolicy },
  ): Promise<ResolvedRootfs> {
    return await this.#once(`mount ${pull}`, reference, variant, options, async (name, shared) => {
      const known = await this.#known(reference, name, shared)
      if (known === undefined && pull === 'never')
        throw new P2pfsError(
          'missing',
          `neither this host nor its region knows ${name.reference}, and the registry was not to be asked`,
        )
      if (known !== undefined && !this.#asks(pull, reference, known)) return known
      return await this.#current(reference, name, known, {
        ...shared,
        budgetMs: known === undefined ? undefined : resolveBudgetMs,
      })
    })
  }

  /**
   * For a seed, which must be current: the registry says what the reference stands for now. Where it cannot be
   * reached, the last known answer is used, with a warning.
   */
  async resolveForSeed(reference: Reference, variant: Variant, options: FindOptions): Promise<ResolvedRootfs> {
    // Nobody but the region knows it.
    if (reference.kind === 'local')
      return await this.resolveForMount(reference, variant, { ...options, pull: 'missing' })
    return await this.#once('seed', reference, variant, options, async (name, shared) => {
      const known = await this.#known(reference, name, shared)
      if (known !== undefined && isPinned(reference)) return known
      return await this.#current(reference, name, known, { ...shared, budgetMs: undefined })
    })
  }

  async #once(
    purpose: string,
    reference: Reference,
    variant: Variant,
    options: FindOptions,
    task: (name: ImageName, options: FindOptions) => Promise<ResolvedRootfs>,
  ): Promise<ResolvedRootfs> {
    const name = { reference: formatReference(reference), ...variant }
    const found = await this.#finding.run(
      `${purpose} ${keyOf(name)}`,
      options.signal,
      async (signal) => await task(name, { ...options, signal }),
    )
    return isPinned(reference) ? { ...found, resolution: 'digest' } : found
  }

  /** Whether the registry is to say what a reference that is known stands for now. */
  #asks(pull: PullPolicy, reference: Reference, { origin, manifest }: ResolvedRootfs): boolean {
    if (isPinned(reference) || reference.kind === 'local') return false
    if (pull !== 'auto') return pull === 'always'
    const isSilent = (this.#silentUntilMs.get(registryOf(reference)) ?? 0) > this.#now()
    return !isSilent && !(origin === 'local' && this.#parts.isWhole(manifest))
  }

  /**
   * What the registry says that the reference stands for; what is known where it does not answer.
   * @param options `budgetMs`: how long it may take to say so, where that is bounded
   */
  async #current(
    reference: Reference,
    name: ImageName,
    known: ResolvedRootfs | undefined,
    { budgetMs, ...options }: FindOptions & { budgetMs: number | undefined },
  ): Promise<ResolvedRootfs> {
    const { registry, log } = this.#parts
    const { signal } = options
    let resolved: ResolvedImage
    try {
      if (known !== undefined) {
        const bounded = budgetMs === undefined ? signal : AbortSignal.any([signal, AbortSignal.timeout(budgetMs)])
        if (
          known.record.manifestDigest === (await registry.manifestDigest(reference, name.platform, { signal: bounded }))
        )
          return { ...known, resolution: 'registry' }
      }
      resolved = await registry.resolve(reference, name.platform, { signal })
    } catch (error) {
      if (known === undefined || signal.aborted || !mayPass(error)) throw error
      // One that has lost the tag, or denies the image, answers well for others.
      if (isP2pfsError(error, 'unavailable', 'timeout') || isTimeout(error))
        this.#silentUntilMs.set(registryOf(reference), this.#now() + silenceMs)
      log.warn('registry does not say what the tag stands for now; the last known digest is used', {
        error,
        image: name.reference,
        digest: known.record.manifestDigest,
      })
      return {
        ...known,
        resolution: 'last-known',
        unanswered: isTimeout(error)
          ? `${registryOf(reference)} did not answer within ${resolveBudgetMs / 1000} s`
          : (error as Error).message,
      }
    }
    if (known?.record.manifestDigest === resolved.manifestDigest) return { ...known, resolution: 'registry' }
    const found =
      (await this.#fromPeers(name, resolved.manifestDigest, signal)) ??
      (await this.#obtain(reference, resolved, name.format, options))
    return { ...found, resolution: 'registry' }
  }

  /** What this host or its region knows; nothing is imported. */
  async find(reference: Reference, variant: Variant, options: FindOptions): Promise<ResolvedRootfs | undefined> {
    return await this.#known(reference, { reference: formatReference(reference), ...variant }, options)
  }

  /** An image that was made here. */
  async add(
    made: UnsignedRecord,
    { manifest, isUnverified }: { manifest: RootfsManifest; isUnverified: boolean },
  ): Promise<ImageRootfs> {
    // First: a crash in between must not leave a word that is worth more than what it stands on.
    await this.#parts.catalog.putUnverified(made.rootfsDigest, isUnverified)
    const record = { ...made, attestation: await this.#parts.attest(made) }
    await this.#know(record, manifest)
    return { record, manifest }
  }

  /** What this host or its region knows, in this format or in another. */
  async #known(reference: Reference, name: ImageName, options: FindOptions): Promise<ResolvedRootfs | undefined> {
    const others = rootfsFormats.filter((format) => format !== name.format).map((format) => ({ ...name, format }))
    for (const find of [
      async (one: ImageName) => await this.#local(one),
      async (one: ImageName) => await this.#fromPeers(one, undefined, options.signal),
    ]) {
      const found = await find(name)
      if (found !== undefined) return found
      for (const other of others) {
        const known = await find(other)
        if (known !== undefined) return await this.#convert(reference, known, name.format, options)
      }
    }
    return undefined
  }

  async #convert(
    reference: Reference,
    { record, manifest, origin }: ResolvedRootfs,
    format: RootfsFormat,
    options: FindOptions,
  ): Promise<ResolvedRootfs> {
    const { config } = manifest
    const image = { ...record, config, layers: layersOf(record.manifest, config) }
    return { ...(await this.#import(reference, image, format, { ...options, other: record })), origin }
  }

  async #local(name: ImageName): Promise<ResolvedRootfs | undefined> {
    const record = (await this.#parts.catalog.image(name)) ?? (await this.#byDigest(name))
    if (
      record === undefined ||
      !this.#parts.trust.acceptsStored(record, {
        isUnverified: await this.#parts.catalog.isUnverified(record.rootfsDigest),
      })
    )
      return undefined
    const manifest = await this.#parts.catalog.rootfs(record.rootfsDigest)
    return manifest === undefined ? undefined : { record, manifest, origin: 'local', resolution: 'last-known' }
  }

  /** An image that is asked for by its digest, and known by a tag of its repository. */
  async #byDigest({ reference, platform, format }: ImageName): Promise<ImageRecord | undefined> {
    const [repository, digest] = reference.split('@')
    if (digest === undefined) return undefined
    const found = (await this.#parts.catalog.images()).find(
      (record) =>
        record.manifestDigest === digest &&
        record.platform === platform &&
        record.format === format &&
        record.reference.startsWith(`${repository}:`),
    )
    return found === undefined ? undefined : { ...found, reference }
  }

  async #fromPeers(
    name: ImageName,
    manifestDigest: Digest | undefined,
    signal: AbortSignal,
  ): Promise<ResolvedRootfs | undefined> {
    const isOfUse = (record: ImageRecord, peer: string): boolean => this.#isOfUse(record, peer, name, manifestDigest)
    const found = await this.#parts.region.findImage(name, { signal, isOfUse })
    return found === undefined ? undefined : await this.#take(found, signal)
  }

  /** Whether a peer's record is of the image that was asked for, and accepted. */
  #isOfUse(record: ImageRecord, peer: string, name: ImageName, manifestDigest: Digest | undefined): boolean {
    const { trust, log } = this.#parts
    const isIt = keyOf(record) === keyOf(name)
    if (!isIt) log.warn('peer answers for another image than was asked for', { peer })
    return (
      isIt &&
      (manifestDigest === undefined || record.manifestDigest === manifestDigest) &&
      trust.acceptsFromPeer(record, peer)
    )
  }

  /** The rootfs that an accepted record names. @param image what it must be of, where that is known */
  async #take(
    { record, peer }: { record: ImageRecord; peer: string },
    signal: AbortSignal,
    image?: ResolvedImage,
  ): Promise<ResolvedRootfs | undefined> {
    const { region, log } = this.#parts
    const manifest = await region.fetchRootfs(record.rootfsDigest, { signal, first: peer })
    if (manifest === undefined) return undefined
    if (image !== undefined && !isOf(manifest, record, image)) {
      log.warn('peer has a rootfs of other layers than the image has', {
        peer,
        image: record.reference,
        digest: record.rootfsDigest,
      })
      return undefined
    }
    await this.#know(record, manifest)
    return { record, manifest, origin: 'peer', resolution: 'last-known' }
  }

  /** What nobody in the region knows: it was published, or is imported once for all of the region, here or elsewhere. */
  async #obtain(
    reference: Reference,
    image: ResolvedImage,
    format: RootfsFormat,
    options: FindOptions,
  ): Promise<ResolvedRootfs> {
    const published = await this.#parts.published.find(reference, image, format, options)
    if (published !== undefined) {
      await this.#know(published.record, published.manifest)
      const known: ResolvedRootfs = { ...published, origin: 'registry', resolution: 'registry' }
      return published.record.format === format ? known : await this.#convert(reference, known, format, options)
    }
    const { imports } = this.#parts
    const { platform, manifestDigest } = image
    const name = { reference: formatReference(reference), platform, format }
    if (reference.kind === 'registry' && !imports.has(manifestDigest)) {
      const found = await this.#fromSteward(name, image, options)
      if (found !== undefined) return found
    }
    return await imports.run(
      flightOf(name, manifestDigest),
      options,
      async (options) => await this.#import(reference, image, format, options),
    )
  }

  async #fromSteward(name: ImageName, image: ResolvedImage, options: FindOptions): Promise<ResolvedRootfs | undefined> {
    const { manifestDigest, layers } = image
    return await this.#parts.stewards.ask({ ...name, manifestDigest, layers }, options, async (record, peer, signal) =>
      this.#isOfUse(record, peer, name, manifestDigest) ? await this.#take({ record, peer }, signal, image) : undefined,
    )
  }

  /**
   * Imports an image for a peer, or lets it wait for the import that is under way: here, whoever its steward is.
   * @throws conflict where the reference stands for another image here; busy; what the registry client and the import throw
   */
  async importForPeer(
    { manifestDigest, ...name }: ImageName & { manifestDigest: Digest },
    { peer, ...options }: WaitOptions & { peer: string },
  ): Promise<ImageRecord> {
    const { registry, imports, log } = this.#parts
    const reference = parseReference(name.reference)
    if (reference.kind !== 'registry' || formatReference(reference) !== name.reference)
      throw new P2pfsError('denied', 'only images of registries are imported for peers')
    const known = await this.#local(name)
    if (known?.record.manifestDigest === manifestDigest) return known.record
    log.info('peer waits for an import here', { image: name.reference, manifest: manifestDigest, peer })
    const { record } = await imports.run(flightOf(name, manifestDigest), options, async (options) => {
      const image = await registry.resolve(reference, name.platform, options)
      if (image.manifestDigest !== manifestDigest)
        throw new P2pfsError('conflict', `${name.reference} stands for another image here`, {
          digest: image.manifestDigest,
        })
      return await this.#import(reference, image, name.format, options)
    })
    return record
  }

  async #import(
    reference: Reference,
    image: ResolvedImage,
    format: RootfsFormat,
    options: ImportOptions,
  ): Promise<ResolvedRootfs> {
    const imported = await this.#parts.importImage(reference, image, format, options)
    const made = {
      reference: formatReference(reference),
      platform: image.platform,
      format,
      manifestDigest: image.manifestDigest,
      manifest: image.manifest,
      rootfsDigest: await this.#parts.catalog.putRootfs(imported.manifest),
    }
    return { ...(await this.add(made, imported)), origin: 'built', resolution: 'registry' }
  }

  async #know(record: ImageRecord, manifest: RootfsManifest): Promise<void> {
    const digest = await this.#parts.catalog.putRootfs(manifest)
    if (digest !== record.rootfsDigest)
      throw new P2pfsError('invalid', 'rootfs manifest does not match the image record')
    this.#parts.onManifest(manifest)
    await this.#parts.catalog.putImage(record)
  }
}

/** A mount that could go on with what is known does not wait longer for a registry, milliseconds. */
const resolveBudgetMs = 2_000

/** One that did not answer is not waited for again so soon, milliseconds. */
const silenceMs = 10_000

const registryOf = (reference: Reference): string =>
  reference.kind === 'registry' ? reference.registry : reference.kind

/** What may be otherwise later: the registry is away, refuses, or has lost the tag. */
function mayPass(error: unknown): boolean {
  return isP2pfsError(error, 'unavailable', 'timeout', 'busy', 'denied', 'missing') || isTimeout(error)
}

/** Of {@link AbortSignal.timeout}. */
const isTimeout = (error: unknown): boolean => error instanceof DOMException && error.name === 'TimeoutError'

const isPinned = (reference: Reference): boolean => reference.kind === 'registry' && reference.digest !== undefined

const keyOf = ({ reference, platform, format }: ImageName): string => `${format} ${platform} ${reference}`

const flightOf = (
  name: ImageName,
  manifestDigest: Digest,
): { key: string; reference: string; manifestDigest: Digest } => ({
  key: `${manifestDigest} ${keyOf(name)}`,
  reference: name.reference,
  manifestDigest,
})

function isOf(rootfs: RootfsManifest, record: ImageRecord, image: ResolvedImage): boolean {
  const layers = image.layers.map(({ diffId }) => diffId)
  return (
    record.manifest === image.manifest &&
    rootfs.config === image.config &&
    rootfs.layers.length === layers.length &&
    rootfs.layers.every(({ diffId }, i) => diffId === layers[i])
  )
}
