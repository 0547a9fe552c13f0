import type { Socket } from 'node:net'
import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import type { Digest } from '../../../protocol/digest.ts'
import { P2pfsError } from '../../../protocol/errors.ts'
import {
  bulkAnswerHeaderBytes,
  maxBulkWants,
  writeBulkAnswerHeader,
  type BulkAnswerHeader,
  type BulkMode,
  type BulkOrder,
} from '../../../protocol/messages/bulk.ts'
import { trimRoomBytes, trimZeroTails } from '../../../protocol/messages/zero-tails.ts'
import { Bandwidth } from '../../base/bandwidth.ts'
import { PendingHandshakes } from '../admission/pending-handshakes.ts'
import { sourceOf } from '../admission/source.ts'
import { AdmittedConnections } from '../admission/admitted-connections.ts'
import { bulkLimits } from './bulk-limits.ts'
import { BulkListeners } from './bulk-listeners.ts'
import { failureOf } from './bulk-receiver.ts'
import { acceptPlain, acceptTls, type AcceptBulkSocket } from './bulk-socket.ts'
import { Grants, type GivenGrant } from './grants.ts'
import { OrderReader } from './order-reader.ts'
import type { BulkListen, FromSender, ToSender } from './thread-messages.ts'
import { Turns } from './turns.ts'

/** How often connections are looked at whose peer does not take anything, and what was sent is told (ms). */
const checkMs = 1_000
/** How often a thread that waits for the limit looks whether it has changed, or somebody waits for a chunk (ms). */
const limitPollMs = 20
/** One of so many turns is for what is last, where others want something all the time: its asker would take it for lost. */
const turnsForLast = 16

/** Where a chunk stands in the memory of an answer (bytes): behind the room for a header and for trimming, at a multiple of 8. */
const chunkOffset = Math.ceil((bulkAnswerHeaderBytes + trimRoomBytes) / 8) * 8

type UploadLimit = Pick<Bandwidth, 'waitMs' | 'charge' | 'beginWait'>

export interface BulkSenderParts {
  /**
   * Reads the chunk into `target` from `offset` on. It may block.
   * @returns its length (bytes); undefined where it is not here
   */
  read: (digest: Digest, target: Buffer, offset: number) => number | undefined
  report: (message: FromSender) => void
}

/**
 * Serves chunks to peers that have a grant. Their addresses take turns, and so do the peers of an address: a chunk is read
 * for one whose connection has room, then for the next. It belongs to a thread that may block.
 */
export class BulkSender implements Disposable {
  readonly #parts: BulkSenderParts
  readonly #grants: Grants
  readonly #pending: PendingHandshakes
  readonly #admitted = new AdmittedConnections(bulkLimits.connections)
  readonly #accept: AcceptBulkSocket
  readonly #listeners = new BulkListeners((socket) => this.#handshake(socket))
  /** One of each peer. */
  readonly #connections = new Map<string, Sending>()
  /** Connections that want something and have room for it, and those that want only what is last. */
  readonly #turns = new Turns<Sending>()
  readonly #lastTurns = new Turns<Sending>()
  /** Turns since one was for what is last, while that waited. */
  #turnsBefore = 0
  readonly #upload: UploadLimit
  /** Ends what the limit counts as waiting. */
  #endWait: (() => void) | undefined
  /** The next turn, where it waits for the limit. */
  #later: NodeJS.Timeout | undefined
  #isTurning = false
  #toldConnections = 0
  readonly #timer: NodeJS.Timeout

  /** @param options `upload`: a limit on what is sent */
  constructor(
    parts: BulkSenderParts,
    {
      mode,
      upload = new Bandwidth(),
      now = () => performance.now(),
    }: { mode: BulkMode; upload?: UploadLimit; now?: () => number },
  ) {
    this.#parts = parts
    this.#upload = upload
    this.#grants = new Grants({ now })
    this.#pending = new PendingHandshakes({ now })
    this.#accept = mode === 'tls' ? acceptTls(this.#grants) : acceptPlain(this.#grants)
    this.#timer = setInterval(() => this.check(), checkMs)
  }

