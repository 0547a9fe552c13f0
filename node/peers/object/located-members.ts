import type { Digest } from '../../../protocol/digest.ts'
import type { Clock } from '../../base/clock.ts'
import type { Location } from '../location/location.ts'
import type { Membership } from '../membership.ts'
import type { Member } from '../peer.ts'

/** Members that the trackers of an object may name. */
const maxNamed = 8
/** Connected members that are asked too, whatever the trackers say: those that have answered before come first. */
const maxConnected = 4
/** How long members that were named may take until they are connected (ms). Those that are slower are not asked. */
const reachMs = 500

export interface LocatedMembersParts {
  membership: Pick<Membership, 'members' | 'reach'>
  location: Pick<Location, 'isSmall' | 'find'>
  clock: Clock
}

/** Chooses the members that are asked for an object: all of a small region; in a large one twelve at most. */
export class LocatedMembers {
  readonly #parts: LocatedMembersParts

  constructor(parts: LocatedMembersParts) {
    this.#parts = parts
  }

  /**
   * @param options `first`: id of a member that is asked in any case
   * @returns connected members; `isLocated`: whether they are all that there are, or a tracker has answered
   * @throws the signal's reason
   */
  async find(
    key: Digest,
    { signal, first }: { signal: AbortSignal; first: string | undefined },
  ): Promise<{ members: Member[]; isLocated: boolean }> {
    const { membership, location } = this.#parts
    if (location.isSmall) return { members: membership.members(), isLocated: true }
    const named = await location.find(key, { wanted: maxNamed, signal })
    const ids = new Set([...(first === undefined ? [] : [first]), ...named.members])
    const reached = await this.#reach(ids, signal)
    const known = new Set(reached.map(({ id }) => id))
    const rank = ({ standing }: Member): number => standing.current + (standing.hasAnswered ? 0 : 0.5)
    const connected = membership
      .members()
      .filter(({ id }) => !known.has(id))
      .toSorted((a, b) => rank(a) - rank(b))
    return { members: [...reached, ...connected.slice(0, maxConnected)], isLocated: named.isAnswered }
  }

  /** Resolves when all are connected, or cannot be, or a short time is over. */
  async #reach(ids: Iterable<string>, signal: AbortSignal): Promise<Member[]> {
    const { membership, clock } = this.#parts
    const late = new AbortController()
    const cancel = clock.after(reachMs, () => late.abort())
    const ended = AbortSignal.any([signal, late.signal])
    try {
      const reached = Array.from(ids, async (id) => {
        try {
          return await membership.reach(id, { signal: ended })
        } catch {
          return undefined
        }
      })
      const members = (await Promise.all(reached)).filter((member) => member !== undefined)
      signal.throwIfAborted()
      return members
    } finally {
      cancel()
    }
  }
}
