import type { Sighting } from '../../../protocol/messages/roster.ts'
import { parseMemberRecord, type MemberRecord, type SignedMemberRecord } from '../../../protocol/member-record.ts'
import { BoundedMap } from '../../base/bounded-map.ts'
import { limits } from '../limits.ts'
import { memberHash, ringCount, type MemberHash } from './member-hash.ts'
import { RosterDigest } from './roster-digest.ts'

/** A host of the region, as it describes itself. */
export interface RosterMember {
  /** Peer id. */
  readonly id: string
  readonly name: string
  /** Multiaddrs at which it can be dialled. */
  readonly addresses: readonly string[]
}

/** The bucket of a member is a number of so many bits. */
const bucketBits = 8
/** Length of an Ed25519 signature. */
const signatureBytes = 64

const joined = ({ signature, claim }: SignedMemberRecord): Uint8Array => {
  const bytes = new Uint8Array(signatureBytes + claim.length)
  bytes.set(signature)
  bytes.set(claim, signatureBytes)
  return bytes
}

/** A member as the list has it. It never changes: another entry takes its place. */
export interface RosterEntry {
  /** Its hello, until its signed record is here. */
  readonly hello: RosterMember | undefined
  /** Its signature, and what it signed behind it: one array takes less memory than two. */
  readonly signed: Uint8Array | undefined
  /** 0 before its record is here. */
  readonly sequence: number
  readonly hash: MemberHash
  /** Its teller, until it has been connected. */
  readonly teller: string | undefined
  /** The time at which its next update is due (ms of the clock): it may come a little earlier. */
  readonly nextUpdateMs: number
  /** The time at which it counts as dead, unless it refutes that. */
  readonly deadAtMs: number | undefined
}

/** Members that a roster knows from the begin, itself among them. */
export interface KnownMembers {
  /** By id; the roster changes it. */
  entries: Map<string, RosterEntry>
  /** The ids of the entries, sorted. */
  ids: readonly string[]
  /** The digest of the entries; it is not changed. */
  digest: RosterDigest
}

/** The entry of a member that all have been connected to. */
export function knownEntry({ peer, sequence }: MemberRecord, signed: SignedMemberRecord): RosterEntry {
  const hash = memberHash(peer)
  return { ...noEntry, nextUpdateMs: 0, hash, signed: joined(signed), sequence }
}

const noEntry = { hello: undefined, signed: undefined, sequence: 0, teller: undefined, deadAtMs: undefined }

/** The members of the region that are alive, connected or not, this host included. */
export class Roster {
  /** Peer id of this host. */
  readonly own: string
  readonly #now: () => number
  readonly #entries: Map<string, RosterEntry>
  readonly #digest: RosterDigest
  /** Sequence numbers of those that are dead or have left: older records of them count for nothing. */
  readonly #dead = new BoundedMap<string, number>({ maxEntries: limits.roster.dead })
  /** How many members that nobody has proved each teller has told of. */
  readonly #told = new Map<string, number>()
  readonly #suspects = new Set<string>()
  readonly #listeners = new Set<() => void>()
  #ids: readonly string[] | undefined

  /** @param parts `now`: the clock (ms); `known`: this host alone where it is not given */
  constructor(own: RosterMember, { now, known }: { now: () => number; known?: KnownMembers | undefined }) {
    this.own = own.id
    this.#now = now
    this.#entries = known?.entries ?? new Map<string, RosterEntry>()
    this.#ids = known?.ids
    this.#digest = known?.digest.copy() ?? new RosterDigest()
    if (known === undefined) this.#put(own.id, this.#entry(own.id, { hello: own }))
  }

  /** Ids of the members, this host included: the same array until it changes. */
  ids(): readonly string[] {
    this.#ids ??= [...this.#entries.keys()].sort()
    return this.#ids
  }

  /** How many members there are, this host included. */
  get size(): number {
    return this.#entries.size
  }

  has(id: string): boolean {
    return this.#entries.has(id)
  }

  get(id: string): RosterMember | undefined {
    const entry = this.#entries.get(id)
    if (entry?.signed === undefined) return entry?.hello
    const { name, addresses } = parseMemberRecord(entry.signed.subarray(signatureBytes))
    return { id, name, addresses }
  }

