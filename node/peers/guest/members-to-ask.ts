import type { Digest } from '../../../protocol/digest.ts'
import { maxNamedMembers } from '../../../protocol/messages/guest.ts'
import type { MemberAddresses } from '../../../protocol/messages/region.ts'
import type { Location } from '../location/location.ts'
import type { Membership } from '../membership.ts'
import type { Member } from '../peer.ts'
import { rendezvous } from '../rendezvous.ts'

export interface MembersToAskParts {
  membership: Pick<Membership, 'members'> & { roster: Pick<Membership['roster'], 'get'> }
  location: Pick<Location, 'isSmall' | 'find'>
}

/**
 * Members that a guest is told to ask for chunks of a segment: those that hold most of it, as this host or, in a large
 * region, its trackers know. Where nobody is known to hold any, those that have not said, in an order that is the same
 * whoever is asked.
 * @throws the signal's reason
 */
export async function membersToAsk(
  { membership, location }: MembersToAskParts,
  table: Digest,
  { signal }: { signal: AbortSignal },
): Promise<MemberAddresses[]> {
  const awake = membership.members().filter(({ standing }) => !standing.isSilent)
  const holders = awake
    .filter(({ holdings }) => holdings.countOf(table) > 0)
    .toSorted((a, b) => b.holdings.countOf(table) - a.holdings.countOf(table))
    .map(addressesOf)
  const known = new Set(holders.map(({ peer }) => peer))
  if (holders.length < maxNamedMembers && !location.isSmall) {
    const { members } = await location.find(table, { wanted: maxNamedMembers, signal })
    for (const peer of members.filter((id) => !known.has(id))) {
      const member = membership.roster.get(peer)
      if (member !== undefined) holders.push({ peer, addresses: [...member.addresses] })
    }
  }
  const named = holders.length > 0 ? holders : unknown(table, awake)
  return named.slice(0, maxNamedMembers)
}

function unknown(table: Digest, members: readonly Member[]): MemberAddresses[] {
  const unknown = new Map(members.filter(({ holdings }) => !holdings.knows(table)).map((peer) => [peer.id, peer]))
  return rendezvous(table, unknown.keys()).map((id) => addressesOf(unknown.get(id)!))
}

function addressesOf({ id, hello }: Member): MemberAddresses {
  return { peer: id, addresses: hello.addresses }
}
