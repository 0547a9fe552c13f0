import { attest } from '../../protocol/attestation.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageName } from '../../protocol/image-record.ts'
import type { NameStatement } from '../../protocol/name-statement.ts'
import { rootfsDigest, type RootfsFormat } from '../../protocol/rootfs-manifest.ts'
import type { SeedImage } from '../../protocol/seed-job.ts'
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
import { maxClockSkewMs, newestFirst } from '../publish/belief.ts'
import { describeBelief } from '../publish/index-trust.ts'
import type { PublishedImages } from '../publish/published-images.ts'
import { layersOf, type ImageSource, type ResolvedImage } from '../registry/image-source.ts'
import { callerOf, formatReference, parseReference, type Reference } from '../registry/reference.ts'
import type { Inventory } from '../store/inventory.ts'
import { AccessProofs } from './access-proofs.ts'
import { chooseAnswerer, formatOf, imageKey, isPinned, judgeFailure, registryOf, searchOrder } from './decisions.ts'
import type { FalseStatements } from './false-statements.ts'
import type { Imported, Importer, ImportOptions } from './importer.ts'
import { RecordKeeper, type RecordKeeperParts } from './record-keeper.ts'
import { RegionRecords, type RegionRecordsParts, type ToldRecord } from './region-records.ts'
import { answerMs, RegistryLookup, type LookupOptions, type RegistryLookupParts } from './registry-lookup.ts'
import { importOf, type RunningImports } from './running-imports.ts'
import { SilentRegistries } from './silent-registries.ts'
import type { Stewards } from './stewards.ts'

/** When mounts ask the registry, where nothing else is configured. */
const defaultOptions: ResolverOptions = { resolveBudgetMs: 2_000, tagMaxAgeMs: 5 * 60_000 }

/** When mounts ask the registry what a tag stands for. */
export interface ResolverOptions {
  /**
   * A mount that can use the last known image waits this long for each answer of the registry (ms). A tag that has not moved
   * takes one answer; the image of one that has moved takes two to five.
   */
  resolveBudgetMs: number
  /** With the policy `newer` a tag is not asked for that somebody who is believed has asked for within this time (ms). */
  tagMaxAgeMs: number
}

export interface ImageResolverParts extends RegistryLookupParts, RegionRecordsParts, RecordKeeperParts {
  catalog: RegistryLookupParts['catalog'] & RegionRecordsParts['catalog'] & RecordKeeperParts['catalog']
  registry: RegistryLookupParts['registry'] & Pick<ImageSource, 'checkAccess'>
  published: Pick<PublishedImages, 'find'>
  trust: RegionRecordsParts['trust'] & RecordKeeperParts['trust']
  identity: RegionRecordsParts['identity'] & RecordKeeperParts['identity']
  lies: Pick<FalseStatements, 'found' | 'isKnown'>
  importer: Pick<Importer, 'importImage'>
  imports: Pick<RunningImports, 'has' | 'run'>
  stewards: Pick<Stewards, 'ask'>
  inventory: RecordKeeperParts['inventory'] & Pick<Inventory, 'isWhole'>
  log: Log
}

/** How an image comes to be imported. */
interface MakeOptions extends ImportOptions {
  /** Who says that the name stands for the image; the registry, where it is not given. */
  named?: { by: NameBelief; statement: NameStatement }
}

/** A policy for one mount: `auto` has been replaced by that of this host. */
export type MountPolicy = Exclude<PullPolicy, 'auto'>

interface ResolveOptions extends FindOptions, LookupOptions {
  pull: MountPolicy
  /** Whether the registry must have let the caller of the reference read the image, here or a moment ago. */
  mustProve: boolean
}

/**
 * Finds the rootfs that an image reference stands for: on this host, in the region, in the registry, or by an import.
 * The decisions are in `decisions.ts`; this class gathers what they depend on, and carries them out.
 */
