import { hash } from 'node:crypto'

/**
 * Members in the order in which they are responsible for the key (rendezvous hashing, highest random weight). All hosts
 * that know the same members agree on the order, and each member has an equal share of all keys. When a member leaves,
 * each of its keys goes to the next in that key's order; no other key moves.
 * @param members ids, each once
 */
export function rendezvous(key: string, members: Iterable<string>): string[] {
  const weighed = Array.from(members, (member) => ({ member, weight: hash('sha256', `${key} ${member}`, 'hex') }))
  return weighed.sort((a, b) => (a.weight < b.weight ? 1 : -1)).map(({ member }) => member)
}