  /** Begins to listen, and reports the port, or that it failed. */
  listen(listen: BulkListen): void {
    this.#listeners.open(listen).then(
      (port) => this.#parts.report({ listening: { port } }),
      ({ message }: Error) => this.#parts.report({ failed: { message } }),
    )
  }

  handle(message: ToSender): void {
    if ('grant' in message) return this.#grants.add(message.peer, message.grant, message.lifetimeMs)
    this.#grants.revoke(message.revoke)
    this.#connections.get(message.revoke)?.end()
  }

  /** Handshakes that are not over, and chunks in memory that peers have not taken. */
  get load(): { handshakes: number; connections: number; unsentChunks: number } {
    let unsentChunks = 0
    for (const connection of this.#connections.values()) unsentChunks += connection.unsentChunks
    return { handshakes: this.#pending.count, connections: this.#connections.size, unsentChunks }
  }

  /** Cuts off peers that take nothing, and tells what has been sent. It runs by itself once a second. */
  check(): void {
    const sent = []
    for (const connection of this.#connections.values()) {
      const { chunks, bytes } = connection.takeSent()
      if (chunks > 0) sent.push({ peer: connection.peer, chunks, bytes })
      connection.check()
    }
    this.#report(sent)
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    clearTimeout(this.#later)
    this.#endWait?.()
    this.#listeners[Symbol.dispose]()
    for (const connection of this.#connections.values()) connection.end()
  }

  #report(sent: { peer: string; chunks: number; bytes: number }[]): void {
    const connections = this.#connections.size
    if (sent.length === 0 && connections === this.#toldConnections) return
    this.#toldConnections = connections
    this.#parts.report({ sent, connections })
  }

  #handshake(raw: Socket): void {
    let socket = raw
    const source = sourceOf(raw.remoteAddress ?? '')
    const leave = this.#pending.add({ source, drop: () => socket.destroy() })
    raw.setNoDelay(true)
    socket = this.#accept(raw, {
      // Strangers come here. Nobody hears of them but who looks at the connections.
      onError: () => socket.destroy(),
      onOpen: (opened, grant) => {
        leave()
        const leaveSource = this.#admitted.add(source)
        if (leaveSource === undefined) return void opened.destroy()
        opened.once('close', leaveSource)
        this.#serve(opened, { ...grant, source })
      },
    })
    socket.once('close', leave)
  }

  #serve(socket: Socket, { peer, source }: Pick<GivenGrant, 'peer'> & { source: string }): void {
    this.#connections.get(peer)?.end()
    if (this.#connections.size >= bulkLimits.connections.inAll) return void socket.destroy()
    const connection = new Sending(
      this.#parts,
      socket,
      { peer, source },
      {
        onSent: (bytes) => this.#upload.charge(bytes),
        onReady: () => this.#queue(connection),
        onEnd: () => {
          this.#turns.delete(connection)
          this.#lastTurns.delete(connection)
          if (this.#connections.get(peer) === connection) this.#connections.delete(peer)
          const sent = connection.takeSent()
          this.#report(sent.chunks > 0 ? [{ peer, ...sent }] : [])
        },
      },
    )
    this.#connections.set(peer, connection)
    this.#report([])
  }

  #queue(connection: Sending): void {
    if (connection.hasOnlyLast) this.#lastTurns.add(connection)
    else {
      this.#lastTurns.delete(connection)
      this.#turns.add(connection)
    }
    this.#plan()
  }

  #plan(): void {
    if (this.#isTurning || (this.#turns.isEmpty && this.#lastTurns.isEmpty)) return
    this.#isTurning = true
    setImmediate(() => this.#turn())
  }

  /** Sends one chunk; sockets are read between two of them. */
  #turn(): void {
    this.#isTurning = false
    clearTimeout(this.#later)
    const turns = this.#whoseTurn()
    const isLast = turns === this.#lastTurns
    const waitMs = this.#upload.waitMs(false, { isLast })
    if (waitMs === 0) turns.next()?.sendNext()
    else if (!this.#sendRaised()) {
      this.#endWait ??= this.#upload.beginWait({ isUrgent: this.#raised !== undefined })
      this.#later = setTimeout(() => this.#plan(), Math.min(waitMs, limitPollMs))
      return
    }
    this.#endWait?.()
    this.#endWait = undefined
    this.#plan()
  }

  #whoseTurn(): Turns<Sending> {
    if (this.#lastTurns.isEmpty) return this.#turns
    if (!this.#turns.isEmpty && ++this.#turnsBefore < turnsForLast) return this.#turns
    this.#turnsBefore = 0
    return this.#lastTurns
  }

  get #raised(): Sending | undefined {
    return this.#turns.find(({ hasRaised }) => hasRaised)
  }

  /** Sends what somebody waits for, which goes before the limit. @returns false where there is nothing, or too much was */
  #sendRaised(): boolean {
    if (this.#upload.waitMs(true) > 0) return false
    const raised = this.#raised
    if (raised === undefined) return false
    this.#turns.delete(raised)
    raised.sendNext()
    return true
  }
}

interface SendingEvents {
  onReady: () => void
  onSent: (bytes: number) => void
  onEnd: () => void
}

/** One connection of a peer. */
class Sending {
  readonly #parts: BulkSenderParts
  readonly #socket: Socket
  readonly peer: string
  /** The source that it comes from. */
  readonly source: string
  readonly #events: SendingEvents
  readonly #orders: OrderReader
  /** What is answered next, by the ids of the wants: those that are raised, and those that are cancelled. */
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
    parts: BulkSenderParts,
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

  /** What has been sent since the last call. */
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
