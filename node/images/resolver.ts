import { P2pfsError } from '../../protocol/errors.ts'
import type { Digest } from '../../protocol/digest.ts'
import type { ImageName } from '../../protocol/image-record.ts'
import type { RegistryWord } from '../../protocol/messages/registry-word.ts'
import type { SeedImage } from '../../protocol/seed-job.ts'
import type { Log } from '../base/log.ts'
import { SingleFlight } from '../base/single-flight.ts'
import { Urgency } from '../base/urgency.ts'
import type {
  BelievedRootfs,
  FindOptions,
  FoundRootfs,
  ImageRootfs,
  PullPolicy,
  ResolvedRootfs,
  UnsignedRecord,
  Variant,
} from '../model/image.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import { newestFirst } from '../publish/belief.ts'
import { describeBelief } from '../publish/index-trust.ts'
import type { ImageSource, ResolvedImage } from '../registry/image-source.ts'
import { callerOf, formatReference, parseReference, type Reference } from '../registry/reference.ts'
import type { Inventory } from '../store/inventory.ts'
import { AccessProofs } from './access-proofs.ts'
import { chooseAnswerer, type Answerer, formatOf, imageKey, isPinned, searchOrder } from './decisions.ts'
import type { Imported } from './importer.ts'
import { RecordKeeper, type RecordKeeperParts } from './record-keeper.ts'
import { RegionRecords, type RegionRecordsParts } from './region-records.ts'
import { answerMs, type LookupOptions } from './registry-lookup.ts'
import { RootfsMaker, type RootfsMakerParts } from './rootfs-maker.ts'
import { TagFreshness } from './tag-freshness.ts'
import { TagQuestions, type TagQuestionsParts } from './tag-questions.ts'

/** When mounts ask the registry, where nothing else is configured. */
const defaultOptions: ResolverOptions = { resolveBudgetMs: 2_000, tagMaxAgeMs: 5 * 60_000 }

/** When mounts ask the registry what a tag stands for. */
export interface ResolverOptions {
  /**
   * A mount that can use the last known image waits this long at most for each answer of the registry (ms). A tag that has not
   * moved takes one answer; the image of one that has moved takes two to five.
   */
  resolveBudgetMs: number
  /**
   * With the policy `newer` a tag is not asked for that somebody who is believed has asked for within this time (ms), and the
   * answer is not waited for longer than is usual. 0: it is asked for, and waited for.
   */
  tagMaxAgeMs: number
}

