import { hash } from 'node:crypto'
import { memberHash, mix, type MemberHash } from './roster/member-hash.ts'

/** A weight is exact in a double beside the number of its member: 2 ** 38 weights, and as many members. */
const maxMembers = 2 ** 15
const lowBits = 6

/**
 * Members in the order in which they are responsible for the key (rendezvous hashing, highest random weight). All hosts
 * that know the same members agree on the order, and each member has an equal share of all keys. When a member leaves,
 * each of its keys goes to the next in that key's order; no other key moves.
 * @param members ids, each once; at most {@link maxMembers}
 * @param options `hashOf`: what is remembered of a member: 10,000 hashes take 10 ms
 */
export function rendezvous(
  key: string,
  members: Iterable<string>,
  { hashOf = memberHash }: { hashOf?: (id: string) => Pick<MemberHash, 'places'> } = {},
): string[] {
  const ids = [...members]
  const digest = hash('sha256', key, 'buffer')
  const [first, second] = [digest.readUInt32BE(0), digest.readUInt32BE(4)]
  const weighed = new Float64Array(ids.length)
  for (let i = 0; i < ids.length; i++) {
    const { places } = hashOf(ids[i]!)
    const high = mix(first ^ places[0]!, second ^ places[1]!)
    const low = mix(high ^ places[2]!, second ^ places[3]!) >>> (32 - lowBits)
    weighed[i] = (high * 2 ** lowBits + low) * maxMembers + i
  }
  weighed.sort().reverse()
  return Array.from(weighed, (weight) => ids[weight % maxMembers]!)
}
