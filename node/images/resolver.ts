import { attest, type Signer } from '../../protocol/attestation.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import { stateName, type NameStatement } from '../../protocol/name-statement.ts'
import { rootfsDigest, type RootfsFormat, type RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { SeedImage } from '../../protocol/seed-job.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { Log } from '../base/log.ts'
import { SingleFlight } from '../base/single-flight.ts'
import { isOnMembersWord, type NameBelief } from '../model/belief.ts'
import {
  type BelievedRootfs,
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
import { newestFirst } from '../publish/belief.ts'
import { describeBelief, type IndexTrust } from '../publish/index-trust.ts'
import type { PublishedImages } from '../publish/published-images.ts'
import { layersOf, type ResolvedImage } from '../registry/image-source.ts'
import { formatReference, type Reference } from '../registry/reference.ts'
import type { AcceptedName, Catalog } from '../store/catalog.ts'
import type { Inventory } from '../store/inventory.ts'
import type { BackgroundVerifier } from './background-verifier.ts'
import {
  chooseAnswerer,
  formatOf,
  imageKey,
  isPinned,
  judgeFailure,
  recordByDigest,
  registryOf,
  searchOrder,
} from './decisions.ts'
import type { FalseStatements } from './false-statements.ts'
import type { Imported, Importer, ImportOptions } from './importer.ts'
import { RegionRecords, type RegionRecordsParts, type ToldRecord } from './region-records.ts'
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

/**
 * A statement of this host that the registry confirms is made anew if it is older than this (ms): the newest counts, but a
 * mount that changes nothing need not write each time.
 */
const restateAfterMs = 60_000

export interface ImageResolverParts extends RegistryLookupParts, RegionRecordsParts {
  catalog: RegistryLookupParts['catalog'] &
    RegionRecordsParts['catalog'] &
    Pick<Catalog, 'image' | 'images' | 'putImage' | 'rootfs' | 'putRootfs' | 'namePast' | 'putNamePast'>
  published: Pick<PublishedImages, 'find'>
  trust: RegionRecordsParts['trust'] & Pick<IndexTrust, 'judgeStored'>
  verifier: Pick<BackgroundVerifier, 'consider'>
  lies: Pick<FalseStatements, 'found' | 'isKnown'>
  /** Signs the records of images that are built here. */
  identity: Pick<PeerNetwork, 'peerId' | 'sign'>
  importer: Pick<Importer, 'importImage'>
  imports: Pick<RunningImports, 'has' | 'run'>
  stewards: Pick<Stewards, 'ask'>
  /** Tracks the chunks of each rootfs that this host can mount. */
  inventory: Pick<Inventory, 'isWhole' | 'track'>
  log: Log
}

/** How an image comes to be imported. */
interface MakeOptions extends ImportOptions {
  /** Who says that the name stands for the image; the registry, where it is not given. */
  named?: { by: NameBelief; statement: NameStatement }
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
  readonly #records: RegionRecords
  readonly #today: () => number

  /** @param options `now`: the clock (ms); `today`: the same, since 1970 */
  constructor(
    parts: ImageResolverParts,
    { now = () => performance.now(), today = Date.now }: { now?: () => number; today?: () => number } = {},
  ) {
    this.#parts = parts
    this.#today = today
    this.#records = new RegionRecords(parts, { now })
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
  ): Promise<BelievedRootfs | undefined> {
    for (const { place, format } of searchOrder(variant.format, reference.kind)) {
      const name = { reference: formatReference(reference), platform: variant.platform, format }
      if (place === 'host') {
        const stored = await this.findOnHost(name)
        if (stored !== undefined) return stored
        continue
      }
      for (const told of newestFirst(await this.#records.ask(name, undefined, signal))) {
        if (told.name === undefined) continue
        const manifest = await this.#records.fetchRootfs(told, undefined, signal)
        if (manifest !== undefined)
          return { record: told.record, manifest, belief: describeBelief(told.record, told.name, told.index) }
      }
    }
    return undefined
  }

  /**
   * The very rootfs that a member names, where this host has it or believes its region about it, as for a mount that does
   * not ask the registry. It is stored, and its name where that is believed too; nothing is imported.
   */
  async findForSeed(
    { reference, platform, format, manifestDigest, rootfsDigest }: SeedImage,
    { signal }: { signal: AbortSignal },
  ): Promise<ImageRootfs | undefined> {
    const name = { reference, platform, format }
    const stored = await this.findOnHost(name)
    if (stored?.record.rootfsDigest === rootfsDigest) return stored
    for (const told of await this.#records.ask(name, manifestDigest, signal)) {
      if (told.record.rootfsDigest !== rootfsDigest) continue
      const manifest = await this.#records.fetchRootfs(told, undefined, signal)
      if (manifest === undefined) continue
      // A name that this host knows for another image, or believes nobody about, stays as it is.
      if (told.name !== undefined && stored === undefined) await this.#store(told.record, manifest)
      else {
        await this.#parts.catalog.putRootfs(manifest)
        for (const table of tablesOf(manifest)) this.#parts.inventory.track(table)
      }
      return { record: told.record, manifest }
    }
    return undefined
  }

  /** Signs and stores the record of an image that was made here. */
  async add(made: UnsignedRecord, imported: Imported): Promise<BelievedRootfs> {
    return await this.#add(made, imported, { by: 'own-past', statement: await this.#state(made) })
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
        isOnMembersWord: lastKnown.belief.name === 'member',
      },
      this.#silentRegistries.has(registryOf(reference)),
    )
    if (answerer === 'nobody')
      throw this.#records.explain(
        new P2pfsError(
          'missing',
          `neither this host nor its region knows ${name.reference}, and the registry was not to be asked`,
        ),
        name,
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
        if (moved === undefined) return { ...(await this.#confirm(lastKnown)), resolution: 'registry' }
        image = moved
      }
    } catch (error) {
      if (signal.aborted) throw error
      if (lastKnown === undefined) throw this.#records.explain(error, name)
      return this.#useLastKnown(reference, lastKnown, error)
    }
    const formed = { ...name, format: formatOf(image, name.format) }
    const found = await this.#findInRegion(formed, image, signal)
    if (found !== undefined) return { ...found, resolution: 'registry' }
    try {
      return { ...(await this.#findOrImport(reference, image, formed.format, options)), resolution: 'registry' }
    } catch (error) {
      throw signal.aborted ? error : this.#records.explain(error, formed)
    }
  }

  /** @throws `error` unless the last known image may stand in for the registry's answer */
  #useLastKnown(reference: Reference, lastKnown: FoundRootfs, error: unknown): ResolvedRootfs {
    const { useLastKnown, isSilence } = judgeFailure(error, { isOnMembersWord: lastKnown.belief.name === 'member' })
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
    for (const { place, format } of searchOrder(name.format, reference.kind)) {
      const wanted = { ...name, format }
      const found =
        place === 'host' ? await this.findOnHost(wanted) : await this.#findNameInRegion(wanted, options.signal)
      if (found !== undefined)
        return format === name.format || format === 'raw'
          ? found
          : await this.#convert(reference, found, name.format, options)
    }
    return undefined
  }

  /**
   * What this host has stored of the image, where its word counts here. A record in one format may be older than what this host has accepted for the name since: then it is history.
   */
  async findOnHost(name: ImageName): Promise<FoundRootfs | undefined> {
    const { catalog, trust } = this.#parts
    const record = (await catalog.image(name)) ?? (await this.#findByDigest(name))
    const past = record && (await catalog.namePast(name))
    if (past !== undefined && isSuperseded(record!, past)) return undefined
    const belief = record && trust.judgeStored(record)
    const manifest = belief && (await catalog.rootfs(record.rootfsDigest))
    return manifest && { record, manifest, belief, origin: 'local' }
  }

  /** That the digest of an image manifest stands for it needs no proof: this host may state it. */
  async #findByDigest(name: ImageName): Promise<ImageRecord | undefined> {
    if (!name.reference.includes('@')) return undefined
    const found = recordByDigest(await this.#parts.catalog.images(), name)
    return found && { ...found, nameStatement: await this.#state(found) }
  }

  /** Finds what the region says that the name stands for: the newest statement that this host believes. */
  async #findNameInRegion(name: ImageName, signal: AbortSignal): Promise<FoundRootfs | undefined> {
    const told = (await this.#records.ask(name, undefined, signal)).filter(({ name: by }) => by !== undefined)
    for (const { record: sent, peer, name: by, index } of newestFirst(told)) {
      const manifest = await this.#records.fetchRootfs({ record: sent, peer }, undefined, signal)
      if (manifest === undefined) continue
      const past = by === 'own-past' ? await this.#parts.catalog.namePast(name) : undefined
      const record = past === undefined ? sent : { ...sent, nameStatement: past.nameStatement }
      await this.#store(record, manifest)
      return { record, manifest, belief: describeBelief(record, by!, index), origin: 'peer' }
    }
    return undefined
  }

  /** Finds a rootfs in the region that is believed to be the image that the registry describes. */
  async #findInRegion(name: ImageName, image: ResolvedImage, signal: AbortSignal): Promise<FoundRootfs | undefined> {
    for (const told of await this.#records.ask(name, image.manifestDigest, signal)) {
      const found = await this.#takeFromPeer(told, image, signal)
      if (found !== undefined) return found
    }
    return undefined
  }

  /** Takes the rootfs of a believed record for the image that the registry describes. */
  async #takeFromPeer(told: ToldRecord, image: ResolvedImage, signal: AbortSignal): Promise<FoundRootfs | undefined> {
    const manifest = await this.#records.fetchRootfs(told, image, signal)
    if (manifest === undefined) return undefined
    // A statement that the operator trusts is worth more to others than this host's own.
    const nameStatement = told.name === 'listed-key' ? told.record.nameStatement : await this.#state(told.record)
    const record = { ...told.record, nameStatement }
    await this.#store(record, manifest, { isOwnName: true })
    return { record, manifest, belief: describeBelief(record, 'registry', told.index), origin: 'peer' }
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
    const { platform, manifestDigest } = image
    const isDisputed = this.#records.disputeOf({ manifestDigest, format }).length > 0
    const publication = isDisputed ? undefined : await published.find(reference, image, format, options)
    if (publication !== undefined) {
      const { manifest, belief } = publication
      const record = { ...publication.record, nameStatement: await this.#state(publication.record) }
      await this.#store(record, manifest, { isOwnName: true })
      const found: FoundRootfs = {
        record,
        manifest,
        belief: describeBelief(record, 'registry', belief),
        origin: 'registry',
      }
      return record.format === format ? found : await this.#convert(reference, found, format, options)
    }
    const name = { reference: formatReference(reference), platform, format }
    if (reference.kind === 'registry' && !imports.has(manifestDigest) && !isDisputed) {
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
    return await this.#parts.stewards.ask(
      { ...name, manifestDigest, layers },
      options,
      async (record, peer, signal) => {
        const told = this.#records.judge(record, peer, name, manifestDigest, undefined)
        return told && (await this.#takeFromPeer(told, image, signal))
      },
    )
  }

  /** Makes the rootfs of a known image in another format. */
  async #convert(
    reference: Reference,
    { record, manifest, belief, origin }: FoundRootfs,
    format: RootfsFormat,
    options: FindOptions,
  ): Promise<FoundRootfs> {
    const { config } = manifest
    const image = { ...record, config, layers: layersOf(record.manifest, config) }
    const made = await this.build(reference, image, format, {
      ...options,
      other: { record, isOnMembersWord: isOnMembersWord(belief) },
      named: { by: belief.name, statement: record.nameStatement },
    })
    return { ...made, origin }
  }

  /** Imports the image here, and stores what it made. @throws as {@link Importer.importImage} */
  async build(
    reference: Reference,
    image: ResolvedImage,
    format: RootfsFormat,
    { named, ...options }: MakeOptions,
  ): Promise<FoundRootfs> {
    const { manifestDigest } = image
    const { importer, catalog, lies } = this.#parts
    const dispute = this.#records.disputeOf({ manifestDigest, format })
    const make = async (untold: boolean): Promise<Imported> =>
      await importer.importImage(reference, image, format, { ...options, ...(untold && { untold }) })
    let imported = await make(dispute.length > 0)
    // The same member may have told the same lie about a layer again.
    if (
      imported.isUnverified &&
      lies.isKnown({ manifestDigest, format, rootfsDigest: rootfsDigest(imported.manifest) })
    )
      imported = await make(true)
    const made = {
      reference: formatReference(reference),
      platform: image.platform,
      format,
      manifestDigest,
      manifest: image.manifest,
      rootfsDigest: await catalog.putRootfs(imported.manifest),
    }
    for (const record of dispute)
      if (record.rootfsDigest !== made.rootfsDigest) await lies.found(record, imported.manifest)
    this.#records.endDispute(made)
    return {
      ...(await this.#add(made, imported, named ?? { by: 'registry', statement: await this.#state(made) })),
      origin: 'built',
    }
  }

  async #add(
    made: UnsignedRecord,
    { manifest, isUnverified }: Imported,
    { by, statement }: NonNullable<MakeOptions['named']>,
  ): Promise<BelievedRootfs> {
    const attestation = await attest(made, this.#signer, { told: isUnverified })
    const record = { ...made, attestation, nameStatement: statement }
    await this.#store(record, manifest, { isOwnName: by === 'registry' || by === 'own-past' })
    return { record, manifest, belief: describeBelief(record, by, isUnverified ? 'told-layers' : 'built') }
  }

  /**
   * The registry says that the name stands for a known image: this host states it now. A statement that the operator trusts
   * stays in the record, since it is worth more to others.
   */
  async #confirm(found: FoundRootfs): Promise<FoundRootfs> {
    const { catalog, identity } = this.#parts
    const { record: known, belief } = found
    const { manifestDigest } = known
    const past = await catalog.namePast(known)
    const ageMs = past === undefined ? Infinity : this.#today() - past.nameStatement.statedAtMs
    const isFresh = past?.nameStatement.key === identity.peerId && ageMs >= 0 && ageMs < restateAfterMs
    const nameStatement =
      isFresh && past.manifestDigest === manifestDigest ? past.nameStatement : await this.#state(known)
    const record = belief.name === 'listed-key' ? known : { ...known, nameStatement }
    if (nameStatement !== past?.nameStatement) await catalog.putNamePast(known, { manifestDigest, nameStatement })
    // Nothing is lost with it but a newer time.
    if (record.nameStatement.statedAtMs !== known.nameStatement.statedAtMs)
      await catalog.putImage(record, { sync: false })
    return { ...found, record, belief: describeBelief(record, 'registry', belief.index) }
  }

  /** States, now, what a name stands for: the registry has said so, or the image was made here. */
  async #state(claim: Pick<ImageRecord, 'reference' | 'platform' | 'manifestDigest'>): Promise<NameStatement> {
    return await stateName(claim, this.#today(), this.#signer)
  }

  get #signer(): Signer {
    const { identity } = this.#parts
    return { key: identity.peerId, sign: async (bytes) => await identity.sign(bytes) }
  }

  /**
   * Stores a record after the manifest that it names, whose chunks are tracked from now on.
   * @param options `isOwnName`: whether this host has just had the name from the registry, or given it
   */
  async #store(
    record: ImageRecord,
    manifest: RootfsManifest,
    { isOwnName = false }: { isOwnName?: boolean } = {},
  ): Promise<void> {
    const { catalog, inventory, verifier } = this.#parts
    const digest = await catalog.putRootfs(manifest)
    if (digest !== record.rootfsDigest)
      throw new P2pfsError('invalid', 'rootfs manifest does not match the image record')
    for (const table of tablesOf(manifest)) inventory.track(table)
    await this.#accept(record, { isOwnName })
    await catalog.putImage(record)
    verifier.consider(record)
  }

  /** Keeps what the name stands for, unless something newer was accepted before. */
  async #accept(record: ImageRecord, { isOwnName }: { isOwnName: boolean }): Promise<void> {
    const { catalog, identity } = this.#parts
    const { manifestDigest } = record
    const isOwn = record.nameStatement.key === identity.peerId
    const nameStatement = isOwnName && !isOwn ? await this.#state(record) : record.nameStatement
    const past = isOwnName ? undefined : await catalog.namePast(record)
    if (past === undefined || nameStatement.statedAtMs >= past.nameStatement.statedAtMs)
      await catalog.putNamePast(record, { manifestDigest, nameStatement })
  }
}

/** Whether this host has accepted something else for the name after the record was stated. */
function isSuperseded({ manifestDigest, nameStatement }: ImageRecord, past: AcceptedName): boolean {
  return past.manifestDigest !== manifestDigest && past.nameStatement.statedAtMs > nameStatement.statedAtMs
}