  /** Calls the listener after a member has come or gone. @returns ends the calls */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** A member has said hello: it is there, whatever has been said of it. */
  met(member: RosterMember): void {
    this.#dead.delete(member.id)
    const entry = this.#entries.get(member.id)
    if (entry === undefined) {
      if (this.#makeRoom()) this.#add(member.id, this.#entry(member.id, { hello: member }))
      return
    }
    this.#prove(entry)
    const hello = entry.signed === undefined ? member : undefined
    if (entry.teller !== undefined || entry.deadAtMs !== undefined || entry.hello !== hello)
      this.#put(member.id, { ...entry, teller: undefined, hello, deadAtMs: undefined })
    this.#suspects.delete(member.id)
  }

  /** Whether a record is newer than what is known, and in time. Its signature is for the caller to check. */
  isNews({ peer, sequence, hasLeft }: MemberRecord, teller: string): boolean {
    const entry = this.#entries.get(peer)
    if (entry === undefined) return !hasLeft && sequence > (this.#dead.get(peer) ?? -1) && this.#hasRoomFor(teller)
    if (sequence <= entry.sequence) return false
    const { everyMs, burst } = limits.roster.updates
    return entry.nextUpdateMs - this.#now() <= burst * everyMs
  }

  /** Takes a record that is news. */
  take({ peer, sequence, hasLeft }: MemberRecord, signed: SignedMemberRecord, teller: string): void {
    if (hasLeft) return this.bury(peer, sequence)
    const entry = this.#entries.get(peer)
    if (entry === undefined) {
      if (!this.#makeRoom()) return
      if (teller !== peer) this.#told.set(teller, (this.#told.get(teller) ?? 0) + 1)
      return this.#add(
        peer,
        this.#entry(peer, { signed: joined(signed), sequence, teller: teller === peer ? undefined : teller }),
      )
    }
    const nextUpdateMs = Math.max(entry.nextUpdateMs, this.#now()) + limits.roster.updates.everyMs
    this.#put(peer, { ...entry, signed: joined(signed), sequence, hello: undefined, nextUpdateMs, deadAtMs: undefined })
    this.#suspects.delete(peer)
  }

  /** Somebody cannot reach the member. @returns whether it is suspected from now on */
  suspect(id: string, sequence: number): boolean {
    const entry = this.#entries.get(id)
    if (id === this.own || entry === undefined || entry.deadAtMs !== undefined || sequence < entry.sequence)
      return false
    this.#put(id, { ...entry, deadAtMs: this.#now() + limits.roster.suspectMs })
    this.#suspects.add(id)
    return true
  }

  /** The sequence number at which the member is suspected, or dead, here; undefined where it is neither. */
  doubtOf(id: string): number | undefined {
    return this.#suspects.has(id) ? this.#entries.get(id)!.sequence : this.#dead.get(id)
  }

  /** Removes the suspects whose time is over. @returns whether suspects are left */
  buryOverdue(): boolean {
    for (const id of this.#suspects) if (this.#entries.get(id)!.deadAtMs! <= this.#now()) this.bury(id)
    return this.#suspects.size > 0
  }

  /**
   * A member has gone. This host stays. @param sequence of its last record; of the one that is here where it is not
   * given
   */
  bury(id: string, sequence = this.#entries.get(id)?.sequence ?? 0): void {
    const entry = this.#entries.get(id)
    if (id === this.own || entry === undefined) return
    this.#prove(entry)
    this.#remove(id, entry)
    this.#dead.set(id, sequence)
    this.#changed()
  }

  /** The sequence number of the member's record; of a dead one the last. */
  sequenceOf(id: string): number | undefined {
    return this.#entries.get(id)?.sequence ?? this.#dead.get(id)
  }

  signedRecord(id: string): SignedMemberRecord | undefined {
    const signed = this.#entries.get(id)?.signed
    return signed && { signature: signed.subarray(0, signatureBytes), claim: signed.subarray(signatureBytes) }
  }

  /** The teller of a member that has not been connected yet. */
  tellerOf(id: string): string | undefined {
    return this.#entries.get(id)?.teller
  }

  /** A hash of each bucket: two lists with the same digest are the same. */
  digest(): Uint8Array {
    return this.#digest.bytes()
  }

  /** The members of some buckets whose records are here. */
  listing(buckets: ReadonlySet<number>): Sighting[] {
    if (buckets.size === 0) return []
    return [...this.#entries]
      .filter(([, { hash, sequence }]) => sequence > 0 && buckets.has(hash.bucket))
      .map(([peer, { sequence }]) => ({ peer, sequence }))
  }

  /** The figures that are computed of the id; remembered for members. */
  hashOf(id: string): MemberHash {
    return this.#entries.get(id)?.hash ?? memberHash(id)
  }

  /** Ids of the members that stand next to this host on each ring. */
  neighbours(): Set<string> {
    const own = this.#entries.get(this.own)!.hash.places
    const nearest = Array.from({ length: 2 * ringCount }, () => ({ id: '', distance: Infinity }))
    for (const [id, { hash }] of this.#entries) {
      if (id === this.own) continue
      for (let ring = 0; ring < ringCount; ring++) {
        const ahead = (hash.places[ring]! - own[ring]!) >>> 0
        const places = [nearest[2 * ring]!, nearest[2 * ring + 1]!]
        if (ahead < places[0]!.distance) Object.assign(places[0]!, { id, distance: ahead })
        if (-ahead >>> 0 < places[1]!.distance) Object.assign(places[1]!, { id, distance: -ahead >>> 0 })
      }
    }
    return new Set(nearest.map(({ id }) => id).filter((id) => id !== ''))
  }

  /** Ids of the members whose hashes begin with the same bits as that of this host, at most 8; this host is one of them. */
  alike(bits: number): string[] {
    const bucketOf = (id: string): number => this.#entries.get(id)!.hash.bucket >>> (bucketBits - bits)
    const own = bucketOf(this.own)
    return this.ids().filter((id) => bucketOf(id) === own)
  }

  #entry(id: string, entry: Partial<RosterEntry>): RosterEntry {
    return { ...noEntry, nextUpdateMs: this.#now(), hash: memberHash(id), ...entry }
  }

  #add(id: string, entry: RosterEntry): void {
    this.#dead.delete(id)
    this.#put(id, entry)
    this.#changed()
  }

  #put(id: string, entry: RosterEntry): void {
    const before = this.#entries.get(id)
    if (before !== undefined) this.#digest.toggle(before)
    this.#digest.toggle(entry)
    this.#entries.set(id, entry)
  }

  #remove(id: string, entry: RosterEntry): void {
    this.#digest.toggle(entry)
    this.#entries.delete(id)
    this.#suspects.delete(id)
  }

  /** The member has been connected, or has gone: it no longer counts for who told of it. */
  #prove({ teller }: RosterEntry): void {
    if (teller === undefined) return
    const left = this.#told.get(teller)! - 1
    if (left > 0) this.#told.set(teller, left)
    else this.#told.delete(teller)
  }

  #hasRoomFor(teller: string): boolean {
    return (this.#told.get(teller) ?? 0) < limits.roster.perTeller
  }

  /** Forgets the newest unproved member of who has told of most, if the list is full. @returns whether there is room */
  #makeRoom(): boolean {
    if (this.#entries.size < limits.roster.inAll) return true
    const [most] = [...this.#told].reduce((a, b) => (b[1] > a[1] ? b : a), ['', 0] as [string, number])
    let newest: string | undefined
    for (const [id, { teller }] of this.#entries) if (teller === most) newest = id
    if (newest === undefined) return false
    const entry = this.#entries.get(newest)!
    this.#prove(entry)
    this.#remove(newest, entry)
    this.#ids = undefined
    return true
  }

  #changed(): void {
    this.#ids = undefined
    for (const listener of this.#listeners) listener()
  }

  /** This host's own record is another one. */
  takeOwn(sequence: number, signed: SignedMemberRecord): void {
    this.#put(this.own, { ...this.#entries.get(this.own)!, sequence, signed: joined(signed), hello: undefined })
  }
}
