import type { PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { signMemberRecord, type MemberRecord } from '../../protocol/member-record.ts'
import { trackersOf, type Trackers } from '../../node/peers/location/tracker-map.ts'
import { RosterDigest } from '../../node/peers/roster/roster-digest.ts'
import { knownEntry, type KnownMembers, type RosterEntry } from '../../node/peers/roster/roster.ts'
import { SharedMap } from './shared-map.ts'

/**
 * The members of a region that has gossiped for long: each host has the signed record of each, and knows the same trackers.
 * It is there once, since it is the same for all hosts; what one of them changes is its own.
 */
export class SettledMembers {
  readonly #entries: ReadonlyMap<string, RosterEntry>
  readonly #ids: readonly string[]
  readonly #digest = new RosterDigest()
  readonly #trackers: Trackers

  /** @param members with their keys, as each would describe itself */
  static async of(
    members: readonly { key: PrivateKey; record: Omit<MemberRecord, 'peer'> }[],
  ): Promise<SettledMembers> {
    const entries = new Map<string, RosterEntry>()
    for (const { key, record } of members) {
      const whole = { ...record, peer: peerIdFromPrivateKey(key).toString() }
      const signed = await signMemberRecord(whole, async (bytes) => await key.sign(bytes))
      entries.set(whole.peer, knownEntry(whole, signed))
    }
    return new SettledMembers(entries)
  }

  private constructor(entries: ReadonlyMap<string, RosterEntry>) {
    this.#entries = entries
    this.#ids = [...entries.keys()].sort()
    for (const entry of entries.values()) this.#digest.toggle(entry)
    this.#trackers = trackersOf(this.#ids)
  }

  /** The knowledge of one host. */
  get known(): { members: KnownMembers; trackers: Trackers } {
    const members = { entries: new SharedMap(this.#entries), ids: this.#ids, digest: this.#digest }
    return { members, trackers: this.#trackers }
  }
}
