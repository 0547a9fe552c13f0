import type { Libp2p } from '@libp2p/interface'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeLocationRequest,
  locationProtocol,
  maxLocationAnswerBytes,
  parseLocationAnswer,
  type LocationAnswer,
  type LocationRequest,
} from '../../../protocol/messages/location.ts'
import type { Clock } from '../../base/clock.ts'
import { readFrames, writeFrame } from '../frames.ts'
import type { Membership } from '../membership.ts'

/** How long a tracker may take to answer (ms), connecting included: it answers from memory. */
const answerMs = 1_000

export interface TrackerClientParts {
  host: Pick<Libp2p, 'dialProtocol'>
  membership: Pick<Membership, 'reach' | 'ban'>
  clock: Clock
}

/** Asks trackers, over connections that are opened on demand. */
export class TrackerClient {
  readonly #parts: TrackerClientParts

  constructor(parts: TrackerClientParts) {
    this.#parts = parts
  }

  /**
   * Tells a tracker what this host holds, and asks it for members.
   * @throws unavailable where it cannot be reached; timeout; invalid where it breaks the protocol, and is banned; the
   *   signal's reason
   */
  async ask(tracker: string, request: LocationRequest, { signal }: { signal: AbortSignal }): Promise<LocationAnswer> {
    const { host, membership, clock } = this.#parts
    const late = new AbortController()
    const cancel = clock.after(answerMs, () =>
      late.abort(new P2pfsError('timeout', 'the tracker does not answer', { peer: tracker, timeoutMs: answerMs })),
    )
    const ended = AbortSignal.any([signal, late.signal])
    try {
      const peer = await membership.reach(tracker, { signal: ended })
      const stream = await host.dialProtocol(peer.libp2pId, locationProtocol, { signal: ended })
      const onAbort = (): void => stream.abort(ended.reason as Error)
      ended.addEventListener('abort', onAbort, { once: true })
      try {
        ended.throwIfAborted()
        await writeFrame(stream, [encodeLocationRequest(request)], { signal: ended })
        for await (const message of readFrames(stream, maxLocationAnswerBytes))
          return parseLocationAnswer(message, request)
        throw new P2pfsError('unavailable', 'the tracker closed the stream without an answer', { peer: tracker })
      } catch (error) {
        if (isP2pfsError(error, 'invalid')) membership.ban(peer, error)
        throw error
      } finally {
        ended.removeEventListener('abort', onAbort)
        stream.close().catch(() => undefined)
      }
    } catch (error) {
      ended.throwIfAborted()
      throw error
    } finally {
      cancel()
    }
  }
}
