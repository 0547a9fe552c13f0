import { connect } from 'node:net'
import type { Stream } from '@libp2p/interface'
import { encodeReachAnswer, maxReachMessageBytes, parseReachRequest } from '../../../protocol/messages/reach.ts'
import { readFrames, writeFrame } from '../frames.ts'
import type { Peer } from '../peer.ts'
import type { SourcePace } from '../source-pace.ts'

/** How long a port may take to answer (ms): as long as libp2p gives an address. */
const connectTimeoutMs = 3_000
/** How long the asker may take to accept the answer (ms). */
const acceptTimeoutMs = 10_000

/**
 * Tries ports of the member that asks, at the address that its connection comes from and at no other: nobody is reached
 * for a member but itself. Nothing is sent on these connections.
 * @throws invalid where the asker breaks the protocol; unavailable where the stream breaks
 */
export async function serveReach(
  stream: Stream,
  { source, address }: Pick<Peer, 'source'> & { address: string },
  pace: SourcePace,
  { signal }: { signal: AbortSignal },
): Promise<void> {
  const { done, value } = await readFrames(stream, maxReachMessageBytes).next()
  if (done === true) return
  const ports = parseReachRequest(value)
  await pace.wait({ source }, { signal })
  const reached = await Promise.all(ports.map(async (port) => await isReached(address, port, { signal })))
  const ended = AbortSignal.any([signal, AbortSignal.timeout(acceptTimeoutMs)])
  await writeFrame(stream, [encodeReachAnswer({ timeMs: Date.now(), address, reached })], { signal: ended })
  await stream.close()
}

async function isReached(host: string, port: number, { signal }: { signal: AbortSignal }): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect({ host, port, signal, timeout: connectTimeoutMs })
    const end = (isReached: boolean) => (): void => {
      socket.destroy()
      resolve(isReached)
    }
    socket.once('connect', end(true)).once('error', end(false)).once('timeout', end(false))
  })
}
