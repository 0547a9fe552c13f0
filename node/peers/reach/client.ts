import type { Libp2p } from '@libp2p/interface'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeReachRequest,
  maxReachMessageBytes,
  parseReachAnswer,
  reachProtocol,
  type ReachAnswer,
} from '../../../protocol/messages/reach.ts'
import { readFrames, writeFrame } from '../frames.ts'
import type { Membership } from '../membership.ts'
import { QuestionStream } from '../question-stream.ts'

/** A member tries all ports at once, for three seconds, and may wait its turn before (ms). */
const answerTimeoutMs = 10_000

export interface ReachClientParts {
  host: Pick<Libp2p, 'dialProtocol'>
  membership: Pick<Membership, 'reach' | 'ban'>
}

/** Asks members whether they reach this host. */
export class ReachClient {
  readonly #parts: ReachClientParts

  constructor(parts: ReachClientParts) {
    this.#parts = parts
  }

  /**
   * @param ports 1 to 4 TCP ports of this host
   * @returns the answer, and how long it took (ms)
   * @throws unavailable, also for a member of an earlier version; timeout; invalid
   */
  async ask(
    peerId: string,
    ports: readonly number[],
    { signal }: { signal: AbortSignal },
  ): Promise<ReachAnswer & { tookMs: number }> {
    const { host, membership } = this.#parts
    const ended = AbortSignal.any([signal, AbortSignal.timeout(answerTimeoutMs)])
    const peer = await membership.reach(peerId, { signal: ended })
    try {
      using question = await QuestionStream.open(host, peer, reachProtocol, { signal: ended })
      const { stream } = question
      const begunMs = performance.now()
      await writeFrame(stream, [encodeReachRequest(ports)], { signal: ended })
      const { done, value } = await readFrames(stream, maxReachMessageBytes).next()
      if (done === true) throw new P2pfsError('unavailable', 'the member ended the question without an answer')
      return { ...parseReachAnswer(value, ports.length), tookMs: performance.now() - begunMs }
    } catch (error) {
      signal.throwIfAborted()
      if (isP2pfsError(error, 'invalid')) membership.ban(peer, error)
      if (isP2pfsError(error)) throw error
      const code = ended.aborted ? 'timeout' : 'unavailable'
      throw new P2pfsError(code, `the member does not answer: ${(error as Error).message}`, { cause: error })
    }
  }
}
