import type { Socket } from 'node:net'
import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import type { Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import {
  bulkAnswerHeaderBytes,
  maxBulkWants,
  writeBulkAnswerHeader,
  type BulkAnswerHeader,
  type BulkOrder,
} from '../../../protocol/messages/bulk.ts'
import { trimRoomBytes, trimZeroTails } from '../../../protocol/messages/zero-tails.ts'
import { bulkLimits } from './bulk-limits.ts'
import { failureOf } from './bulk-receiver.ts'
import { OrderReader } from './order-reader.ts'
import type { FromSender } from './thread-messages.ts'

/** How often connections are looked at whose peer does not take anything, and what was sent is told (ms). */
export const checkMs = 1_000

/** The place of a chunk in the memory of an answer (bytes): behind the room for a header and for trimming, at a multiple of 8. */
const chunkOffset = Math.ceil((bulkAnswerHeaderBytes + trimRoomBytes) / 8) * 8

export interface SendingParts {
  /**
   * Reads the chunk into `target` from `offset` on. It may block.
   * @returns its length (bytes); undefined where it is not here
   */
  read: (digest: Digest, target: Buffer, offset: number) => number | undefined
  report: (message: FromSender) => void
}

/** Events of a connection. */
export interface SendingEvents {
  onReady: () => void
  onSent: (bytes: number) => void
  onEnd: () => void
}

/** One connection of a peer: what it wants, and what it has not taken. */
export class Sending {
  readonly #parts: SendingParts
  readonly #socket: Socket
  readonly peer: string
  /** The source that it comes from. */
  readonly source: string
  readonly #events: SendingEvents
  readonly #orders: OrderReader
  /** Wants that are answered next, by their ids: those that are raised, and those that are cancelled. */
  readonly #first = new Map<number, Digest | undefined>()
  /** The other wants, the next one first; and those that come after them. */
  readonly #wants = new Map<number, Digest>()
  readonly #last = new Map<number, Digest>()
  readonly #buffers: Buffer[] = []
  #made = 0
  #isOver = false
  #sent = { chunks: 0, bytes: 0 }
  #quietChecks = 0

  constructor(
    parts: SendingParts,
    socket: Socket,
    { peer, source }: { peer: string; source: string },
    events: SendingEvents,
  ) {
    this.#parts = parts
    this.#socket = socket
    this.peer = peer
    this.source = source
    this.#events = events
    this.#orders = new OrderReader((order) => this.#obey(order))
    socket
      .on('data', (bytes: Buffer) => this.#read(bytes))
      .on('error', () => this.end())
      .on('end', () => this.end())
      .on('close', () => this.end())
  }

  /** Chunks in memory that the peer has not taken. */
  get unsentChunks(): number {
    return this.#made - this.#buffers.length
  }

  /** Whether somebody waits for a chunk, or nothing is to be sent for one. */
  get hasRaised(): boolean {
    return this.#first.size > 0
  }

  get hasOnlyLast(): boolean {
    return this.#first.size + this.#wants.size === 0
  }

  /** Bytes and chunks that were sent since the last call. */
  takeSent(): { chunks: number; bytes: number } {
    const sent = this.#sent
    this.#sent = { chunks: 0, bytes: 0 }
    return sent
  }

  check(): void {
    this.#quietChecks++
    const isOwing = this.unsentChunks > 0
    // An asker closes what it does not need; this is for one that is gone without a word.
    if (this.#quietChecks * checkMs > (isOwing ? bulkLimits.unreadMs : 2 * bulkLimits.idleMs)) this.end()
  }

  end(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#socket.destroy()
    this.#first.clear()
    this.#wants.clear()
    this.#last.clear()
    this.#events.onEnd()
  }

  /** Answers the next want, if the peer has taken enough of what it was sent before. */
  sendNext(): void {
    const [next] = this.#first.size > 0 ? this.#first : this.#wants.size > 0 ? this.#wants : this.#last
    if (next === undefined || this.#isOver) return
    const buffer = this.#buffer()
    if (buffer === undefined) return
    const [id, digest] = next
    this.#first.delete(id)
    this.#wants.delete(id)
    this.#last.delete(id)
    const lengthBytes = digest === undefined ? undefined : this.#parts.read(digest, buffer, chunkOffset)
    if (lengthBytes !== undefined) this.#answerChunk(buffer, id, lengthBytes)
    else this.#answer(buffer, 0, { id, status: digest === undefined ? 'cancelled' : 'missing', lengthBytes: 0 })
    this.#tellReady()
  }

  /** Sends the chunk in the buffer, without the zeros at the ends of its blocks where that is worth it. */
  #answerChunk(buffer: Buffer, id: number, lengthBytes: number): void {
    const trimmed = { start: chunkOffset, lengthBytes, target: bulkAnswerHeaderBytes }
    const trimmedBytes = trimZeroTails(buffer, trimmed)
    if (trimmedBytes !== undefined) this.#answer(buffer, 0, { id, status: 'trimmed', lengthBytes: trimmedBytes })
    else this.#answer(buffer, chunkOffset - bulkAnswerHeaderBytes, { id, status: 'chunk', lengthBytes })
    this.#sent.chunks++
    this.#sent.bytes += lengthBytes
  }

  /** Sends the header, and what stands behind its place in the buffer. */
  #answer(buffer: Buffer, start: number, header: BulkAnswerHeader): void {
    const { lengthBytes } = header
    const answer = buffer.subarray(start, start + bulkAnswerHeaderBytes + lengthBytes)
    writeBulkAnswerHeader(answer, header)
    this.#socket.write(answer, () => {
      this.#buffers.push(buffer)
      this.#quietChecks = 0
      this.#tellReady()
    })
    if (lengthBytes > 0) this.#events.onSent(lengthBytes)
  }

  /** Memory for one answer; undefined where as much is in use as a connection gets. */
  #buffer(): Buffer | undefined {
    const free = this.#buffers.pop()
    if (free !== undefined) return free
    if (this.#made >= bulkLimits.buffers) return undefined
    this.#made++
    return Buffer.allocUnsafeSlow(chunkOffset + maxChunkBytes)
  }

  #tellReady(): void {
    if (this.#isOver || this.#wanted === 0) return
    if (this.#buffers.length > 0 || this.#made < bulkLimits.buffers) this.#events.onReady()
  }

  /** Wants without an answer. */
  get #wanted(): number {
    return this.#first.size + this.#wants.size + this.#last.size
  }

  #read(bytes: Uint8Array): void {
    if (this.#isOver) return
    try {
      this.#orders.push(bytes)
    } catch (error) {
      this.#parts.report({ broke: this.peer, failure: failureOf(error as Error) })
      this.end()
    }
  }

  /** @throws invalid */
  #obey(order: BulkOrder): void {
    if (this.#isOver) return
    this.#quietChecks = 0
    const { id } = order
    if (order.order === 'want' || order.order === 'last') {
      if (this.#wants.has(id) || this.#first.has(id) || this.#last.has(id))
        throw new P2pfsError('invalid', 'peer uses the id of a want twice')
      if (this.#wanted >= maxBulkWants) throw new P2pfsError('invalid', `more than ${maxBulkWants} wants outstanding`)
      const wants = order.order === 'last' ? this.#last : this.#wants
      wants.set(id, order.digest)
    } else {
      const digest = this.#wants.get(id) ?? this.#last.get(id) ?? this.#first.get(id)
      // It may have been answered meanwhile.
      if (digest === undefined) return
      this.#wants.delete(id)
      this.#last.delete(id)
      this.#first.set(id, order.order === 'raise' ? digest : undefined)
    }
    this.#tellReady()
  }
}
