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
import { encodeHolders } from '../../../protocol/messages/chunk.ts'
import { trimRoomBytes, trimZeroTails } from '../../../protocol/messages/zero-tails.ts'
import { bulkLimits } from './bulk-limits.ts'
import { failureOf } from './bulk-receiver.ts'
import type { GivenCopies, Taker } from './given-copies.ts'
import { OrderReader } from './order-reader.ts'
import type { FromSender } from './thread-messages.ts'

/** How often connections are looked at whose peer does not take anything, and what was sent is told (ms). */
export const checkMs = 1_000

/** The place of a chunk in the memory of an answer (bytes): behind the room for a header and for trimming, at a multiple of 8. */
const chunkOffset = Math.ceil((bulkAnswerHeaderBytes + trimRoomBytes) / 8) * 8

/** A peer that has not said for so many checks that it holds a chunk which is on its way is not waited for. */
const slowTakerChecks = 3

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
  /** The peer holds a chunk that it was sent. */
  onKept: () => void
  onEnd: () => void
}

/** A want without an answer. */
interface Wanted {
  digest: Digest
  /** Whether it is served in its turn, whoever else holds the chunk. */
  waits: boolean
}

/** One connection of a peer: what it wants, and what it has not taken. */
export class Sending implements Taker {
  readonly #parts: SendingParts
  readonly #socket: Socket
  readonly peer: string
  /** The source that it comes from. */
  readonly source: string
  readonly #events: SendingEvents
  readonly #copies: GivenCopies
  readonly #orders: OrderReader
  /** Wants that are answered next, by their ids: those that are raised, and those that are cancelled. */
  readonly #first = new Map<number, Digest | undefined>()
  /** The other wants, the next one first; and those that come after them. */
  readonly #wants = new Map<number, Wanted>()
  readonly #last = new Map<number, Wanted>()
  /** Chunks that were sent, and of which the peer has not said that it holds them; the oldest first. */
  readonly #onWay = new Map<number, Digest>()
  /** Checks since one of these began to be waited for. */
  #slowChecks = 0
  /** Whether answers that name others have not been taken yet: there are no more until then. */
  #isNaming = false
  readonly #buffers: Buffer[] = []
  #made = 0
  #isOver = false
  #sent = { chunks: 0, bytes: 0 }
  #quietChecks = 0

