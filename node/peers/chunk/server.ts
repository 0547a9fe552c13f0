import type { Stream } from '@libp2p/interface'
import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import { encodeAnswerHeader, parseWants, type Want } from '../../../protocol/messages/chunk.ts'
import type { ByteBudget } from '../byte-budget.ts'
import { readFrames, writeFrame } from '../frames.ts'
import { limits } from '../limits.ts'
import type { Peer } from '../peer.ts'
import { PeerPace } from '../peer-pace.ts'
import type { ServedData } from '../served-data.ts'

/** Chunks that are read from the disk at once for one stream: enough to keep it full while one is being read. */
const readsAtOnce = 4

export interface ChunkServerParts {
  served: Pick<ServedData, 'chunk'>
  /** Chunks that have been read and that peers have not taken yet. */
  unsent: ByteBudget
}

/** Answers wants of chunks, each peer's at a bounded pace. */
export class ChunkServer {
  readonly #parts: ChunkServerParts
  readonly #pace = new PeerPace(limits.wants)

  constructor(parts: ChunkServerParts) {
    this.#parts = parts
  }

  /**
   * Answers the wants of one stream until it ends. A few chunks are read at once; the next one is read when the stream
   * has taken one of them. No more wants are read while there are as many as a client has on the way.
   * @throws invalid where the peer breaks the protocol; timeout where it does not take the answers; unavailable where the
   *   stream breaks
   */
  async serve(stream: Stream, peer: Peer): Promise<void> {
    const answers = new Answers(stream, peer, this.#parts)
    try {
      for await (const message of readFrames(stream, limits.wants.messageBytes)) {
        const wants = parseWants(message)
        answers.add(wants)
        await this.#pace.wait(peer, { requests: wants.length, signal: answers.signal })
        await answers.whenRoom()
      }
    } catch (error) {
      // Waiting ends with what ended the answers.
      throw answers.failure ?? error
    } finally {
      answers.end()
    }
    if (answers.failure !== undefined) throw answers.failure
  }
}

/** The wants of one stream that are not answered yet. */
class Answers {
  readonly #stream: Stream
  readonly #peer: Peer
  readonly #parts: ChunkServerParts
  readonly #ended = new AbortController()
  readonly #queue: Want[] = []
  #outstanding = 0
  #running = 0
  #sending: Promise<void> = Promise.resolve()
  #room: PromiseWithResolvers<undefined> | undefined
  /** Why no more is answered. */
  failure: Error | undefined

  constructor(stream: Stream, peer: Peer, parts: ChunkServerParts) {
    this.#stream = stream
    this.#peer = peer
    this.#parts = parts
  }

  /** Aborts when no more is answered. */
  get signal(): AbortSignal {
    return this.#ended.signal
  }

  add(wants: readonly Want[]): void {
    this.#outstanding += wants.length
    this.#queue.push(...wants)
    while (this.#running < Math.min(readsAtOnce, this.#queue.length)) void this.#run()
  }

  /** Resolves when more wants may be read, or no more are answered. */
  async whenRoom(): Promise<void> {
    if (this.#outstanding < limits.wants.outstanding || this.signal.aborted) return
    this.#room ??= Promise.withResolvers()
    await this.#room.promise
  }

  end(): void {
    this.#ended.abort(new P2pfsError('closed', 'stream ended'))
    this.#room?.resolve(undefined)
  }

  async #run(): Promise<void> {
    this.#running++
    try {
      for (let want = this.#queue.shift(); want !== undefined && !this.signal.aborted; want = this.#queue.shift()) {
        await this.#answer(want)
        this.#outstanding--
        if (this.#outstanding < limits.wants.outstanding) {
          this.#room?.resolve(undefined)
          this.#room = undefined
        }
      }
    } catch (error) {
      this.failure ??= error as Error
      this.#stream.abort(this.failure)
      this.end()
    } finally {
      this.#running--
    }
  }

  async #answer(want: Want): Promise<void> {
    const taken = { peer: this.#peer.id, bytes: maxChunkBytes, signal: this.signal }
    await this.#parts.unsent.run(taken, async () => {
      const { id, digest } = want
      const bytes = await this.#parts.served.chunk(digest, { signal: this.signal }).catch(() => undefined)
      if (bytes === undefined) return await this.#send([encodeAnswerHeader(id, 'missing')])
      await this.#send([encodeAnswerHeader(id, 'chunk'), bytes])
      this.#peer.traffic.sent(bytes.length)
    })
  }

  /** Frames are sent one after the other, or their parts would mix. */
  async #send(parts: Uint8Array[]): Promise<void> {
    const turn = this.#sending.then(async () => {
      const late = new P2pfsError('timeout', 'peer does not take chunks', { timeoutMs: limits.unread.chunkMs })
      const timer = setTimeout(() => this.#stream.abort(late), limits.unread.chunkMs)
      try {
        await writeFrame(this.#stream, parts, { signal: this.signal })
      } finally {
        clearTimeout(timer)
      }
    })
    this.#sending = turn.catch(() => undefined)
    await turn
  }
}
