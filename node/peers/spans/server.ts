import type { Stream } from '@libp2p/interface'
import { P2pfsError } from '../../../protocol/errors.ts'
import { encodeSpanAnswer, maxSpanMessageBytes, parseSpanQuestion } from '../../../protocol/messages/span.ts'
import { readFrames, writeFrame } from '../frames.ts'
import { limits } from '../limits.ts'
import type { Peer } from '../peer.ts'
import { SourcePace } from '../source-pace.ts'
import type { SpanAnswers } from './span-answers.ts'

/**
 * Answers members for whose spans this host is the steward, or the deputy: whoever is asked is. It need not track the
 * segment.
 */
export class SpanServer {
  readonly #answers: Pick<SpanAnswers, 'places'>
  readonly #pace = new SourcePace(limits.spans)

  constructor({ answers }: { answers: Pick<SpanAnswers, 'places'> }) {
    this.#answers = answers
  }

  /**
   * Answers the questions of one stream until it ends. None is read while an answer is not taken.
   * @throws invalid where the peer breaks the protocol; timeout where it does not take the answers; unavailable where the
   *   stream breaks
   */
  async serve(stream: Stream, peer: Pick<Peer, 'id' | 'source'>): Promise<void> {
    const ended = new AbortController()
    const onClose = (): void => ended.abort(new P2pfsError('closed', 'stream ended'))
    stream.addEventListener('close', onClose, { once: true })
    const { signal } = ended
    for await (const message of readFrames(stream, maxSpanMessageBytes)) {
      const question = parseSpanQuestion(message)
      await this.#pace.wait(peer, { requests: question.spans.length, signal })
      const places = await this.#answers.places(peer.id, question)
      const late = new P2pfsError('timeout', 'peer does not take answers', { timeoutMs: limits.unread.chunkMs })
      const timer = setTimeout(() => stream.abort(late), limits.unread.chunkMs)
      try {
        await writeFrame(stream, [encodeSpanAnswer(places)], { signal })
      } finally {
        clearTimeout(timer)
      }
    }
  }
}
