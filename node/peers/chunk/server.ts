import type { Stream } from '@libp2p/interface'
import { P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeAnswerHeader,
  maxOutstandingWants,
  maxWantMessageBytes,
  parseWants,
  type Want,
} from '../../../protocol/messages/chunk.ts'
import { readFrames, writeFrame } from '../frames.ts'
import type { Peer } from '../peer.ts'
import type { ServedData } from '../served-data.ts'

/** Chunks that are read from the disk at once for one stream: enough to keep it full while one is being read. */
const readsAtOnce = 4

/**
 * Answers the wants of one stream until it ends. Wants are taken as they come, up to a bound. A few chunks are read at
 * once; the next one is read when the stream has taken one of them.
 * @throws invalid where the peer breaks the protocol; unavailable where the stream breaks
 */
export async function serveChunks(
  stream: Stream,
  peer: Pick<Peer, 'traffic'>,
  served: Pick<ServedData, 'chunk'>,
): Promise<void> {
  const ended = new AbortController()
  const queue: Want[] = []
  let outstanding = 0
  let running = 0
  let failure: unknown
  let sending: Promise<void> = Promise.resolve()

  const send = async (parts: Uint8Array[]): Promise<void> => {
    // Frames are sent one after the other, or their parts would mix.
    const turn = sending.then(async () => await writeFrame(stream, parts, { signal: ended.signal }))
    sending = turn.catch(() => undefined)
    await turn
  }
  const answerWant = async ({ id, digest }: Want): Promise<void> => {
    const bytes = await served.chunk(digest, { signal: ended.signal }).catch(() => undefined)
    await send(bytes === undefined ? [encodeAnswerHeader(id, 'missing')] : [encodeAnswerHeader(id, 'chunk'), bytes])
    if (bytes !== undefined) peer.traffic.sent(bytes.length)
  }
  const answerWants = async (): Promise<void> => {
    running++
    try {
      for (let want = queue.shift(); want !== undefined && !ended.signal.aborted; want = queue.shift()) {
        await answerWant(want)
        outstanding--
      }
    } catch (error) {
      failure ??= error
      stream.abort(error as Error)
    } finally {
      running--
    }
  }

  try {
    for await (const message of readFrames(stream, maxWantMessageBytes)) {
      const wants = parseWants(message)
      outstanding += wants.length
      if (outstanding > maxOutstandingWants)
        throw new P2pfsError('invalid', `more than ${maxOutstandingWants} wants outstanding`)
      queue.push(...wants)
      while (running < Math.min(readsAtOnce, queue.length)) void answerWants()
    }
  } finally {
    ended.abort(new P2pfsError('closed', 'stream ended'))
  }
  if (failure !== undefined) throw failure
}
