import type { Signer } from '../../protocol/attestation.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { ImageName, ImageRecord } from '../../protocol/image-record.ts'
import { stateName, type NameStatement } from '../../protocol/name-statement.ts'
import type { RootfsManifest } from '../../protocol/rootfs-manifest.ts'
import type { FoundRootfs } from '../model/image.ts'
import { tablesOf } from '../model/rootfs-chunks.ts'
import type { PeerNetwork } from '../peers/network.ts'
import { describeBelief, type IndexTrust } from '../publish/index-trust.ts'
import type { AcceptedName, Catalog } from '../store/catalog.ts'
import type { Inventory } from '../store/inventory.ts'
import type { BackgroundVerifier } from './background-verifier.ts'
import { recordByDigest } from './decisions.ts'

/**
 * A statement of this host that the registry confirms is made anew if it is older than this (ms): the newest counts, but a
 * mount that changes nothing need not write each time.
 */
const restateAfterMs = 60_000

export interface RecordKeeperParts {
  catalog: Pick<Catalog, 'image' | 'images' | 'putImage' | 'rootfs' | 'putRootfs' | 'namePast' | 'putNamePast'>
  trust: Pick<IndexTrust, 'judgeStored'>
  verifier: Pick<BackgroundVerifier, 'consider'>
  /** Signs what this host states. */
  identity: Pick<PeerNetwork, 'peerId' | 'sign'>
  /** Tracks the chunks of each rootfs that this host can mount. */
  inventory: Pick<Inventory, 'track'>
}

/** The image records of this host, and what it states itself: which image a name stands for, and since when it knows. */
export class RecordKeeper {
  readonly #parts: RecordKeeperParts
  readonly #today: () => number

  /** @param options `today`: the clock (ms since 1970) */
  constructor(parts: RecordKeeperParts, { today }: { today: () => number }) {
    this.#parts = parts
    this.#today = today
  }

  /**
   * Finds the image in this host's records, if their makers still count here. A record in one format is outdated, and
   * passed over, when this host has accepted a newer statement for the name since.
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
    return found && { ...found, nameStatement: await this.state(found) }
  }

  /**
   * The time at which a host that is believed about the name last asked its registry, or made the image (ms since
   * 1970).
   */
  async askedAtMs({ record }: FoundRootfs): Promise<number> {
    const { manifestDigest, nameStatement } = record
    const past = await this.#parts.catalog.namePast(record)
    const own = past?.manifestDigest === manifestDigest ? past.nameStatement.statedAtMs : 0
    return Math.max(own, nameStatement.statedAtMs)
  }

  /**
   * The registry says that the name stands for a known image: this host states it now. A statement that the operator trusts
   * stays in the record, since it is worth more to others.
   */
  async confirm(found: FoundRootfs): Promise<FoundRootfs> {
    const { catalog, identity } = this.#parts
    const { record: known, belief } = found
    const { manifestDigest } = known
    const past = await catalog.namePast(known)
    const ageMs = past === undefined ? Infinity : this.#today() - past.nameStatement.statedAtMs
    const isFresh = past?.nameStatement.key === identity.peerId && ageMs >= 0 && ageMs < restateAfterMs
    const nameStatement =
      isFresh && past.manifestDigest === manifestDigest ? past.nameStatement : await this.state(known)
    const record = belief.name === 'listed-key' ? known : { ...known, nameStatement }
    if (nameStatement !== past?.nameStatement) await catalog.putNamePast(known, { manifestDigest, nameStatement })
    // Nothing is lost with it but a newer time.
    if (record.nameStatement.statedAtMs !== known.nameStatement.statedAtMs)
      await catalog.putImage(record, { sync: false })
    return { ...found, record, belief: describeBelief(record, 'registry', belief.index) }
  }

  /** States, now, what a name stands for: the registry has said so, or the image was made here. */
  async state(claim: Pick<ImageRecord, 'reference' | 'platform' | 'manifestDigest'>): Promise<NameStatement> {
    return await stateName(claim, this.#today(), this.signer)
  }

  get signer(): Signer {
    const { identity } = this.#parts
    return { key: identity.peerId, sign: async (bytes) => await identity.sign(bytes) }
  }

  /**
   * Stores a record after the manifest that it names, whose chunks are tracked from now on.
   * @param options `isOwnName`: whether this host has just had the name from the registry, or given it
   */
  async store(
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

  /** Stores the record under the name that is the digest of its image manifest. */
  async storeAs(reference: string, record: ImageRecord, manifest: RootfsManifest): Promise<void> {
    const known = await this.#parts.catalog.image({ ...record, reference })
    if (known?.rootfsDigest === record.rootfsDigest) return
    const named = { ...record, reference }
    await this.store({ ...named, nameStatement: await this.state(named) }, manifest)
  }

  /** Keeps what the name stands for, unless something newer was accepted before. */
  async #accept(record: ImageRecord, { isOwnName }: { isOwnName: boolean }): Promise<void> {
    const { catalog, identity } = this.#parts
    const { manifestDigest } = record
    const isOwn = record.nameStatement.key === identity.peerId
    const nameStatement = isOwnName && !isOwn ? await this.state(record) : record.nameStatement
    const past = isOwnName ? undefined : await catalog.namePast(record)
    if (past === undefined || nameStatement.statedAtMs >= past.nameStatement.statedAtMs)
      await catalog.putNamePast(record, { manifestDigest, nameStatement })
  }
}

/** Whether this host has accepted something else for the name after the record was stated. */
function isSuperseded({ manifestDigest, nameStatement }: ImageRecord, past: AcceptedName): boolean {
  return past.manifestDigest !== manifestDigest && past.nameStatement.statedAtMs > nameStatement.statedAtMs
}
