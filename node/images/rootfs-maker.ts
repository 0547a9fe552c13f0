import { attest } from '../../protocol/attestation.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import type { NameStatement } from '../../protocol/name-statement.ts'
import { rootfsDigest, type RootfsFormat } from '../../protocol/rootfs-manifest.ts'
import { isOnMembersWord, type NameBelief } from '../model/belief.ts'
import type { BelievedRootfs, FindOptions, FoundRootfs, UnsignedRecord } from '../model/image.ts'
import { describeBelief } from '../publish/index-trust.ts'
import type { PublishedImages } from '../publish/published-images.ts'
import { layersOf, type ResolvedImage } from '../registry/image-source.ts'
import { callerOf, formatReference, type Reference } from '../registry/reference.ts'
import type { Catalog } from '../store/catalog.ts'
import type { FalseStatements } from './false-statements.ts'
import type { Imported, Importer, ImportOptions } from './importer.ts'
import type { RecordKeeper } from './record-keeper.ts'
import type { RegionRecords, ToldRecord } from './region-records.ts'
import { importOf, type RunningImports } from './running-imports.ts'
import type { Stewards } from './stewards.ts'

export interface RootfsMakerParts {
  catalog: Pick<Catalog, 'putRootfs'>
  published: Pick<PublishedImages, 'find'>
  lies: Pick<FalseStatements, 'found' | 'isKnown'>
  importer: Pick<Importer, 'importImage'>
  imports: Pick<RunningImports, 'has' | 'run'>
  stewards: Pick<Stewards, 'ask' | 'askImporting'>
}

/** How an image comes to be imported. */
interface MakeOptions extends ImportOptions {
  /** The host that says that the name stands for the image; by default the registry does. */
  named?: { by: NameBelief; statement: NameStatement }
}

/**
 * Gets the rootfs of an image that the registry has described: from the region, from a publication, by a steward's import, or
 * by one here.
 */
export class RootfsMaker {
  readonly #parts: RootfsMakerParts
  readonly #keeper: RecordKeeper
  readonly #records: RegionRecords

  constructor(parts: RootfsMakerParts, { keeper, records }: { keeper: RecordKeeper; records: RegionRecords }) {
    this.#parts = parts
    this.#keeper = keeper
    this.#records = records
  }

  /** Finds a rootfs in the region that is believed to be the image that the registry describes. */
  async findInRegion(name: ImageName, image: ResolvedImage, signal: AbortSignal): Promise<FoundRootfs | undefined> {
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
  async findOrImport(
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
      return record.format === format ? found : await this.convert(reference, found, format, options)
    }
    const name = { reference: formatReference(reference), platform, format }
    if (reference.kind === 'registry' && !imports.has(manifestDigest) && !isDisputed) {
      const found = await this.#askStewards(reference, name, image, options)
      if (found !== undefined) return found
    }
    return await imports.run(
      importOf(name, manifestDigest, callerOf(reference)?.key),
      options,
      async ({ onReading, ...options }) => {
        const isForCaller = reference.kind === 'registry' && reference.caller !== undefined
        const found = isForCaller && !isDisputed ? await this.#askImporting(name, image, options) : undefined
        if (found !== undefined) return found
        onReading()
        return await this.build(reference, image, format, options)
      },
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
      this.#accepting(name, image),
    )
  }

  async #askImporting(name: ImageName, image: ResolvedImage, options: FindOptions): Promise<FoundRootfs | undefined> {
    const { manifestDigest, layers } = image
    return await this.#parts.stewards.askImporting(
      { ...name, manifestDigest, layers },
      options,
      this.#accepting(name, image),
    )
  }

  /** Takes the rootfs of a record that a member sends, where it is believed. */
  #accepting(name: ImageName, image: ResolvedImage) {
    return async (record: ImageRecord, peer: string, signal: AbortSignal): Promise<FoundRootfs | undefined> => {
      const told = this.#records.judge(record, peer, name, image.manifestDigest, undefined)
      return told && (await this.#takeFromPeer(told, image, signal))
    }
  }

  /** Makes the rootfs of a known image in another format. */
  async convert(
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
      ...(await this.add(made, imported, named ?? { by: 'registry', statement: await this.#keeper.state(made) })),
      origin: 'built',
    }
  }

  async add(
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
