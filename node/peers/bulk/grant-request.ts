import type { Libp2p } from '@libp2p/interface'
import { P2pfsError } from '../../../protocol/errors.ts'
import {
  bulkProtocol,
  encodeBulkRequest,
  parseBulkAnswer,
  type BulkGrant,
  type BulkMode,
  type BulkRefusal,
} from '../../../protocol/messages/bulk.ts'
import { readFrames, writeFrame } from '../frames.ts'
import type { Peer } from '../peer.ts'
import { bulkLimits } from './bulk-limits.ts'

/**
 * Asks the peer for a grant.
 * @returns the grant, and the IP address at which this host reaches the peer
 * @throws unavailable where it does not answer; invalid where it breaks the protocol; the signal's reason
 */
export async function requestGrant(
  host: Pick<Libp2p, 'dialProtocol' | 'getConnections'>,
  { id, libp2pId }: Pick<Peer, 'id' | 'libp2pId'>,
  mode: BulkMode,
  { signal }: { signal: AbortSignal },
): Promise<{ host: string; grant: BulkGrant } | { refused: BulkRefusal }> {
  const [connection] = host.getConnections(libp2pId)
  const address = connection?.remoteAddr.getComponents().find(({ name }) => name === 'ip4' || name === 'ip6')?.value
  if (address === undefined) throw new P2pfsError('unavailable', 'peer has no IP address', { peer: id })
  const stream = await host.dialProtocol(libp2pId, bulkProtocol, { signal }).catch((cause: unknown) => {
    throw new P2pfsError('unavailable', `cannot open a stream to the peer: ${(cause as Error).message}`, {
      cause,
      peer: id,
    })
  })
  const onAbort = (): void => stream.abort(signal.reason as Error)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    await writeFrame(stream, [encodeBulkRequest({ mode })], { signal })
    for await (const message of readFrames(stream, bulkLimits.messageBytes)) {
      const answer = parseBulkAnswer(message)
      return 'refused' in answer ? answer : { host: address, grant: answer }
    }
    throw new P2pfsError('unavailable', 'peer does not answer', { peer: id })
  } finally {
    signal.removeEventListener('abort', onAbort)
    await stream.close({ signal }).catch(() => undefined)
  }
}
