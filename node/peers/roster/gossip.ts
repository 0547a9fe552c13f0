import { P2pfsError } from '../../../protocol/errors.ts'
import {
  type isMemberRecordSigned,
  parseMemberRecord,
  signMemberRecord,
  type SignedMemberRecord,
} from '../../../protocol/member-record.ts'
import { newsMessages } from '../../../protocol/messages/region.ts'
import {
  bucketHashBytes,
  maxListed,
  type News,
  type RosterMessage,
  type Sighting,
} from '../../../protocol/messages/roster.ts'
import { BoundedMap } from '../../base/bounded-map.ts'
import type { Log } from '../../base/log.ts'
import { TokenBucket } from '../../base/token-bucket.ts'
import { limits } from '../limits.ts'
import type { Roster } from './roster.ts'

/** News are gathered for so long before they are passed on (ms). */
const gatherMs = 100
/** This host refutes that it is dead no more often (ms): others take its updates twice as often. */
const refuteMs = 2_000
/** How often the time of suspects is looked at (ms). */
const suspectsPollMs = 500
/** How often the list is compared with that of a neighbour, if nothing else is a reason (ms). */
const compareMs = 60_000
/** A comparison that has not ended by then is given up when the next one is due (ms). */
const compareTimeoutMs = 5_000

/** A connected member, as far as gossip needs it. */
export interface GossipPeer {
  readonly id: string
  /** @returns false where it does not take more now */
  send: (message: RosterMessage) => boolean
}

/** How records are signed and checked. */
export interface RecordSigning {
  sign: (bytes: Uint8Array) => Promise<Uint8Array>
  isSigned: typeof isMemberRecordSigned
}

export interface GossipParts {
  roster: Roster
  signing: RecordSigning
  /** The connected member; undefined where it is not connected. */
  connected: (id: string) => GossipPeer | undefined
  /** The connected members that news are passed on to. */
  neighbours: () => GossipPeer[]
  /** This host's description of itself now. */
  describe: () => { region: string; name: string; addresses: string[] }
  log: Log
  /** Ends all that waits. */
  signal: AbortSignal
  now: () => number
  random?: () => number
}

/** The work that one teller may give this host. */
type Pace = Record<'records' | 'suspects' | 'questions', TokenBucket>

/**
 * Spreads the records of members over the connections of this host. A piece of news is passed on once, to all neighbours
 * but the one that it came from. Two hosts that connect compare their lists, and give each other what one lacks: what
 * was lost on the way, or while the region was apart.
 */
