import type { Libp2p, Stream } from '@libp2p/interface'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeSpanQuestion,
  maxSpanMessageBytes,
  parseSpanAnswer,
  spanProtocol,
  type SpanPlace,
  type SpanQuestion,
} from '../../../protocol/messages/span.ts'
import { readFrames, writeFrame } from '../frames.ts'
import { limits } from '../limits.ts'
import type { Membership } from '../membership.ts'
import type { Peer } from '../peer.ts'

export interface SpanClientParts {
  host: Pick<Libp2p, 'dialProtocol'>
  membership: Pick<Membership, 'reach' | 'ban'>
  /** Ends the opening of streams. */
  signal: AbortSignal
}

/** Asks stewards, over one stream to each. A steward that breaks the protocol is banned. */
export class SpanClient {
  readonly #parts: SpanClientParts
  readonly #streams = new WeakMap<Peer, SpanStream>()

  constructor(parts: SpanClientParts) {
    this.#parts = parts
  }

  /**
   * A place for each span, in the order of the question. How long that may take is the caller's business.
   * @throws unavailable where the steward cannot be reached; busy where it owes too many answers; invalid
   */
  async ask(stewardId: string, question: SpanQuestion): Promise<SpanPlace[]> {
    const { host, membership, signal } = this.#parts
    const peer = await membership.reach(stewardId, { signal })
    let stream = this.#streams.get(peer)
    if (stream === undefined || stream.hasEnded) {
      const onLie = (error: P2pfsError): void => membership.ban(peer, error)
      const onAnswer = (): void => peer.standing.gotOn()
      stream = new SpanStream(host.dialProtocol(peer.libp2pId, spanProtocol, { signal }), { onAnswer, onLie })
      this.#streams.set(peer, stream)
    }
    return await stream.ask(question)
  }
}

interface Pending {
  spans: number
  answer: PromiseWithResolvers<SpanPlace[]>
}

interface StreamEvents {
  /** Called for each answer. */
  onAnswer: () => void
  /** Called where the steward breaks the protocol. */
  onLie: (error: P2pfsError) => void
}

/** One stream to a steward: answers come in the order of the questions. */
class SpanStream {
  readonly #stream: Promise<Stream>
  readonly #events: StreamEvents
  /** Questions without an answer, the oldest first. */
  readonly #pending: Pending[] = []
  hasEnded = false

  constructor(stream: Promise<Stream>, events: StreamEvents) {
    this.#stream = stream
    this.#events = events
    void this.#read()
  }

  async ask(question: SpanQuestion): Promise<SpanPlace[]> {
    if (this.#pending.length >= limits.spans.outstanding)
      throw new P2pfsError('busy', 'the steward owes too many answers')
    const answer = Promise.withResolvers<SpanPlace[]>()
    answer.promise.catch(() => undefined)
    this.#pending.push({ spans: question.spans.length, answer })
    this.#stream
      .then(async (stream) => await writeFrame(stream, [encodeSpanQuestion(question)]))
      .catch((error: unknown) => this.#end(error))
    return await answer.promise
  }

  async #read(): Promise<void> {
    let stream: Stream | undefined
    try {
      stream = await this.#stream
      for await (const message of readFrames(stream, maxSpanMessageBytes)) {
        const places = parseSpanAnswer(message)
        const [pending] = this.#pending
        if (pending?.spans !== places.length)
          throw new P2pfsError('invalid', 'the steward answers what it was not asked')
        this.#pending.shift()
        this.#events.onAnswer()
        pending.answer.resolve(places)
      }
      this.#end(new P2pfsError('unavailable', 'the steward closed the stream'))
    } catch (error) {
      stream?.abort(error as Error)
      if (isP2pfsError(error, 'invalid')) this.#events.onLie(error)
      this.#end(error)
    }
  }

  #end(cause: unknown): void {
    this.hasEnded = true
    const error = isP2pfsError(cause)
      ? cause
      : new P2pfsError('unavailable', `cannot ask the steward: ${(cause as Error).message}`, { cause })
    for (const { answer } of this.#pending.splice(0)) answer.reject(error)
  }
}
