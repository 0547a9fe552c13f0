import { isAttested, type Attestation, type Statement } from '../../protocol/attestation.ts'
import { isRecordAttested, type ImageRecord } from '../../protocol/image-record.ts'
import type { Log } from '../base/log.ts'

export interface IndexTrustParts {
  /** This host's key: its peer id. */
  own: string
  /** The members of the region that are connected now; a member's peer id is its key. */
  membership: { peers: () => readonly { peer: string }[] }
  log: Log
}

/**
 * Decides who is believed when he says what rootfs an image is. This host believes itself, and the keys that are
 * listed. If none are listed, it believes the connected members of its region, and also what they pass on. Anything
 * else is ignored, with a warning in the log.
 */
export class IndexTrust {
  readonly #parts: IndexTrustParts
  readonly #keys: ReadonlySet<string>

  constructor(parts: IndexTrustParts, { keys }: { keys: readonly string[] }) {
    this.#parts = parts
    this.#keys = new Set(keys)
  }

  /** Whether members are believed whoever made what they pass on: if no keys are listed. */
  get trustsMembers(): boolean {
    return this.#keys.size === 0
  }

  accepts(key: string): boolean {
    if (key === this.#parts.own) return true
    return this.trustsMembers ? this.#parts.membership.peers().some(({ peer }) => peer === key) : this.#keys.has(key)
  }

  /** Judges a record that a connected member sends. */
  acceptsFromPeer(record: ImageRecord, peer: string): boolean {
    const { reference: image, attestation } = record
    if (!isRecordAttested(record))
      return this.#ignore('peer sends an image record with a wrong signature', { image, peer, maker: attestation.key })
    return (
      this.trustsMembers ||
      this.accepts(attestation.key) ||
      this.#ignore(notAccepted, { image, peer, maker: attestation.key, advice })
    )
  }

  /**
   * Judges a record of this host's own catalog. It was accepted when it came, but perhaps by other keys than are listed
   * now.
   * @param options `isUnverified`: whether this host built the rootfs from layer indexes that peers sent
   */
  acceptsStored(
    { reference: image, attestation: { key: maker } }: ImageRecord,
    { isUnverified }: { isUnverified: boolean },
  ): boolean {
    if (this.trustsMembers) return true
    if (isUnverified && maker === this.#parts.own)
      return this.#ignore('index is ignored: this host made it from layer indexes that peers sent', { image })
    return this.accepts(maker) || this.#ignore(notAccepted, { image, maker, advice })
  }

  /** Judges a publication in the registry. */
  acceptsPublished(statement: Statement, attestation: Attestation, image: string): boolean {
    const { key: maker } = attestation
    if (!isAttested(statement, attestation))
      return this.#ignore('publication is not signed by the key that it names', { image, maker })
    return this.accepts(maker) || this.#ignore(notAccepted, { image, maker, advice })
  }

  #ignore(message: string, fields: Record<string, string>): false {
    this.#parts.log.warn(message, fields)
    return false
  }
}

const notAccepted = 'index is ignored: the key of its maker is not accepted'
const advice = 'if you know this maker, start the daemon with its key as --trust-index-key'
