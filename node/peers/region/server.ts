import type { Stream } from '@libp2p/interface'
import { P2pfsError } from '../../../protocol/errors.ts'
import { maxRegionMessageBytes, parseRegionMessage } from '../../../protocol/messages/region.ts'
import type { Availability } from '../availability.ts'
import { readFrames } from '../frames.ts'
import type { Membership } from '../membership.ts'
import type { Peer } from '../peer.ts'

/**
 * Takes in what the peer says of itself, of other members and of its chunks, until it leaves.
 * @throws invalid where the peer breaks the protocol; unavailable where the stream breaks
 */
export async function serveRegion(
  stream: Stream,
  peer: Peer,
  {
    membership,
    availability,
  }: { membership: Pick<Membership, 'welcome' | 'learn'>; availability: Pick<Availability, 'update'> },
): Promise<void> {
  for await (const bytes of readFrames(stream, maxRegionMessageBytes)) {
    const message = parseRegionMessage(bytes)
    if (message.type === 'hello') {
      if (!membership.welcome(peer, message)) return
    } else if (peer.hello === undefined) throw new P2pfsError('invalid', 'peer sent another message before its hello')
    else if (message.type === 'members') membership.learn(message.members)
    else availability.update(peer, message)
  }
}
