import type { Stream } from '@libp2p/interface'
import { P2pfsError } from '../../../protocol/errors.ts'
import { parseRegionMessage } from '../../../protocol/messages/region.ts'
import { isRosterMessage } from '../../../protocol/messages/roster.ts'
import { TokenBucket } from '../../base/token-bucket.ts'
import type { Availability } from '../availability.ts'
import { readFrames } from '../frames.ts'
import { limits } from '../limits.ts'
import type { Membership } from '../membership.ts'
import type { Peer } from '../peer.ts'
import type { SourcePace } from '../source-pace.ts'

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
    pace,
  }: {
    membership: Pick<Membership, 'welcome' | 'hear'>
    availability: Pick<Availability, 'update'>
    /** Slows the bytes that the peers of each source send. */
    pace: SourcePace
  },
  { signal }: { signal: AbortSignal },
): Promise<void> {
  const { messages, messageBytes } = limits.region
  const rate = new TokenBucket({ perSecond: 2 * messages.perSecond, burst: 2 * messages.burst })
  for await (const bytes of readFrames(stream, messageBytes)) {
    if (!rate.tryTake()) throw new P2pfsError('invalid', 'peer sends more messages than the protocol allows')
    const message = parseRegionMessage(bytes)
    if (message.type === 'hello') {
      if (!membership.welcome(peer, message)) return
    } else if (peer.hello === undefined) throw new P2pfsError('invalid', 'peer sent another message before its hello')
    else if (isRosterMessage(message)) membership.hear(peer, message)
    else availability.update(peer, message)
    await pace.wait(peer, { requests: bytes.length, signal })
  }
}
