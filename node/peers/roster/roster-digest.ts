import { bucketHashBytes, rosterBuckets } from '../../../protocol/messages/roster.ts'
import { mix, type MemberHash } from './member-hash.ts'

/** A hash of each bucket of a list of members: SPEC.md, "Region protocol". It is kept up to date, a change at a time. */
export class RosterDigest {
  readonly #words: Uint32Array
  /** Undefined where it has changed. */
  #bytes: Uint8Array | undefined

  constructor(words = new Uint32Array((rosterBuckets * bucketHashBytes) / 4)) {
    this.#words = words
  }

  copy(): RosterDigest {
    return new RosterDigest(this.#words.slice())
  }

  /** Adds the record of a member, or takes it away again. A member without a record does not count. */
  toggle({ hash: { bucket, places }, sequence }: { hash: MemberHash; sequence: number }): void {
    if (sequence === 0) return
    const state = mix(sequence >>> 0, Math.floor(sequence / 2 ** 32))
    this.#bytes = undefined
    this.#words[2 * bucket]! ^= mix(places[0]!, state)
    this.#words[2 * bucket + 1]! ^= mix(places[1]!, state)
  }

  /** Two lists with the same bytes are the same. They are not changed. */
  bytes(): Uint8Array {
    if (this.#bytes !== undefined) return this.#bytes
    const bytes = new Uint8Array(this.#words.length * 4)
    const view = new DataView(bytes.buffer)
    for (const [i, word] of this.#words.entries()) view.setUint32(i * 4, word)
    this.#bytes = bytes
    return bytes
  }
}
