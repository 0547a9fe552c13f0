import { bucketHashBytes, rosterBuckets, type Sighting } from '../../../protocol/messages/roster.ts'
import { parseMemberRecord, type MemberRecord, type SignedMemberRecord } from '../../../protocol/member-record.ts'
import { BoundedMap } from '../../base/bounded-map.ts'
import { limits } from '../limits.ts'
import { memberHash, mix, ringCount, type MemberHash } from './member-hash.ts'

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

interface Entry {
  /** Its hello, until its signed record is here. */
  hello: RosterMember | undefined
  /** Its signature, and what it signed behind it: one array takes less memory than two. */
  signed: Uint8Array | undefined
  /** 0 before its record is here. */
  sequence: number
  hash: MemberHash
  /** Its teller, until it has been connected. */
  teller: string | undefined
  /** When the next update of it is in time (ms): it may come some earlier. */
  nextUpdateMs: number
  /** When it counts as dead, unless it refutes that. */
  deadAtMs: number | undefined
}

/** The members of the region that are alive, connected or not, this host included. */
export class Roster {
  /** Peer id of this host. */
  readonly own: string
  readonly #now: () => number
  readonly #entries = new Map<string, Entry>()
  /** Sequence numbers of those that are dead or have left: older records of them count for nothing. */
  readonly #dead = new BoundedMap<string, number>({ maxEntries: limits.roster.dead })
  /** How many members that nobody has proved each teller has told of. */
  readonly #told = new Map<string, number>()
  readonly #suspects = new Set<string>()
  readonly #listeners = new Set<() => void>()
  #ids: readonly string[] | undefined

  /** @param parts `now`: the clock (ms) */
  constructor(own: RosterMember, { now }: { now: () => number }) {
    this.own = own.id
    this.#now = now
    this.#entries.set(own.id, this.#entry(own.id, { hello: own }))
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
    entry.hello = member
    this.#clear(member.id, entry)
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
    Object.assign(entry, { signed: joined(signed), sequence, hello: undefined })
    entry.nextUpdateMs = Math.max(entry.nextUpdateMs, this.#now()) + limits.roster.updates.everyMs
    this.#clear(peer, entry)
  }

  /** Somebody cannot reach the member. @returns whether it is suspected from now on */
  suspect(id: string, sequence: number): boolean {
    const entry = this.#entries.get(id)
    if (id === this.own || entry === undefined || entry.deadAtMs !== undefined || sequence < entry.sequence)
      return false
    entry.deadAtMs = this.#now() + limits.roster.suspectMs
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

  /** A member has gone. This host stays. @param sequence of its last record; of the one that is here where it is not given */
  bury(id: string, sequence = this.#entries.get(id)?.sequence ?? 0): void {
    const entry = this.#entries.get(id)
    if (id === this.own || entry === undefined) return
    this.#prove(entry)
    this.#suspects.delete(id)
    this.#entries.delete(id)
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
    const words = new Uint32Array((rosterBuckets * bucketHashBytes) / 4)
    for (const { hash, sequence } of this.#entries.values()) {
      if (sequence === 0) continue
      const state = mix(sequence >>> 0, Math.floor(sequence / 2 ** 32))
      words[2 * hash.bucket]! ^= mix(hash.places[0]!, state)
      words[2 * hash.bucket + 1]! ^= mix(hash.places[1]!, state)
    }
    const bytes = Buffer.alloc(words.length * 4)
    for (const [i, word] of words.entries()) bytes.writeUInt32BE(word, i * 4)
    return Uint8Array.from(bytes)
  }

  /** The members of some buckets whose records are here. */
  listing(buckets: ReadonlySet<number>): Sighting[] {
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

  #entry(id: string, entry: Partial<Entry>): Entry {
    const none = { hello: undefined, signed: undefined, sequence: 0, teller: undefined, deadAtMs: undefined }
    return { ...none, nextUpdateMs: this.#now(), hash: memberHash(id), ...entry }
  }

  #add(id: string, entry: Entry): void {
    this.#dead.delete(id)
    this.#entries.set(id, entry)
    this.#changed()
  }

  /** The member has been connected, or has gone: it no longer counts for who told of it. */
  #prove(entry: Entry): void {
    if (entry.teller === undefined) return
    const left = this.#told.get(entry.teller)! - 1
    if (left > 0) this.#told.set(entry.teller, left)
    else this.#told.delete(entry.teller)
    entry.teller = undefined
  }

  #clear(id: string, entry: Entry): void {
    entry.deadAtMs = undefined
    this.#suspects.delete(id)
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
    this.#prove(this.#entries.get(newest)!)
    this.#suspects.delete(newest)
    this.#entries.delete(newest)
    this.#ids = undefined
    return true
  }

  #changed(): void {
    this.#ids = undefined
    for (const listener of this.#listeners) listener()
  }

  /** This host's own record is another one. */
  takeOwn(sequence: number, signed: SignedMemberRecord): void {
    Object.assign(this.#entries.get(this.own)!, { sequence, signed: joined(signed) })
  }
}
