import { hash } from 'node:crypto'
import { memberHash, mix, ringCount, type MemberHash } from './roster/member-hash.ts'

/** A weight is exact in a double beside the number of its member: 2 ** 38 weights, and as many members. */
const maxMembers = 2 ** 15
const lowBits = 6

/**
 * Members in the order in which they are responsible for a key (rendezvous hashing, highest random weight). All hosts
 * that know the same members agree on the order, and each member has an equal share of all keys. When a member leaves,
 * each of its keys goes to the next in that key's order; no other key moves.
 */
export class Rendezvous {
  readonly #ids: readonly string[]
  /** The {@link ringCount} words of each member, side by side: 16 bytes a member. */
  readonly #places: Int32Array

  /**
   * @param ids each once; at most {@link maxMembers}
   * @param options `hashOf`: what is remembered of a member: 10,000 hashes take 10 ms
   */
  constructor(
    ids: readonly string[],
    { hashOf = memberHash }: { hashOf?: (id: string) => Pick<MemberHash, 'places'> } = {},
  ) {
    this.#ids = ids
    this.#places = new Int32Array(ids.length * ringCount)
    for (const [i, id] of ids.entries()) this.#places.set(hashOf(id).places, i * ringCount)
  }

  /** All members, in the order for the key. */
  order(key: string): string[] {
    return Array.from(this.#weigh(key).sort().toReversed(), (weight) => this.#ids[weight % maxMembers]!)
  }

  /**
   * The members that are first in the order for the key, `count` at most. Few of them take a small part of the time that
   * the whole order takes.
   * @param isWanted whether a member counts
   */
  first(key: string, count: number, isWanted: (id: string) => boolean = () => true): string[] {
    const heaviest: number[] = []
    for (const weight of this.#weigh(key)) {
      if (heaviest.length === count && weight < heaviest.at(-1)!) continue
      if (!isWanted(this.#ids[weight % maxMembers]!)) continue
      const place = heaviest.findIndex((other) => weight > other)
      heaviest.splice(place === -1 ? heaviest.length : place, 0, weight)
      if (heaviest.length > count) heaviest.pop()
    }
    return heaviest.map((weight) => this.#ids[weight % maxMembers]!)
  }

  #weigh(key: string): Float64Array {
    const digest = hash('sha256', key, 'buffer')
    const [first, second] = [digest.readUInt32BE(0), digest.readUInt32BE(4)]
    const places = this.#places
    const weighed = new Float64Array(this.#ids.length)
    for (let i = 0, offset = 0; i < weighed.length; i++, offset += ringCount) {
      const high = mix(first ^ places[offset]!, second ^ places[offset + 1]!)
      const low = mix(high ^ places[offset + 2]!, second ^ places[offset + 3]!) >>> (32 - lowBits)
      weighed[i] = (high * 2 ** lowBits + low) * maxMembers + i
    }
    return weighed
  }
}

/** The members in the order for one key. @param members ids, each once */
export function rendezvous(
  key: string,
  members: Iterable<string>,
  options?: ConstructorParameters<typeof Rendezvous>[1],
): string[] {
  return new Rendezvous([...members], options).order(key)
}
