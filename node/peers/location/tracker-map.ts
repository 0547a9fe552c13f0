import { digestHex, type Digest } from '../../../protocol/digest.ts'
import { trackersPerKey } from '../../../protocol/messages/location.ts'
import { memberHash, mix } from '../roster/member-hash.ts'
import type { Roster } from '../roster/roster.ts'

/** Parts of the key space: the first ten bits of a key. With 1,000 hosts each tracks about three of them. */
export const bucketCount = 1024
const bucketBits = 10

/** A member, and the two words of its id's hash. */
interface Weighed {
  readonly id: string
  readonly a: number
  readonly b: number
}

interface Tracker {
  readonly member: Weighed
  readonly weight: number
}

/** The trackers of all buckets, of some members. They never change: others take their place. */
export interface Trackers {
  readonly ids: readonly string[]
  readonly members: ReadonlyMap<string, Weighed>
  readonly ofBuckets: readonly (readonly Tracker[])[]
}

const noTrackers: Trackers = {
  ids: [],
  members: new Map(),
  ofBuckets: Array.from({ length: bucketCount }, () => []),
}

/** A bucket has another tracker now. */
export interface NewTracker {
  bucket: number
  tracker: string
}

/** The bucket of a key. */
export function bucketOf(key: Digest): number {
  return Number.parseInt(digestHex(key).slice(0, 8), 16) >>> (32 - bucketBits)
}

/**
 * Which members track which keys: for each bucket the three of highest weight (rendezvous hashing), so that a member
 * that comes or goes moves its own buckets only. A change costs some ten thousand multiplications, however many members
 * there are.
 */
export class TrackerMap {
  readonly #roster: Pick<Roster, 'ids'>
  #trackers: Trackers
  #added: NewTracker[] = []
  #gone: string[] = []

  /** @param known trackers of members that the roster has had so far */
  constructor(roster: Pick<Roster, 'ids'>, known: Trackers = noTrackers) {
    this.#roster = roster
    this.#trackers = known
    this.changes()
  }

  /** How many members there are. */
  get members(): number {
    return this.#roster.ids().length
  }

  /** The trackers of the key, in the order in which they are asked; fewer in a region of fewer members. */
  trackersOf(key: Digest): string[] {
    return this.trackersOfBucket(bucketOf(key))
  }

  trackersOfBucket(bucket: number): string[] {
    this.#update()
    return this.#trackers.ofBuckets[bucket]!.map(({ member }) => member.id)
  }

  /** The buckets that have another tracker, and the members that have gone, since the last call. */
  changes(): { added: NewTracker[]; gone: string[] } {
    this.#update()
    const changes = { added: this.#added, gone: this.#gone }
    this.#added = []
    this.#gone = []
    return changes
  }

  /** Takes in what has changed in the roster. */
  #update(): void {
    const ids = this.#roster.ids()
    if (ids === this.#trackers.ids) return
    const before = this.#trackers
    this.#trackers = trackersOf(ids, before)
    for (const [bucket, trackers] of this.#trackers.ofBuckets.entries()) {
      const old = before.ofBuckets[bucket]!
      if (trackers === old) continue
      for (const { member } of trackers) {
        if (!old.some(({ member: { id } }) => id === member.id)) this.#added.push({ bucket, tracker: member.id })
      }
    }
    for (const id of before.members.keys()) if (!this.#trackers.members.has(id)) this.#gone.push(id)
  }
}

/** The trackers of these members. @param before those of other members: what has not changed is taken from them */
export function trackersOf(ids: readonly string[], before: Trackers = noTrackers): Trackers {
  const members = new Map(ids.map((id) => [id, before.members.get(id) ?? weighed(id)]))
  const come = [...members.values()].filter(({ id }) => !before.members.has(id))
  const ofBuckets = before.ofBuckets.map((old, bucket) => {
    // If a tracker has gone, any member may be the next.
    const hasLost = old.some(({ member }) => !members.has(member.id))
    const trackers = hasLost ? [] : [...old]
    let hasChanged = hasLost
    for (const member of hasLost ? members.values() : come) if (insert(trackers, member, bucket)) hasChanged = true
    return hasChanged ? trackers : old
  })
  return { ids, members, ofBuckets }
}

/** Puts a member among the trackers, the heaviest first, if it is heavy enough. @returns whether it is */
function insert(trackers: Tracker[], member: Weighed, bucket: number): boolean {
  const weight = weightOf(member, bucket)
  let place = trackers.length
  while (place > 0 && isBefore(member, weight, trackers[place - 1]!)) place--
  if (place === trackersPerKey) return false
  trackers.splice(place, 0, { member, weight })
  if (trackers.length > trackersPerKey) trackers.pop()
  return true
}

function isBefore({ id }: Weighed, weight: number, other: Tracker): boolean {
  return weight === other.weight ? id < other.member.id : weight > other.weight
}

function weighed(id: string): Weighed {
  const [a = 0, b = 0] = memberHash(id).places
  return { id, a, b }
}

/** SPEC.md, "Location protocol". */
function weightOf({ a, b }: Weighed, bucket: number): number {
  return mix(a, mix(b, bucket))
}