export interface ImageResolverParts extends TagQuestionsParts, RegionRecordsParts, RecordKeeperParts, RootfsMakerParts {
  catalog: TagQuestionsParts['catalog'] & RegionRecordsParts['catalog'] & RecordKeeperParts['catalog']
  registry: TagQuestionsParts['registry'] & Pick<ImageSource, 'checkAccess'>
  region: TagQuestionsParts['region'] & RegionRecordsParts['region']
  trust: TagQuestionsParts['trust'] & RegionRecordsParts['trust'] & RecordKeeperParts['trust']
  identity: RegionRecordsParts['identity'] & RecordKeeperParts['identity']
  inventory: RecordKeeperParts['inventory'] & Pick<Inventory, 'isWhole'>
  log: Log
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
  readonly #tags: TagQuestions
  readonly #resolving = new SingleFlight<ResolvedRootfs>()
  readonly #proofs: AccessProofs
  readonly #keeper: RecordKeeper
  readonly #records: RegionRecords
  readonly #maker: RootfsMaker
  readonly #freshness: TagFreshness
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
    this.#options = { ...defaultOptions, ...options }
    this.#proofs = new AccessProofs(parts, { now })
    this.#keeper = new RecordKeeper(parts, { today })
    this.#records = new RegionRecords(parts, { now })
    this.#tags = new TagQuestions({ ...parts, keeper: this.#keeper }, { budgetMs: this.#options.resolveBudgetMs, now })
    const known = { keeper: this.#keeper, records: this.#records }
    this.#maker = new RootfsMaker(parts, known)
    this.#freshness = new TagFreshness(known, { maxAgeMs: this.#options.tagMaxAgeMs, today })
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
   * it cannot be reached, the last known image is used, with a warning in the log. An import makes way for reads.
   * @throws timeout if nobody knows the image and the registry is silent; what the signal, the registry client and an
   * import throw
   */
  async resolveForSeed(reference: Reference, variant: Variant, options: FindOptions): Promise<ResolvedRootfs> {
    return await this.#resolve('seed', reference, variant, {
      ...options,
      urgency: new Urgency(false),
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

  /**
   * Asks the registry for a tag that was mounted lately, so that the next mounts need not: a tag that still stands for the
   * image that is known is fresh again for the whole region. A registry that is silent is not waited for again and again.
   * @returns the image; undefined where nobody knows what it stands for now
   * @throws the codes of the registry client; what the signal throws
   */
  async refresh(reference: Reference, variant: Variant, options: FindOptions): Promise<FoundRootfs | undefined> {
    const known = await this.#findLastKnown(reference, { reference: formatReference(reference), ...variant }, options)
    return known && (await this.#tags.refresh(reference, known, options))
  }

  /** This host's experience with the registry that has this key (`registryKey`): members ask for it. */
  registryWord(key: Digest): RegistryWord | undefined {
    return this.#tags.word(key)
  }

  /** Signs and stores the record of an image that was made here. */
  async add(made: UnsignedRecord, imported: Imported): Promise<BelievedRootfs> {
    return await this.#maker.add(made, imported, { by: 'own-past', statement: await this.#keeper.state(made) })
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
    let lastKnown = known
    let answerer = await this.#chooseAnswerer(reference, options.pull, known)
    if (known !== undefined && answerer === 'registry' && options.pull === 'newer' && reference.kind === 'registry') {
      lastKnown = await this.#freshness.refresh(known, options)
      answerer = await this.#chooseAnswerer(reference, options.pull, lastKnown)
    }
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
      else if ((await this.#chooseAnswerer(reference, options.pull, lastKnown, false)) === 'registry')
        this.#tags.askSilent(reference)
      return { ...lastKnown, resolution: 'last-known' }
    }
    return await this.#resolveTag(reference, name, lastKnown, options)
  }

  async #chooseAnswerer(
    reference: Reference,
    pull: MountPolicy,
    known: FoundRootfs | undefined,
    isSilent = this.#tags.isSilent(reference),
  ): Promise<Answerer> {
    const record = known && {
      isWholeHere: known.origin === 'local' && this.#parts.inventory.isWhole(known.manifest),
      isOnMembersWord: known.belief.name === 'member',
      isFresh: reference.kind === 'registry' && (await this.#freshness.isFresh(known)),
    }
    return chooseAnswerer(reference, pull, record, isSilent)
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
      if (lastKnown === undefined) image = await this.#tags.resolve(reference, name.platform, { signal })
      else {
        const isPatient = options.pull === 'newer' && !options.mustProve && this.#options.tagMaxAgeMs > 0
        const moved = await this.#tags.findMoved(reference, lastKnown, { ...options, isPatient })
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
    const found = await this.#maker.findInRegion(formed, image, signal)
    if (found !== undefined) return { ...found, resolution: 'registry' }
    try {
      return { ...(await this.#maker.findOrImport(reference, image, formed.format, options)), resolution: 'registry' }
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
    const { useLastKnown } = this.#tags.failed(reference, lastKnown, error)
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

  /** Finds what this host or its region knows of the image, converted if it is of another format. */
  async #findLastKnown(reference: Reference, name: ImageName, options: FindOptions): Promise<FoundRootfs | undefined> {
    for (const { place, format } of searchOrder(name.format, reference.kind)) {
      const wanted = { ...name, format }
      const found =
        place === 'host' ? await this.findOnHost(wanted) : await this.#findNameInRegion(wanted, options.signal)
      if (found !== undefined)
        return format === name.format || format === 'raw'
          ? found
          : await this.#maker.convert(reference, found, name.format, options)
    }
    return undefined
  }

  /** See {@link RecordKeeper.findOnHost}. */
  async findOnHost(name: ImageName): Promise<FoundRootfs | undefined> {
    return await this.#keeper.findOnHost(name)
  }

  /** See {@link RootfsMaker.build}. */
  readonly build: RootfsMaker['build'] = async (...request) => await this.#maker.build(...request)

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
}
