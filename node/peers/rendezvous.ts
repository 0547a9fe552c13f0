import { hash } from 'node:crypto'

/**
 * Members in the order in which they are responsible for the key (rendezvous hashing, highest random weight): the same on
 * every host that knows the same members, with an equal share of all keys for each. A member that leaves hands its keys
 * to the next in each key's order; no other key moves.
 * @param members ids, each once
 */
export function rendezvous(key: string, members: Iterable<string>): string[] {
  const weighed = Array.from(members, (member) => ({ member, weight: hash('sha256', `${key} ${member}`, 'hex') }))
  return weighed.sort((a, b) => (a.weight < b.weight ? 1 : -1)).map(({ member }) => member)
}
