import { isAttested, type Attestation, type Statement } from '../../protocol/attestation.ts'
import { isRecordAttested, type ImageRecord } from '../../protocol/image-record.ts'
import type { Log } from '../base/log.ts'

export interface IndexTrustParts {
  /** Key of this host. */
  own: () => string
  /** Keys of the members of the region that are connected now. */
  members: () => readonly string[]
  log: Log
}

/**
 * Whose word is taken for what rootfs an image is. This host's own, and that of the keys that are listed; with none listed
 * that of connected members, who vouch for what they pass on too. What is not accepted is passed over, and said.
 */
export class IndexTrust {
  readonly #parts: IndexTrustParts
  readonly #keys: ReadonlySet<string>

  constructor(parts: IndexTrustParts, { keys }: { keys: readonly string[] }) {
    this.#parts = parts
    this.#keys = new Set(keys)
  }

  /** Whether members vouch for what they tell: where no keys are listed. */
  get trustsMembers(): boolean {
    return this.#keys.size === 0
  }

  accepts(key: string): boolean {
    return key === this.#parts.own() || (this.trustsMembers ? this.#parts.members().includes(key) : this.#keys.has(key))
  }

  /** A record that a connected member delivers. */
  acceptsFromPeer(record: ImageRecord, peer: string): boolean {
    const { reference: image, attestation } = record
    if (!isRecordAttested(record))
      return this.#passOver('peer tells of an image what nobody has signed', { image, peer, maker: attestation.key })
    return (
      this.trustsMembers ||
      this.accepts(attestation.key) ||
      this.#passOver(notAccepted, { image, peer, maker: attestation.key, advice })
    )
  }

  /**
   * A record of this host's own catalog: it was accepted when it came, by keys that may not be listed now.
   * @param isUnverified whether this host built it with what peers told
   */
  acceptsStored(
    { reference: image, attestation: { key: maker } }: ImageRecord,
    { isUnverified }: { isUnverified: boolean },
  ): boolean {
    if (this.trustsMembers) return true
    if (isUnverified && maker === this.#parts.own())
      return this.#passOver('index is passed over: this host has made it of what peers told', { image })
    return this.accepts(maker) || this.#passOver(notAccepted, { image, maker, advice })
  }

  /** What was published in the registry. */
  acceptsPublished(statement: Statement, attestation: Attestation, image: string): boolean {
    const { key: maker } = attestation
    if (!isAttested(statement, attestation))
      return this.#passOver('publication is not signed by the key that it names', { image, maker })
    return this.accepts(maker) || this.#passOver(notAccepted, { image, maker, advice })
  }

  #passOver(message: string, fields: Record<string, string>): false {
    this.#parts.log.warn(message, fields)
    return false
  }
}

const notAccepted = 'index is passed over: the key of its maker is not accepted'
const advice = 'where this maker is known, start the daemon with its key as --trust-index-key'
