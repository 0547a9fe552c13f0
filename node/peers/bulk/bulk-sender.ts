import type { Socket } from 'node:net'
import type { BulkMode } from '../../../protocol/messages/bulk.ts'
import { Bandwidth } from '../../base/bandwidth.ts'
import { PendingHandshakes } from '../admission/pending-handshakes.ts'
import { sourceOf } from '../admission/source.ts'
import { AdmittedConnections } from '../admission/admitted-connections.ts'
import { bulkLimits } from './bulk-limits.ts'
import { BulkListeners } from './bulk-listeners.ts'
import { acceptPlain, acceptTls, type AcceptBulkSocket } from './bulk-socket.ts'
import { GivenCopies } from './given-copies.ts'
import { Grants, type GivenGrant } from './grants.ts'
import { checkMs, Sending, type SendingParts } from './sending.ts'
import type { BulkListen, ToSender } from './thread-messages.ts'
import { Turns } from './turns.ts'

/** How often a thread that waits for the limit looks whether it has changed, or somebody waits for a chunk (ms). */
const limitPollMs = 20
/** One of so many turns is for what is last, where others want something all the time: its asker would take it for lost. */
const turnsForLast = 16

/** Connections that can be sent nothing but what is on its way to others are looked at after this time (ms), when one of these has come. */
const parkedMs = 10

type UploadLimit = Pick<Bandwidth, 'waitMs' | 'charge' | 'beginWait'>

/**
 * Serves chunks to peers that have a grant. Their addresses take turns, and so do the peers of an address: a chunk is read
 * for one whose connection has room, then for the next. Where more than a few want something, each chunk is sent once, and the
 * others are told who holds it. It belongs to a thread that may block.
 */
export class BulkSender implements Disposable {
  readonly #parts: SendingParts
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
  /** Connections to which nothing can be sent until another peer holds its chunk. */
  readonly #parked = new Set<Sending>()
  #unparking: NodeJS.Timeout | undefined
  readonly #copies = new GivenCopies()
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
    parts: SendingParts,
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
    this.#unpark()
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    clearTimeout(this.#later)
    clearTimeout(this.#unparking)
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
      { peer, source, copies: this.#copies },
      {
        onSent: (bytes) => this.#upload.charge(bytes),
        onReady: () => this.#queue(connection),
        onKept: () => this.#unparkSoon(),
        onEnd: () => {
          this.#turns.delete(connection)
          this.#lastTurns.delete(connection)
          this.#parked.delete(connection)
          this.#unparkSoon()
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
    this.#parked.delete(connection)
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
    if (waitMs === 0) this.#sendNext(turns.next())
    else if (!this.#sendRaised()) {
      // That is no chunk: the limit does not hold it up.
      if (this.#isShared) for (const connection of this.#connections.values()) connection.nameOthers()
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
    this.#sendNext(raised)
    return true
  }

  #sendNext(connection: Sending | undefined): void {
    if (connection?.sendNext({ isShared: this.#isShared }) === true) this.#parked.add(connection)
  }

  /** Whether more than one peer wants something, and all together more than their slots. */
  get #isShared(): boolean {
    let peers = 0
    let wants = 0
    for (const { wanted } of this.#connections.values()) {
      if (wanted > 0) peers++
      wants += wanted
    }
    return peers > 1 && wants > peers * bulkLimits.slots
  }

  #unparkSoon(): void {
    if (this.#parked.size > 0) this.#unparking ??= setTimeout(() => this.#unpark(), parkedMs)
  }

  #unpark(): void {
    clearTimeout(this.#unparking)
    this.#unparking = undefined
    for (const connection of this.#parked) this.#queue(connection)
  }
}
