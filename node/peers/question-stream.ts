import type { Libp2p, Stream } from '@libp2p/interface'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Peer } from './peer.ts'

/** A stream for one question. It is reset when the question is over, so that the peer ends its work where nobody else wants it. */
export class QuestionStream implements Disposable {
  readonly stream: Stream
  readonly #signal: AbortSignal
  readonly #onAbort: () => void

  private constructor(stream: Stream, signal: AbortSignal) {
    this.stream = stream
    this.#signal = signal
    this.#onAbort = () => stream.abort(signal.reason as Error)
    signal.addEventListener('abort', this.#onAbort, { once: true })
  }

  /**
   * @param options `signal`: resets the stream, also after this has resolved
   * @throws what libp2p throws; the signal's reason
   */
  static async open(
    host: Pick<Libp2p, 'dialProtocol'>,
    peer: Pick<Peer, 'libp2pId'>,
    protocol: string,
    { signal }: { signal: AbortSignal },
  ): Promise<QuestionStream> {
    const question = new QuestionStream(await host.dialProtocol(peer.libp2pId, protocol, { signal }), signal)
    if (signal.aborted) {
      question[Symbol.dispose]()
      signal.throwIfAborted()
    }
    return question
  }

  [Symbol.dispose](): void {
    this.#signal.removeEventListener('abort', this.#onAbort)
    this.stream.abort(new P2pfsError('closed', 'the asker is done'))
  }
}