  constructor(
    parts: SendingParts,
    socket: Socket,
    { peer, source, copies }: { peer: string; source: string; copies: GivenCopies },
    events: SendingEvents,
  ) {
    this.#parts = parts
    this.#socket = socket
    this.peer = peer
    this.source = source
    this.#copies = copies
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

  /** Wants without an answer. */
  get wanted(): number {
    return this.#first.size + this.#wants.size + this.#last.size
  }

  get isGettingOn(): boolean {
    return this.#slowChecks < slowTakerChecks
  }

  /** Bytes and chunks that were sent since the last call. */
  takeSent(): { chunks: number; bytes: number } {
    const sent = this.#sent
    this.#sent = { chunks: 0, bytes: 0 }
    return sent
  }

  check(): void {
    this.#quietChecks++
    if (this.#onWay.size > 0) this.#slowChecks++
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
    for (const digest of this.#onWay.values()) this.#copies.forget(digest, this)
    this.#onWay.clear()
    this.#events.onEnd()
  }

  /**
   * Answers the next want, if the peer has taken enough of what it was sent before.
   * @param options `isShared`: others want chunks, too. Then the peer is told who else holds what it wants, and what is on its way to
   *   another one is left for later
   * @returns whether nothing can be sent until another peer holds its chunk
   */
  sendNext({ isShared }: { isShared: boolean }): boolean {
    if (this.#isOver || !this.#hasRoom) return false
    if (isShared) this.nameOthers()
    const next = this.#takeNext(isShared)
    if (next === undefined) return this.wanted > 0
    const { id, digest } = next
    const buffer = this.#buffer()
    const lengthBytes = digest === undefined ? undefined : this.#parts.read(digest, buffer, chunkOffset)
    if (digest !== undefined && lengthBytes !== undefined) {
      this.#noteOnWay(id, digest)
      this.#answerChunk(buffer, id, lengthBytes)
    } else this.#answer(buffer, 0, { id, status: digest === undefined ? 'cancelled' : 'missing', lengthBytes: 0 })
    this.#tellReady()
    return false
  }

  #takeNext(isShared: boolean): { id: number; digest: Digest | undefined } | undefined {
    for (const [id, digest] of this.#first) {
      this.#first.delete(id)
      return { id, digest }
    }
    for (const wants of [this.#wants, this.#last])
      for (const [id, { digest, waits }] of wants) {
        if (isShared && !waits && this.#copies.isComingTo(digest, { except: this })) continue
        wants.delete(id)
        return { id, digest }
      }
    return undefined
  }

  /** Answers the wants of chunks that other peers hold with their names: all at once, and no more until the peer has taken that. */
  nameOthers(): void {
    if (this.#isNaming || this.#isOver) return
    const answers: Uint8Array[] = []
    for (const wants of [this.#wants, this.#last])
      for (const [id, { digest, waits }] of wants) {
        const holders = waits ? [] : this.#copies.holdersFor(digest, this.peer)
        if (holders.length === 0) continue
        wants.delete(id)
        const names = encodeHolders(holders)
        const header = Buffer.alloc(bulkAnswerHeaderBytes)
        writeBulkAnswerHeader(header, { id, status: 'elsewhere', lengthBytes: names.length })
        answers.push(header, names)
      }
    if (answers.length === 0) return
    this.#isNaming = true
    this.#socket.write(Buffer.concat(answers), () => {
      this.#isNaming = false
      this.#quietChecks = 0
      this.#tellReady()
    })
  }

  #noteOnWay(id: number, digest: Digest): void {
    if (this.#onWay.size === 0) this.#slowChecks = 0
    this.#onWay.set(id, digest)
    this.#copies.sent(digest, this)
    if (this.#onWay.size <= maxBulkWants) return
    const [[oldest, forgotten]] = this.#onWay as unknown as [[number, Digest]]
    this.#onWay.delete(oldest)
    this.#copies.forget(forgotten, this)
  }

  /** Notes that the peer says it holds what was sent with this id. */
  #noteKept(id: number): void {
    const digest = this.#onWay.get(id)
    if (digest === undefined) return
    this.#onWay.delete(id)
    this.#slowChecks = 0
    this.#copies.kept(digest, this)
    this.#events.onKept()
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

  /** Whether there is memory for one more answer. */
  get #hasRoom(): boolean {
    return this.#buffers.length > 0 || this.#made < bulkLimits.buffers
  }

  /** Memory for one answer, where there is room. */
  #buffer(): Buffer {
    const free = this.#buffers.pop()
    if (free !== undefined) return free
    this.#made++
    return Buffer.allocUnsafeSlow(chunkOffset + maxChunkBytes)
  }

  #tellReady(): void {
    if (!this.#isOver && this.wanted > 0 && this.#hasRoom) this.#events.onReady()
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
      if (this.wanted >= maxBulkWants) throw new P2pfsError('invalid', `more than ${maxBulkWants} wants outstanding`)
      const wants = order.order === 'last' ? this.#last : this.#wants
      wants.set(id, { digest: order.digest, waits: order.waits === true })
    } else if (order.order === 'kept') return this.#noteKept(id)
    else {
      const digest = (this.#wants.get(id) ?? this.#last.get(id))?.digest ?? this.#first.get(id)
      // It may have been answered meanwhile.
      if (digest === undefined) return
      this.#wants.delete(id)
      this.#last.delete(id)
      this.#first.set(id, order.order === 'raise' ? digest : undefined)
    }
    this.#tellReady()
  }
}
