import { digestHex, type Digest } from '../../../protocol/digest.ts'
import { trackersPerKey } from '../../../protocol/messages/location.ts'
import { memberHash, mix } from '../roster/member-hash.ts'
import type { Roster } from '../roster/roster.ts'

/** Parts of the key space: the first ten bits of a key. With 1,000 hosts each tracks about three of them. */
export const bucketCount = 1024
const bucketBits = 10

/** A member, and the two words of its id's hash. */
interface Weighed {
  id: string
  a: number
  b: number
}

interface Tracker {
  member: Weighed
  weight: number
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
 * Which members track which keys: for each bucket the three of highest weight (rendezvous hashing), so that a member that
 * comes or goes moves its own buckets only. A change costs some ten thousand multiplications, however many members there are.
 */
export class TrackerMap {
  readonly #roster: Pick<Roster, 'ids'>
  #ids: readonly string[] = []
  #members = new Map<string, Weighed>()
  readonly #trackers: Tracker[][] = Array.from({ length: bucketCount }, () => [])
  #added: NewTracker[] = []
  #gone: string[] = []

  constructor(roster: Pick<Roster, 'ids'>) {
    this.#roster = roster
    this.changes()
  }

  /** The trackers of the key, in the order in which they are asked; fewer in a region of fewer members. */
  trackersOf(key: Digest): string[] {
    return this.trackersOfBucket(bucketOf(key))
  }

  trackersOfBucket(bucket: number): string[] {
    this.#update()
    return this.#trackers[bucket]!.map(({ member }) => member.id)
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
    if (ids === this.#ids) return
    this.#ids = ids
    const present = new Set(ids)
    const gone = [...this.#members.keys()].filter((id) => !present.has(id))
    const come = ids.filter((id) => !this.#members.has(id)).map(weighed)
    for (const id of gone) this.#members.delete(id)
    for (const member of come) this.#members.set(member.id, member)
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      const before = this.#trackers[bucket]!
      const kept = before.filter(({ member }) => this.#members.has(member.id))
      // Where a tracker has gone, any member may be the next.
      const hasLost = kept.length < before.length
      const trackers = hasLost ? [] : kept
      for (const member of hasLost ? this.#members.values() : come) insert(trackers, member, bucket)
      this.#trackers[bucket] = trackers
      for (const { member } of trackers) {
        if (!before.some((old) => old.member.id === member.id)) this.#added.push({ bucket, tracker: member.id })
      }
    }
    this.#gone.push(...gone)
  }
}

/** Puts a member among the trackers, the heaviest first, if it is heavy enough. */
function insert(trackers: Tracker[], member: Weighed, bucket: number): void {
  const weight = weightOf(member, bucket)
  let at = trackers.length
  while (at > 0 && isBefore(member, weight, trackers[at - 1]!)) at--
  if (at === trackersPerKey) return
  trackers.splice(at, 0, { member, weight })
  if (trackers.length > trackersPerKey) trackers.pop()
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
