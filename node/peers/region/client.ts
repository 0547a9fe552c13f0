import { setTimeout as sleep } from 'node:timers/promises'
import type { Stream } from '@libp2p/interface'
import { P2pfsError } from '../../../protocol/errors.ts'
import { encodeRegionMessage, type RegionMessage } from '../../../protocol/messages/region.ts'
import { TokenBucket } from '../../base/token-bucket.ts'
import type { ByteBudget } from '../byte-budget.ts'
import { writeFrame } from '../frames.ts'
import { limits } from '../limits.ts'

export interface RegionClientParts {
  peer: string
  /** Messages of all peers that wait. */
  queues: ByteBudget
  /** Returns the next message when nothing waits; called when the peer takes more. */
  next: () => RegionMessage | undefined
  /** Called once when the stream has broken, or the peer does not take its messages. */
  onBroken: (error: Error) => void
  /** Ends what waits to be sent. */
  signal: AbortSignal
}

/** This host's region stream to one peer: sends messages in order, no faster than the protocol allows. */
export class RegionClient {
  readonly #stream: Stream
  readonly #parts: RegionClientParts
  readonly #rate = new TokenBucket(limits.region.messages)
  #queue: Uint8Array[] = []
  #isSending = false
  #isBroken = false

  constructor(stream: Stream, parts: RegionClientParts) {
    this.#stream = stream
    this.#parts = parts
  }

  /** Queues the message. @returns false where too many bytes wait already: the message is not sent */
  send(message: RegionMessage): boolean {
    if (this.#isBroken) return true
    const bytes = encodeRegionMessage(message)
    if (!this.#parts.queues.tryTake(this.#parts.peer, bytes.length)) return false
    this.#queue.push(bytes)
    this.wake()
    return true
  }

  /** There is something to send. */
  wake(): void {
    if (this.#isSending || this.#isBroken) return
    this.#isSending = true
    void this.#send()
  }

  /** The peer has gone: nothing is sent any more. */
  close(): void {
    this.#isBroken = true
    const { peer, queues } = this.#parts
    for (const { length } of this.#queue.splice(0)) queues.giveBack(peer, length)
  }

  async #send(): Promise<void> {
    const { peer, queues, next, signal } = this.#parts
    try {
      while (!this.#isBroken) {
        const queued = this.#queue.shift()
        const message = queued === undefined ? next() : undefined
        const bytes = queued ?? (message && encodeRegionMessage(message))
        if (bytes === undefined) break
        try {
          await this.#sendOne(bytes, signal)
        } finally {
          if (queued !== undefined) queues.giveBack(peer, queued.length)
        }
      }
    } catch (error) {
      this.#break(error as Error)
    } finally {
      this.#isSending = false
    }
  }

  async #sendOne(bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    const waitMs = this.#rate.take()
    if (waitMs > 0) await sleep(waitMs, undefined, { signal, ref: false })
    const timer = setTimeout(
      () =>
        this.#break(new P2pfsError('timeout', 'peer does not take messages', { timeoutMs: limits.unread.regionMs })),
      limits.unread.regionMs,
    )
    try {
      await writeFrame(this.#stream, [bytes], { signal })
    } finally {
      clearTimeout(timer)
    }
  }

  #break(error: Error): void {
    if (this.#isBroken) return
    this.close()
    this.#stream.abort(error)
    this.#parts.onBroken(error)
  }
}
