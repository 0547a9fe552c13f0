import { hash } from 'node:crypto'
import type { Digest } from '../../../protocol/digest.ts'
import { holds, type Holds } from '../../../protocol/messages/location.ts'
import { BoundedMap } from '../../base/bounded-map.ts'
import { limits } from '../limits.ts'
import { mix } from '../roster/member-hash.ts'

/** A member is named for a key no more often than this, unless there is nobody else: so many connect to it at once. */
export const namings = { count: 48, windowMs: 10_000 } as const

/** A member that has said so long ago that it fetches a segment has what a boot reads of it (ms). */
const settledMs = 3_000
/** Members that are named to one who needs a part of a segment. */
const maxHolders = 3

/** The statement of a member about itself and one key. */
interface Registration {
  holds: Holds
  sinceMs: number
  untilMs: number
  /** How often it was named since `namedSinceMs`. */
  named: number
  namedSinceMs: number
}

interface TrackedKey {
  key: Digest
  members: Map<string, Registration>
}

/** The registrations that this host keeps as a tracker: which members hold or track a key, as they say themselves. */
export class TrackedKeys {
  readonly #now: () => number
  readonly #limits: { [Name in keyof typeof limits.location]: number }
  readonly #keys = new Map<Digest, TrackedKey>()
  /** The keys of each member, the oldest first. */
  readonly #ofMember = new Map<string, Set<Digest>>()
  /** A word of each id, by which askers rank members; it costs a hash to make. */
  readonly #words = new BoundedMap<string, number>({ maxEntries: 16_384 })
  readonly #random: () => number
  #size = 0

  /** @param parts `now`: the clock (ms); `random`: from 0 to less than 1; `bounds`: in place of {@link limits} */
  constructor({
    now,
    random = Math.random,
    bounds = {},
  }: {
    now: () => number
    random?: () => number
    bounds?: Partial<Record<keyof typeof limits.location, number>>
  }) {
    this.#now = now
    this.#random = random
    this.#limits = { ...limits.location, ...bounds }
  }

  /** Registrations that are kept. */
  get size(): number {
    return this.#size
  }

  /**
   * A member says what it holds of the key. Beyond the bound of a key one of its members makes room, which one is
   * chance; beyond that of a member, its oldest key; beyond that of all, the oldest key of the member that has most.
   */
  say(member: string, key: Digest, said: Holds): void {
    if (said === holds.unsaid) return
    if (said === holds.nothing) return this.#delete(member, key)
    const tracked = this.#keys.get(key) ?? { key, members: new Map<string, Registration>() }
    const now = this.#now()
    const untilMs = now + this.#limits.registrationMs
    const known = tracked.members.get(member)
    if (known !== undefined) {
      known.holds = said
      known.untilMs = untilMs
      return
    }
    if (tracked.members.size >= this.#limits.membersPerKey) this.#delete(this.#victim(tracked), key)
    this.#keys.set(key, tracked)
    tracked.members.set(member, { holds: said, sinceMs: now, untilMs, named: 0, namedSinceMs: -Infinity })
    const keys = this.#ofMember.get(member) ?? new Set()
    this.#ofMember.set(member, keys.add(tracked.key))
    this.#size++
    if (keys.size > this.#limits.keysPerMember) this.#deleteOldest(member)
    if (this.#size > this.#limits.registrations) this.#deleteOldest(this.#largest())
  }

  /** The member has left the region. */
  forget(member: string): void {
    for (const key of this.#ofMember.get(member) ?? []) this.#delete(member, key)
  }

  /**
   * Members that hold or track the key: up to half of them hold much, the others are taken as they come. Each asker has
   * orders of its own, the same for all keys and trackers, so that one that asks for many keys is sent to few members.
   */
  members(key: Digest, { asker, wanted, order }: { asker: string; wanted: number; order: number }): string[] {
    const tracked = this.#keys.get(key)
    if (tracked === undefined) return []
    const now = this.#now()
    for (const [member, { untilMs }] of tracked.members) if (untilMs <= now) this.#delete(member, key)
    const seed = mix(this.#wordOf(asker), order)
    const ranked = [...tracked.members]
      .filter(([member]) => member !== asker)
      .map(([member, registration]) => ({ member, registration, rank: mix(seed, this.#wordOf(member)) }))
      .toSorted((a, b) => b.rank - a.rank)
    const fresh = ranked.filter(({ registration }) => !isNamedOften(registration, now))
    const much = fresh.filter(({ registration }) => registration.holds === holds.much).slice(0, Math.ceil(wanted / 2))
    const others = fresh.filter((candidate) => !much.includes(candidate))
    const rest = ranked.filter(({ registration }) => isNamedOften(registration, now))
    const chosen = [...much, ...others].slice(0, wanted)
    // If all have been named often, some are named all the same.
    if (chosen.length === 0) chosen.push(...rest.slice(0, Math.ceil(wanted / 4)))
    for (const { registration } of chosen) countNaming(registration, now)
    return chosen.map(({ member }) => member)
  }

  /**
   * Members that are likely to have what others need of the key: those that hold much, then those that have fetched it for
   * some time. At most three; another order brings others.
   */
  holders(key: Digest, { asker, order }: { asker: string; order: number }): string[] {
    const tracked = this.#keys.get(key)
    if (tracked === undefined) return []
    const now = this.#now()
    const rankOf = new Map([...tracked.members.keys()].map((id) => [id, mix(order, this.#wordOf(id))]))
    return [...tracked.members]
      .filter(([id, { sinceMs, untilMs }]) => id !== asker && untilMs > now && sinceMs + settledMs <= now)
      .toSorted(([a, { holds: x }], [b, { holds: y }]) =>
        x === y ? rankOf.get(b)! - rankOf.get(a)! : Number(y === holds.much) - Number(x === holds.much),
      )
      .slice(0, maxHolders)
      .map(([id]) => id)
  }

  /** One of the key's members, those first that hold little. */
  #victim({ members }: TrackedKey): string {
    const all = [...members]
    const little = all.filter(([, registration]) => registration.holds !== holds.much)
    const candidates = little.length > 0 ? little : all
    return candidates[Math.floor(this.#random() * candidates.length)]![0]
  }

  #wordOf(id: string): number {
    const known = this.#words.get(id)
    if (known !== undefined) return known
    const word = hash('sha256', id, 'buffer').readUInt32LE(8)
    this.#words.set(id, word)
    return word
  }

  #largest(): string {
    let largest: { member: string; size: number } | undefined
    for (const [member, { size }] of this.#ofMember) if (size > (largest?.size ?? 0)) largest = { member, size }
    return largest!.member
  }

  #deleteOldest(member: string): void {
    const [oldest] = this.#ofMember.get(member)!
    this.#delete(member, oldest!)
  }

  #delete(member: string, key: Digest): void {
    const tracked = this.#keys.get(key)
    if (tracked === undefined) return
    if (tracked.members.delete(member)) {
      this.#size--
      const keys = this.#ofMember.get(member)!
      keys.delete(key)
      if (keys.size === 0) this.#ofMember.delete(member)
    }
    if (tracked.members.size === 0) this.#keys.delete(key)
  }
}

function isNamedOften({ named, namedSinceMs }: Registration, now: number): boolean {
  return named >= namings.count && now - namedSinceMs < namings.windowMs
}

function countNaming(registration: Registration, now: number): void {
  if (now - registration.namedSinceMs >= namings.windowMs) {
    registration.named = 0
    registration.namedSinceMs = now
  }
  registration.named++
}
