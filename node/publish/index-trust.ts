import { isAttested, type Attestation, type Statement } from '../../protocol/attestation.ts'
import { isRecordSigned, type ImageRecord } from '../../protocol/image-record.ts'
import type { Log } from '../base/log.ts'
import type { Belief, IndexBelief, NameBelief } from '../model/belief.ts'
import { judgeIndex, judgeName, type IndexRefusal, type NamePast, type Standing, type Verdict } from './belief.ts'
import type { Lies } from './lies.ts'

export interface IndexTrustParts {
  /** This host's key: its peer id. */
  own: string
  /** The members of the region that are connected now; a member's peer id is its key. */
  /** The members of the region, connected or not. */
  membership: { roster: { get: (peer: string) => object | undefined } }
  lies: Pick<Lies, 'isLiar' | 'isContradicted'>
  log: Log
}

/** A record as it was judged, each claim by itself; undefined where this host does not believe it. */
export interface JudgedRecord {
  name: NameBelief | undefined
  index: IndexBelief | undefined
}

/**
 * Applies the rules of `belief.ts` to the records that others send and publish. Those that are not believed are ignored
 * and logged.
 */
export class IndexTrust {
  readonly #parts: IndexTrustParts
  readonly #keys: ReadonlySet<string>
  readonly #now: () => number

  /** @param options `keys`: those that the operator lists; `now`: the clock (ms since 1970) */
  constructor(parts: IndexTrustParts, { keys, now = Date.now }: { keys: readonly string[]; now?: () => number }) {
    this.#parts = parts
    this.#keys = new Set(keys)
    this.#now = now
  }

  /** Whether members are believed on their word: if no keys are listed. */
  get trustsMembers(): boolean {
    return this.#keys.size === 0
  }

  /** Whether what the owner of the key has built is believed. */
  accepts(key: string): boolean {
    return 'believed' in judgeIndex(this.#standing(key), {}, this.#rules)
  }

  /**
   * Whether a statement about a rootfs is believed now; the log says nothing.
   * @param options `isStored`: whether it is this host's own record
   */
  believes(statement: Statement, attestation: Attestation, { isStored = false } = {}): boolean {
    return isAttested(statement, attestation) && 'believed' in this.#verdictOn(statement, attestation, { isStored })
  }

  /** Judges a record that a connected member sends, of which the fields of its name have been checked. */
  judgeFromPeer(record: ImageRecord, peer: string, past: NamePast | undefined): JudgedRecord {
    const { reference: image, attestation, nameStatement } = record
    const { key: maker } = attestation
    if (!isRecordSigned(record)) {
      this.#ignore('peer sends an image record with a wrong signature', { image, peer, maker })
      return { name: undefined, index: undefined }
    }
    const by = this.#standing(nameStatement.key)
    const claim = { statedAtMs: nameStatement.statedAtMs, manifestDigest: record.manifestDigest }
    const name = judgeName(by, claim, { ...this.#rules, nowMs: this.#now(), past })
    if ('refused' in name)
      this.#parts.log.debug('statement about a name is ignored', {
        image,
        peer,
        statedBy: nameStatement.key,
        because: name.refused,
      })
    return {
      name: isProvenByDigest(record) ? 'digest' : 'refused' in name ? undefined : name.believed,
      index: this.#judgeIndex(record, attestation, { image, peer }),
    }
  }

  /**
   * Judges a record of this host's own catalog. It was believed when it came, but perhaps by other keys than are listed
   * now. A member that has left the region since is still believed.
   */
  judgeStored(record: ImageRecord): Belief | undefined {
    const index = this.#judgeIndex(record, record.attestation, { image: record.reference }, { isStored: true })
    return index === undefined ? undefined : this.beliefIn(record)
  }

  /** As {@link judgeStored}, but the log says nothing. */
  beliefIn(record: ImageRecord): Belief | undefined {
    const { attestation, nameStatement, manifestDigest } = record
    const index = this.#verdictOn(record, attestation, { isStored: true })
    if (!('believed' in index)) return undefined
    if (isProvenByDigest(record)) return describeBelief(record, 'digest', index.believed)
    const by = this.#standing(nameStatement.key, { isStored: true })
    const known = { ...this.#rules, nowMs: 0, past: undefined }
    const name = judgeName(by, { statedAtMs: 0, manifestDigest }, known)
    return 'refused' in name ? undefined : describeBelief(record, name.believed, index.believed)
  }

  /** Judges a publication in the registry. */
  judgePublished(statement: Statement, attestation: Attestation, image: string): IndexBelief | undefined {
    if (isAttested(statement, attestation)) return this.#judgeIndex(statement, attestation, { image })
    this.#ignore('publication is not signed by the key that it names', { image, maker: attestation.key })
    return undefined
  }

  #judgeIndex(
    statement: Statement,
    attestation: Attestation,
    fields: Record<string, string>,
    { isStored = false } = {},
  ): IndexBelief | undefined {
    const verdict = this.#verdictOn(statement, attestation, { isStored })
    if ('believed' in verdict) return verdict.believed
    const message = refusals[verdict.refused]
    this.#ignore(message, { ...fields, maker: attestation.key, ...(message === notAccepted && { advice }) })
    return undefined
  }

  #verdictOn(
    statement: Statement,
    { key, told }: Pick<Attestation, 'key' | 'told'>,
    { isStored }: { isStored: boolean },
  ): Verdict<IndexBelief, IndexRefusal | 'contradicted'> {
    if (this.#parts.lies.isContradicted(statement)) return { refused: 'contradicted' }
    return judgeIndex(this.#standing(key, { told, isStored }), { told }, this.#rules)
  }

  get #rules(): { areKeysListed: boolean } {
    return { areKeysListed: !this.trustsMembers }
  }

  #standing(
    key: string,
    { told, isStored = false }: { told?: boolean | undefined; isStored?: boolean } = {},
  ): Standing {
    const { own, lies, membership } = this.#parts
    if (key === own) return 'own'
    if (lies.isLiar(key, { told })) return 'liar'
    if (this.#keys.has(key)) return 'listed'
    return isStored || membership.roster.get(key) !== undefined ? 'member' : 'stranger'
  }

  #ignore(message: string, fields: Record<string, string>): void {
    this.#parts.log.warn(message, fields)
  }
}

/** Describes which claims of a record are believed, and on whose word. */
export function describeBelief(
  { attestation, nameStatement }: Pick<ImageRecord, 'attestation' | 'nameStatement'>,
  name: NameBelief,
  index: IndexBelief,
): Belief {
  return {
    name,
    ...(name === 'listed-key' || name === 'member' ? { namedBy: nameStatement.key } : {}),
    index,
    ...(index === 'listed-key' || index === 'member' ? { maker: attestation.key } : {}),
  }
}

/** Whether the reference is the digest of the image manifest: then nobody has to be believed about it. */
export function isProvenByDigest({
  reference,
  manifestDigest,
}: Pick<ImageRecord, 'reference' | 'manifestDigest'>): boolean {
  return reference.endsWith(`@${manifestDigest}`)
}

const notAccepted = 'index is ignored: the key of its maker is not accepted'
const refusals: Record<IndexRefusal | 'contradicted', string> = {
  contradicted: 'index is ignored: this host has proved that it is false',
  liar: 'index is ignored: its maker has signed a false one before',
  'told layers': 'index is ignored: its maker made it from layer indexes that peers sent',
  'key not listed': notAccepted,
  'not a member': notAccepted,
}
const advice = 'if you know this maker, start the daemon with its key as --trust-index-key'
