import type { Stream } from '@libp2p/interface'
import type { Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeWants,
  maxAnswerBytes,
  maxWantsPerMessage,
  parseAnswer,
  type Want,
} from '../../../protocol/messages/chunk.ts'
import { hashBytes } from '../../base/hashing.ts'
import { readFrames, writeFrame } from '../frames.ts'

interface Pending {
  digest: Digest
  lengthBytes: number
  resolve: (bytes: Uint8Array) => void
  reject: (error: Error) => void
}

/** Asks one peer for chunks over one stream. Many wants are under way at once; those of one turn are sent together. */
export class ChunkStream {
  readonly #stream: Stream
  readonly #peer: string
  readonly #pending = new Map<number, Pending>()
  #unsent: Want[] = []
  #nextId = 0
  #closed: Error | undefined
  /** Resolves when the stream has ended; never rejects. */
  readonly ended: Promise<void>

  constructor(stream: Stream, peer: string) {
    this.#stream = stream
    this.#peer = peer
    this.ended = this.#read()
  }

  /**
   * Fetches one chunk and verifies it.
   * @throws missing where the peer does not have it; busy where it asks to be left alone; invalid where it sends
   *   anything else; timeout; unavailable where the connection is lost
   */
  async fetch(
    digest: Digest,
    lengthBytes: number,
    { signal, timeoutMs }: { signal: AbortSignal; timeoutMs: number },
  ): Promise<Uint8Array> {
    if (this.#closed !== undefined) throw this.#closed
    signal.throwIfAborted()
    const id = this.#nextId
    this.#nextId = (this.#nextId + 1) % 2 ** 32
    const answer = Promise.withResolvers<Uint8Array>()
    this.#pending.set(id, { digest, lengthBytes, resolve: answer.resolve, reject: answer.reject })
    if (this.#unsent.length === 0) queueMicrotask(() => this.#sendWants())
    this.#unsent.push({ id, digest })
    const onAbort = (): void => answer.reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
    const timer = setTimeout(
      () =>
        answer.reject(
          new P2pfsError('timeout', 'peer did not answer in time', { peer: this.#peer, digest, timeoutMs }),
        ),
      timeoutMs,
    )
    try {
      return await answer.promise
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      this.#pending.delete(id)
    }
  }

  #sendWants(): void {
    const wants = this.#unsent
    this.#unsent = []
    for (let start = 0; start < wants.length; start += maxWantsPerMessage) {
      writeFrame(this.#stream, [encodeWants(wants.slice(start, start + maxWantsPerMessage))]).catch((error: unknown) =>
        this.#fail(error as Error),
      )
    }
  }

  async #read(): Promise<void> {
    try {
      for await (const message of readFrames(this.#stream, maxAnswerBytes)) {
        const answer = parseAnswer(message)
        const pending = this.#pending.get(answer.id)
        // Whoever asked has given up.
        if (pending === undefined) continue
        if (answer.status === 'chunk') void this.#verify(pending, answer.bytes)
        else
          pending.reject(
            new P2pfsError(answer.status, answer.status === 'busy' ? 'peer is busy' : 'peer does not have the chunk', {
              peer: this.#peer,
              digest: pending.digest,
            }),
          )
      }
      this.#fail(new P2pfsError('unavailable', 'peer closed the stream', { peer: this.#peer }))
    } catch (error) {
      this.#fail(error as Error)
      this.#stream.abort(error as Error)
    }
  }

  async #verify({ digest, lengthBytes, resolve, reject }: Pending, bytes: Uint8Array): Promise<void> {
    const isChunk = (await hashBytes(bytes)) === digest
    if (isChunk && bytes.length === lengthBytes) resolve(bytes)
    // The peer has the chunk. Its length comes from a table, which somebody else may have made up.
    else if (isChunk)
      reject(new P2pfsError('missing', 'chunk has another length than its table says', { peer: this.#peer, digest }))
    else
      reject(
        new P2pfsError('invalid', 'peer sent other bytes than the chunk', {
          peer: this.#peer,
          digest,
          sizeBytes: bytes.length,
        }),
      )
  }

  #fail(error: Error): void {
    this.#closed ??= error
    for (const { reject } of this.#pending.values()) reject(error)
    this.#pending.clear()
  }
}
