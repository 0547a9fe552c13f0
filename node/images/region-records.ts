import { digestOf, type Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import type { RootfsFormat, RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import { ExpiringMap } from '../base/expiring-map.ts'
import type { Log } from '../base/log.ts'
import type { IndexBelief, NameBelief } from '../model/belief.ts'
import { isRootfsOf } from '../model/image.ts'
import type { PeerNetwork } from '../peers/network.ts'
import type { RegionObjects } from '../peers/object/region-objects.ts'
import { imageOf, settle, type NamePast } from '../publish/belief.ts'
import type { IndexTrust } from '../publish/index-trust.ts'
import { configDigestOf, layersOf, type ResolvedImage } from '../registry/image-source.ts'
import type { AcceptedName, Catalog } from '../store/catalog.ts'
import { fitOf } from './decisions.ts'

/** How long an image about which members contradict each other is believed to nobody (ms): this host builds it itself. */
const disputeMs = 10 * 60_000
/** Such images that are remembered, and statements about each. */
const maxDisputes = 64
const maxDisputed = 8

export interface RegionRecordsParts {
  catalog: Pick<Catalog, 'namePast'>
  region: Pick<RegionObjects, 'findImages' | 'fetchRootfs'>
  trust: Pick<IndexTrust, 'judgeFromPeer'>
  identity: Pick<PeerNetwork, 'peerId'>
  log: Log
}

/** A record that a member sends, and what this host believes of it. */
export interface ToldRecord {
  record: ImageRecord
  peer: string
  /** Undefined where its rootfs is believed, but not that the name stands for that image. */
  name: NameBelief | undefined
  index: IndexBelief
}

/** Asks the region for records of images, and returns those that this host believes. */
export class RegionRecords {
  readonly #parts: RegionRecordsParts
  /** Images about which members contradict each other, and their statements. */
  readonly #disputes: ExpiringMap<string, readonly ImageRecord[]>
  /** The same, by the name under which they were told. */
  readonly #disputedNames: ExpiringMap<string, readonly ImageRecord[]>

  /** @param options `now`: the clock (ms) */
  constructor(parts: RegionRecordsParts, { now }: { now: () => number }) {
    this.#parts = parts
    this.#disputes = new ExpiringMap({ maxEntries: maxDisputes, now })
    this.#disputedNames = new ExpiringMap({ maxEntries: maxDisputes, now })
  }

  /**
   * Asks the region for its records of the image. Those whose rootfs is not believed are left out, and those that
   * contradict each other: this host builds that image itself then.
   * @param manifestDigest which image it must be; undefined if any will do
   */
  async ask(name: ImageName, manifestDigest: Digest | undefined, signal: AbortSignal): Promise<ToldRecord[]> {
    const { region, catalog } = this.#parts
    const past = pastOf(await catalog.namePast(name), this.#parts.identity.peerId)
    const judged: ToldRecord[] = []
    const isOfUse = (record: ImageRecord, peer: string): boolean => {
      const told = this.judge(record, peer, name, manifestDigest, past)
      if (told !== undefined) judged.push(told)
      return told !== undefined
    }
    const found = new Set((await region.findImages(name, { signal, isOfUse })).map(({ record }) => record))
    const believed = judged.filter(({ record }) => found.has(record))
    const { undisputed, disputes } = settle(believed.map(({ record, index }) => ({ claim: record, belief: index })))
    for (const dispute of disputes) this.#remember(dispute)
    return believed.filter(({ record }) => undisputed.includes(record) && !this.#disputes.has(imageOf(record)))
  }

  /** Judges a peer's record, which must be of the image that was asked for. */
  judge(
    record: ImageRecord,
    peer: string,
    name: ImageName,
    manifestDigest: Digest | undefined,
    past?: NamePast,
  ): ToldRecord | undefined {
    const fit = fitOf(record, name, manifestDigest)
    if (fit === 'other image') this.#parts.log.warn('peer answers with the record of another image', { peer })
    if (fit !== 'fits') return undefined
    const { name: by, index } = this.#parts.trust.judgeFromPeer(record, peer, past)
    return index === undefined ? undefined : { record, peer, name: by, index }
  }

  /** Remembers statements of members that contradict each other: none of them is believed. */
  #remember(dispute: readonly ImageRecord[]): void {
    const [first] = dispute
    const disputed = dispute.slice(0, maxDisputed)
    this.#disputes.set(imageOf(first!), disputed, disputeMs)
    this.#disputedNames.set(nameKey(first!), disputed, disputeMs)
    this.#parts.log.warn('members contradict each other about the rootfs of an image; none of them is believed', {
      image: first!.reference,
      makers: makersOf(dispute),
    })
  }

  /** Says, where the registry does not help, that the region would have if its members did not contradict each other. */
  explain(error: unknown, name: ImageName): unknown {
    if (!isP2pfsError(error)) return error
    const disputed = this.#disputedNames.get(nameKey(name))
    if (disputed === undefined) return error
    const makers = makersOf(disputed).join(' and ')
    return new P2pfsError(
      error.code,
      `members contradict each other about ${name.reference} (signed by ${makers}), and this host cannot build it: ` +
        error.message,
      { cause: error },
    )
  }

  /**
   * Fetches the rootfs manifest that a record names. Its config and its layers must be those of the image manifest, so that
   * only the chunks of the layers are on the maker's word.
   * @param image what the registry has; undefined if it was not asked
   */
  async fetchRootfs(
    { record, peer }: Pick<ToldRecord, 'record' | 'peer'>,
    image: ResolvedImage | undefined,
    signal: AbortSignal,
  ): Promise<RootfsManifest | undefined> {
    const { region, log } = this.#parts
    const manifest = await region.fetchRootfs(record.rootfsDigest, { signal, first: peer })
    if (manifest === undefined) return undefined
    const isOfImage =
      manifest.format === record.format &&
      (image === undefined
        ? isRootfsOfManifest(manifest, record.manifest)
        : record.manifest === image.manifest && isRootfsOf(manifest, image))
    if (isOfImage) return manifest
    log.warn('peer has built the image from other layers than the registry has', {
      peer,
      image: record.reference,
      digest: record.rootfsDigest,
    })
    return undefined
  }

  /** The statements of members that contradict each other about the image; none where they do not. */
  disputeOf(image: { manifestDigest: Digest; format: RootfsFormat }): readonly ImageRecord[] {
    return this.#disputes.get(imageOf(image)) ?? []
  }

  /** This host has read the layers, and knows. */
  endDispute(image: { manifestDigest: Digest; format: RootfsFormat }): void {
    this.#disputes.delete(imageOf(image))
  }
}

/** The newest statement that this host has accepted for a name, as the rules see it. */
function pastOf(accepted: AcceptedName | undefined, own: string): NamePast | undefined {
  return (
    accepted && {
      statedAtMs: accepted.nameStatement.statedAtMs,
      manifestDigest: accepted.manifestDigest,
      isOwn: accepted.nameStatement.key === own,
    }
  )
}

const makersOf = (records: readonly ImageRecord[]): string[] => [
  ...new Set(records.map(({ attestation }) => attestation.key)),
]

/** Equal for all formats of an image by one name. */
const nameKey = ({ reference, platform }: Omit<ImageName, 'format'>): string => `${platform} ${reference}`

/** Whether a rootfs has the config and the layers that the image manifest, which somebody has sent, names. */
function isRootfsOfManifest(manifest: RootfsManifest, json: string): boolean {
  try {
    if (digestOf(Buffer.from(manifest.config)) !== configDigestOf(json)) return false
    return isRootfsOf(manifest, { config: manifest.config, layers: layersOf(json, manifest.config) })
  } catch (error) {
    if (isP2pfsError(error)) return false
    throw error
  }
}