export class ImageResolver {
  readonly #parts: ImageResolverParts
  readonly #lookup: RegistryLookup
  readonly #resolving = new SingleFlight<ResolvedRootfs>()
  readonly #silent: SilentRegistries
  readonly #proofs: AccessProofs
  readonly #keeper: RecordKeeper
  readonly #records: RegionRecords
  readonly #today: () => number
  readonly #options: ResolverOptions

  /** @param options `now`: the clock (ms); `today`: the same, since 1970 */
  constructor(
    parts: ImageResolverParts,
    {
      now = () => performance.now(),
      today = Date.now,
      ...options
    }: { now?: () => number; today?: () => number } & Partial<ResolverOptions> = {},
  ) {
    this.#parts = parts
    this.#today = today
    this.#options = { ...defaultOptions, ...options }
    this.#silent = new SilentRegistries({ now })
    this.#proofs = new AccessProofs(parts, { now })
    this.#keeper = new RecordKeeper(parts, { today })
    this.#records = new RegionRecords(parts, { now })
    this.#lookup = new RegistryLookup(parts)
  }

  /**
   * Resolves a reference for a mount, which must be quick: if the registry does not answer soon, the last known image
   * is used. An image that is known in another format only is converted from its layer indexes; layers are read only if
   * nobody in the region has their index.
   * @param options `requireAccess`: the caller of the reference must prove that he may read the image, whatever is known of
   * it; so must one whose policy is `always`
   * @throws missing if nobody knows the image and `pull` is `never`; timeout if nobody knows it and the registry is
   * silent; denied, missing for a caller who may not read it; what the signal, the registry client and an import throw
   */
  async resolveForMount(
    reference: Reference,
    variant: Variant,
    { requireAccess = false, ...options }: FindOptions & { pull: MountPolicy; requireAccess?: boolean },
  ): Promise<ResolvedRootfs> {
    const mustProve = requireAccess || (callerOf(reference) !== undefined && options.pull === 'always')
    return await this.#resolve('mount', reference, variant, {
      ...options,
      mustProve,
      // Nothing stands in for the answer.
      answerMs: mustProve && options.pull === 'always' ? answerMs : this.#options.resolveBudgetMs,
    })
  }

  /**
   * Resolves a reference for a seed, which must be current: the registry is always asked what a tag stands for now. If
   * it cannot be reached, the last known image is used, with a warning in the log.
   * @throws timeout if nobody knows the image and the registry is silent; what the signal, the registry client and an
   * import throw
   */
  async resolveForSeed(reference: Reference, variant: Variant, options: FindOptions): Promise<ResolvedRootfs> {
    return await this.#resolve('seed', reference, variant, {
      ...options,
      pull: 'always',
      mustProve: false,
      answerMs,
    })
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
      if (told.name !== undefined && stored === undefined) await this.#keeper.store(told.record, manifest)
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
    return await this.#add(made, imported, { by: 'own-past', statement: await this.#keeper.state(made) })
  }

  /**
   * Has this host and its region know an image by its digest, too: a mount by that name asks no registry.
   * @returns the name; undefined for an image that is in no registry
   */
  async nameByDigest({ record, manifest }: ImageRootfs): Promise<string | undefined> {
    const reference = parseReference(record.reference)
    if (reference.kind !== 'registry') return undefined
    const named = formatReference({ ...reference, digest: record.manifestDigest })
    if (named !== record.reference) await this.#keeper.storeAs(named, record, manifest)
    return named
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
      `${purpose} ${options.pull} ${options.mustProve} ${callerOf(reference)?.key ?? ''} ${imageKey(name)}`,
      signal,
      async (signal) => await this.#resolveOnce(reference, name, { ...options, signal }),
    )
    return isPinned(reference) ? { ...resolved, resolution: 'digest' } : resolved
  }

  async #resolveOnce(reference: Reference, name: ImageName, options: ResolveOptions): Promise<ResolvedRootfs> {
    const known = await this.#findLastKnown(reference, name, options)
    const lastKnown = known && (await this.#refresh(known, reference, options))
    const answerer = chooseAnswerer(
      reference,
      options.pull,
      lastKnown && {
        isWholeHere: lastKnown.origin === 'local' && this.#parts.inventory.isWhole(lastKnown.manifest),
        isOnMembersWord: lastKnown.belief.name === 'member',
        isFresh: reference.kind === 'registry' && (await this.#isFresh(lastKnown)),
      },
      this.#silent.has(registryOf(reference)),
    )
    if (answerer === 'nobody')
      throw this.#records.explain(
        new P2pfsError(
          'missing',
          `neither this host nor its region knows ${name.reference}, and the registry was not to be asked`,
        ),
        name,
      )
    if (lastKnown !== undefined && answerer === 'record') {
      const { manifestDigest } = lastKnown.record
      if (options.mustProve) await this.#proofs.prove(reference, manifestDigest, options)
      else this.#askSilent(reference, name.platform)
      return { ...lastKnown, resolution: 'last-known' }
    }
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
    const registry = registryOf(reference)
    let image: ResolvedImage
    try {
      if (lastKnown === undefined) image = await this.#lookup.resolve(reference, name.platform, { signal, answerMs })
      else {
        const moved = await this.#lookup.findMoved(reference, lastKnown.record, options)
        this.#silent.answered(registry)
        if (moved === undefined) {
          this.#proofs.noteAnswer(reference, lastKnown.record.manifestDigest)
          return { ...(await this.#keeper.confirm(lastKnown)), resolution: 'registry' }
        }
        image = moved
      }
    } catch (error) {
      if (signal.aborted) throw error
      if (lastKnown === undefined) throw this.#records.explain(error, name)
      return this.#useLastKnown(reference, lastKnown, error, options)
    }
    this.#proofs.noteAnswer(reference, image.manifestDigest)
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
  #useLastKnown(
    reference: Reference,
    lastKnown: FoundRootfs,
    error: unknown,
    { mustProve }: ResolveOptions,
  ): ResolvedRootfs {
    const { useLastKnown, isSilence } = judgeFailure(error, {
      isOnMembersWord: lastKnown.belief.name === 'member',
      isForCaller: callerOf(reference) !== undefined,
    })
    if (isSilence) this.#silent.silent(registryOf(reference))
    else this.#silent.answered(registryOf(reference))
    if (!useLastKnown || mustProve) throw error
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

  /** Whether somebody who is believed about the name has asked the registry so lately that nobody does it again. */
  async #isFresh(found: FoundRootfs): Promise<boolean> {
    return this.#isRecent(await this.#keeper.askedAtMs(found))
  }

  /** Clocks may differ within the bounds that the rules of belief have; one that was wrong keeps no tag for longer. */
  readonly #isRecent = (atMs: number): boolean => {
    const { tagMaxAgeMs } = this.#options
    const ageMs = this.#today() - atMs
    return tagMaxAgeMs > 0 && ageMs < tagMaxAgeMs && ageMs > -maxClockSkewMs
  }

  /**
   * What a member says of a tag that this host is about to ask for: one of them may have asked a moment ago. It is believed by
   * the rules; and one that says again what this host knows must be believed as if this host knew nothing.
   */
  async #refresh(known: FoundRootfs, reference: Reference, { pull, signal }: ResolveOptions): Promise<FoundRootfs> {
    const { record } = known
    const isWhole = known.origin === 'local' && this.#parts.inventory.isWhole(known.manifest)
    const isAsked = pull === 'newer' && reference.kind === 'registry' && !isPinned(reference) && !isWhole
    if (!isAsked || this.#silent.has(registryOf(reference)) || (await this.#isFresh(known))) return known
    const told = (await this.#records.ask(record, undefined, signal)).filter(
      ({ record: { nameStatement }, name }) => name !== undefined && this.#isRecent(nameStatement.statedAtMs),
    )
    for (const { record: sent, peer, name: by, index } of newestFirst(told)) {
      const { name } = this.#records.judge(sent, peer, record, undefined) ?? {}
      if (name !== 'listed-key' && name !== 'member') continue
      if (sent.manifestDigest === record.manifestDigest) {
        const told = { ...known.record, nameStatement: sent.nameStatement }
        return { ...known, record: told }
      }
      // A member's word does not stand against what this host knows better.
      if (name === 'member' && known.belief.name !== 'member') continue
      const manifest = await this.#records.fetchRootfs({ record: sent, peer }, undefined, signal)
      if (manifest === undefined) continue
      await this.#keeper.store(sent, manifest)
      return { record: sent, manifest, belief: describeBelief(sent, by!, index), origin: 'peer' }
    }
    return known
  }

  /** Asks a silent registry again, beside whoever has come: nobody waits for that. */
  #askSilent(reference: Reference, platform: string): void {
    const registry = registryOf(reference)
    if (!this.#silent.isDue(registry)) return
    const options = { signal: new AbortController().signal, answerMs: this.#options.resolveBudgetMs }
    this.#lookup.ask(reference, options).then(
      () => this.#silent.answered(registry),
      (error: unknown) => {
        if (!judgeFailure(error).isSilence) this.#silent.answered(registry)
        this.#parts.log.debug('registry has been asked again', { error, registry, platform })
      },
    )
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

  /** See {@link RecordKeeper.findOnHost}. */
  async findOnHost(name: ImageName): Promise<FoundRootfs | undefined> {
    return await this.#keeper.findOnHost(name)
  }

  /** Finds what the region says that the name stands for: the newest statement that this host believes. */
  async #findNameInRegion(name: ImageName, signal: AbortSignal): Promise<FoundRootfs | undefined> {
    const told = (await this.#records.ask(name, undefined, signal)).filter(({ name: by }) => by !== undefined)
    for (const { record: sent, peer, name: by, index } of newestFirst(told)) {
      const manifest = await this.#records.fetchRootfs({ record: sent, peer }, undefined, signal)
      if (manifest === undefined) continue
      const past = by === 'own-past' ? await this.#parts.catalog.namePast(name) : undefined
      const record = past === undefined ? sent : { ...sent, nameStatement: past.nameStatement }
      await this.#keeper.store(record, manifest)
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
    const nameStatement = told.name === 'listed-key' ? told.record.nameStatement : await this.#keeper.state(told.record)
    const record = { ...told.record, nameStatement }
    await this.#keeper.store(record, manifest, { isOwnName: true })
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
      const record = { ...publication.record, nameStatement: await this.#keeper.state(publication.record) }
      await this.#keeper.store(record, manifest, { isOwnName: true })
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
      const found = await this.#askStewards(reference, name, image, options)
      if (found !== undefined) return found
    }
    return await imports.run(
      importOf(name, manifestDigest, callerOf(reference)?.key),
      options,
      async (options) => await this.build(reference, image, format, options),
    )
  }

  async #askStewards(
    reference: Reference,
    name: ImageName,
    image: ResolvedImage,
    options: FindOptions,
  ): Promise<FoundRootfs | undefined> {
    const { manifestDigest, layers } = image
    return await this.#parts.stewards.ask(
      { ...name, manifestDigest, layers },
      { ...options, isForCaller: callerOf(reference) !== undefined },
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
      ...(await this.#add(made, imported, named ?? { by: 'registry', statement: await this.#keeper.state(made) })),
      origin: 'built',
    }
  }

  async #add(
    made: UnsignedRecord,
    { manifest, isUnverified }: Imported,
    { by, statement }: NonNullable<MakeOptions['named']>,
  ): Promise<BelievedRootfs> {
    const attestation = await attest(made, this.#keeper.signer, { told: isUnverified })
    const record = { ...made, attestation, nameStatement: statement }
    await this.#keeper.store(record, manifest, { isOwnName: by === 'registry' || by === 'own-past' })
    return { record, manifest, belief: describeBelief(record, by, isUnverified ? 'told-layers' : 'built') }
  }
}