export class Gossip {
  readonly #parts: GossipParts
  /** Members with news, and who told them. */
  readonly #records = new Map<string, string>()
  /** Records of members that have left, until they have been passed on. */
  readonly #left = new Map<string, SignedMemberRecord>()
  readonly #suspects = new Map<string, { teller: string; sequence: number }>()
  readonly #paces = new BoundedMap<string, Pace>({
    maxEntries: limits.connections.inAll,
  })
  /** Members to compare the list with, and the one that it is compared with now. */
  readonly #toCompare = new Set<string>()
  #comparing: { peer: string; untilMs: number } | undefined
  readonly #timers = new Map<string, NodeJS.Timeout>()
  #sequence = 0
  #described = ''
  #refutedAtMs = -Infinity
  #hasLeft = false

  constructor(parts: GossipParts) {
    this.#parts = parts
    const stop = (): void => {
      for (const timer of this.#timers.values()) clearTimeout(timer)
    }
    parts.signal.addEventListener('abort', stop, { once: true })
    this.#takeOwn()
  }

  /**
   * A member has connected: it hears of this host, and the lists are compared.
   * @param doubt where it was suspected or dead here, the sequence number of that: it refutes it
   */
  async met(id: string, doubt: number | undefined): Promise<void> {
    if (this.#described !== JSON.stringify(this.#parts.describe())) await this.#describe()
    const { connected, roster } = this.#parts
    const signed = roster.signedRecord(roster.own)
    const suspects = doubt === undefined ? [] : [{ peer: id, sequence: doubt }]
    this.#send(connected(id), { records: signed === undefined ? [] : [signed], suspects })
    this.#toCompare.add(id)
    this.#compare()
  }

  /** The connection to a neighbour has broken. */
  lost(id: string): void {
    this.#suspect({ peer: id, sequence: this.#parts.roster.sequenceOf(id) ?? 0 }, id)
  }

  /** Tells the neighbours that this host leaves. */
  async leave(): Promise<void> {
    this.#hasLeft = true
    await this.#describe()
    this.#flush()
  }

  /** Takes in what a connected member says. @throws invalid where it breaks the protocol */
  update(id: string, message: RosterMessage): void {
    switch (message.type) {
      case 'news':
        for (const signed of message.records) this.#takeRecord(signed, id)
        for (const sighting of message.suspects) this.#takeSuspect(sighting, id)
        break
      case 'digest':
        if (this.#paceOf(id).questions.tryTake()) this.#answer(id, message.buckets)
        break
      case 'listing':
        this.#takeListing(id, message)
        break
      case 'wants': {
        if (!this.#paceOf(id).questions.tryTake()) break
        const records = message.members
          .slice(0, limits.roster.inAll)
          .map((peer) => this.#parts.roster.signedRecord(peer))
        this.#send(this.#parts.connected(id), { records: records.filter((some) => some !== undefined), suspects: [] })
        break
      }
    }
  }

  /** Compares the list with that of a neighbour now and then, from now on. */
  start(): void {
    const { neighbours, random = Math.random } = this.#parts
    this.#later('compare', compareMs * (0.5 + random()), () => {
      const peers = neighbours()
      const peer = peers[Math.floor(random() * peers.length)]
      if (peer !== undefined) this.#toCompare.add(peer.id)
      this.#compare()
      this.start()
    })
  }

  /** A record of this host that its roster has from the begin stands as long as it describes this host. */
  #takeOwn(): void {
    const { roster } = this.#parts
    const signed = roster.signedRecord(roster.own)
    if (signed === undefined) return
    const { region, name, addresses, sequence } = parseMemberRecord(signed.claim)
    this.#described = JSON.stringify({ region, name, addresses })
    this.#sequence = sequence
  }

  #takeRecord(signed: SignedMemberRecord, teller: string): void {
    const { roster, signing, describe } = this.#parts
    const record = parseMemberRecord(signed.claim)
    if (record.region !== describe().region) return
    if (record.peer === roster.own) {
      if (record.sequence > this.#sequence) this.#refute(record.sequence)
      return
    }
    if (!roster.isNews(record, teller) || !this.#paceOf(teller).records.tryTake()) return
    if (!signing.isSigned(record, signed))
      throw new P2pfsError('invalid', 'peer tells a record that its member has not signed', { peer: teller })
    roster.take(record, signed, teller)
    this.#suspects.delete(record.peer)
    if (record.hasLeft) this.#left.set(record.peer, signed)
    this.#pass(record.peer, teller)
  }

  #takeSuspect(sighting: Sighting, teller: string): void {
    const { roster, connected } = this.#parts
    if (!this.#paceOf(teller).suspects.tryTake()) return
    if (sighting.peer === roster.own) {
      if (sighting.sequence >= this.#sequence) this.#refute(sighting.sequence)
      return
    }
    const signed = roster.signedRecord(sighting.peer)
    if (signed === undefined) return
    const known = roster.sequenceOf(sighting.peer) ?? 0
    if (known > sighting.sequence) return this.#send(connected(teller), { records: [signed], suspects: [] })
    // It is here: it says so itself.
    const accused = connected(sighting.peer)
    if (accused !== undefined) this.#send(accused, { records: [], suspects: [sighting] })
    else this.#suspect({ peer: sighting.peer, sequence: known }, teller)
  }

  #suspect({ peer, sequence }: Sighting, teller: string): void {
    if (!this.#parts.roster.suspect(peer, sequence)) return
    this.#suspects.set(peer, { teller, sequence })
    this.#later('flush', gatherMs, () => this.#flush())
    this.#watchSuspects()
  }

  #watchSuspects(): void {
    this.#later('suspects', suspectsPollMs, () => {
      if (this.#parts.roster.buryOverdue()) this.#watchSuspects()
    })
  }

  /** This host is alive, and its record is at least as new as what is said of it. */
  #refute(sequence: number): void {
    this.#sequence = Math.max(this.#sequence, sequence)
    const waitMs = this.#refutedAtMs + refuteMs - this.#parts.now()
    this.#later('refute', Math.max(0, waitMs), () => {
      this.#refutedAtMs = this.#parts.now()
      this.#describe().catch((error: unknown) => this.#parts.log.warn('own record cannot be signed', { error }))
    })
  }

  async #describe(): Promise<void> {
    const { roster, signing, describe } = this.#parts
    const described = describe()
    this.#described = JSON.stringify(described)
    const sequence = Math.max(Date.now(), this.#sequence + 1)
    this.#sequence = sequence
    const record = { ...described, peer: roster.own, sequence, hasLeft: this.#hasLeft }
    const signed = await signMemberRecord(record, signing.sign)
    if (this.#sequence !== sequence) return
    roster.takeOwn(sequence, signed)
    this.#pass(roster.own, roster.own)
  }

  #pass(peer: string, teller: string): void {
    this.#records.set(peer, teller)
    this.#later('flush', gatherMs, () => this.#flush())
  }

  #flush(): void {
    const { roster, neighbours } = this.#parts
    const records = [...this.#records].map(([peer, teller]) => {
      return { peer, teller, signed: roster.signedRecord(peer) ?? this.#left.get(peer) }
    })
    for (const { id, send } of neighbours()) {
      const messages = newsMessages({
        records: records.flatMap(({ peer, teller, signed }) =>
          signed === undefined || id === teller || id === peer ? [] : [signed],
        ),
        suspects: [...this.#suspects].flatMap(([peer, { teller, sequence }]) =>
          id === teller ? [] : [{ peer, sequence }],
        ),
      })
      // A neighbour that does not take it now learns it from the next comparison.
      messages.every((message) => send(message))
    }
    this.#records.clear()
    this.#suspects.clear()
    this.#left.clear()
  }

  #send(peer: GossipPeer | undefined, news: Omit<News, 'type'>): void {
    if (peer !== undefined) newsMessages(news).every((message) => peer.send(message))
  }

  /** Compares the list with one member at a time: one that has just joined gets it from one member, not from all. */
  #compare(): void {
    const { roster, connected, now } = this.#parts
    if (this.#comparing !== undefined && connected(this.#comparing.peer) && this.#comparing.untilMs > now()) return
    this.#comparing = undefined
    for (const id of this.#toCompare) {
      this.#toCompare.delete(id)
      const peer = connected(id)
      if (peer?.send({ type: 'digest', buckets: roster.digest() }) !== true) continue
      this.#comparing = { peer: id, untilMs: now() + compareTimeoutMs }
      return this.#later('comparing', compareTimeoutMs, () => this.#compare())
    }
  }

  #answer(id: string, digest: Uint8Array): void {
    const { roster, connected } = this.#parts
    const buckets = otherBuckets(roster.digest(), digest)
    const listed = roster.listing(new Set(buckets))
    const peer = connected(id)
    for (let i = 0; i < buckets.length || i === 0;) {
      // As many buckets as fit; one is sent whole, or as much of it as a listing may have.
      const some: number[] = []
      let members: Sighting[] = []
      for (; i < buckets.length; i++) {
        const more = listed.filter(({ peer: member }) => roster.hashOf(member).bucket === buckets[i])
        if (some.length > 0 && members.length + more.length > maxListed) break
        some.push(buckets[i]!)
        members = [...members, ...more].slice(0, maxListed)
      }
      if (peer?.send({ type: 'listing', buckets: Uint8Array.from(some), members }) !== true || some.length === 0) break
    }
  }

  #takeListing(id: string, { buckets, members }: { buckets: Uint8Array; members: Sighting[] }): void {
    if (this.#comparing?.peer !== id) return
    const { roster, connected } = this.#parts
    const theirs = new Map(members.slice(0, maxListed).map(({ peer, sequence }) => [peer, sequence]))
    const wants: string[] = []
    const suspects: Sighting[] = []
    for (const [peer, sequence] of theirs) {
      const known = roster.sequenceOf(peer) ?? -1
      if (known < sequence) wants.push(peer)
      // It is dead here: if it lives, it says so with a higher sequence number.
      else if (!roster.has(peer)) suspects.push({ peer, sequence })
    }
    const news = roster.listing(new Set(buckets)).filter(({ peer, sequence }) => (theirs.get(peer) ?? -1) < sequence)
    const peer = connected(id)
    this.#send(peer, { records: news.flatMap(({ peer: member }) => roster.signedRecord(member) ?? []), suspects })
    if (wants.length > 0) peer?.send({ type: 'wants', members: wants })
    this.#comparing = undefined
    this.#compare()
  }

  #paceOf(teller: string): Pace {
    const { now } = this.#parts
    const pace = this.#paces.get(teller) ?? {
      records: new TokenBucket({ ...limits.roster.records, now }),
      suspects: new TokenBucket({ ...limits.roster.suspects, now }),
      questions: new TokenBucket({ ...limits.roster.questions, now }),
    }
    this.#paces.set(teller, pace)
    return pace
  }

  /** Calls once after so many milliseconds; a call of the same name that waits already stays. */
  #later(name: string, ms: number, call: () => void): void {
    if (this.#timers.has(name) || this.#parts.signal.aborted) return
    const timer = setTimeout(() => {
      this.#timers.delete(name)
      call()
    }, ms)
    timer.unref()
    this.#timers.set(name, timer)
  }
}

/** The buckets in which two lists differ. Two that have been compared before seldom do. */
function otherBuckets(own: Uint8Array, other: Uint8Array): number[] {
  if (Buffer.compare(own, other) === 0) return []
  const buckets: number[] = []
  for (let offset = 0; offset < own.length; offset += bucketHashBytes) {
    const end = offset + bucketHashBytes
    if (Buffer.compare(own.subarray(offset, end), other.subarray(offset, end)) !== 0)
      buckets.push(offset / bucketHashBytes)
  }
  return buckets
}
