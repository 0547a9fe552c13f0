import type { Libp2p } from '@libp2p/interface'
import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import { maxBulkWants, type BulkMode } from '../../../protocol/messages/bulk.ts'
import type { WrittenChunk } from '../../base/chunk-file-writer.ts'
import { systemClock, type Clock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import { orAbort } from '../../base/single-flight.ts'
import type { Urgency } from '../../base/urgency.ts'
import type { Membership } from '../membership.ts'
import { HeldElsewhereError } from '../chunk/stream.ts'
import type { Peer } from '../peer.ts'
import { bulkLimits, worthBytes } from './bulk-limits.ts'
import { BulkThread } from './bulk-thread.ts'
import type { ChunkFiles } from './chunk-files.ts'
import { requestGrant } from './grant-request.ts'
import type { BulkWant, FromReceiver, MetWant, ReceiverSetup, SentFailure, ToReceiver } from './thread-messages.ts'

/** Wants that are sent within this time count as sent together (ms), as in the chunk protocol's client. */
const togetherMs = 20
/** A peer that delivers nothing for so long does not get on (ms): a chunk at 2 Mbit/s. */
const quietMs = 1_000

export interface BulkClientParts {
  files: ChunkFiles
  host: Pick<Libp2p, 'dialProtocol' | 'getConnections'>
  membership: Pick<Membership, 'connectedPeer' | 'ban'>
  log: Log
  /** Ends requests for grants. */
  signal: AbortSignal
  clock?: Clock
}

/**
 * How chunks come from a peer in bulk: `open`, over a connection of their own; `idle`, not needed now; `refused` and
 * `unreachable`, over libp2p instead.
 */
export type BulkState = 'idle' | 'open' | 'refused' | 'unreachable'

export interface BulkFetchOptions {
  /** Takes the want back from the holder, which has not sent the chunk yet. */
  signal: AbortSignal
  urgency: Urgency
  /** Whether the holder sends it after all that others want of it, as for a seed. */
  isLast?: boolean
  /** Whether the holder serves it in its turn, rather than name others. */
  waits?: boolean
}

/**
 * Fetches chunks over bulk connections. They are verified and written by a thread; this one hears their digests. What
 * comes that nobody waits for any more is kept too.
 */
export class BulkClient {
  readonly #parts: BulkClientParts
  readonly #mode: BulkMode
  readonly #clock: Clock
  readonly #thread: BulkThread<ToReceiver, FromReceiver>
  readonly #links = new Map<string, Link>()
  /** Those whose connection is being opened or open, by its number. */
  readonly #byKey = new Map<number, Link>()
  #keys = 0

  constructor(parts: BulkClientParts, { mode }: { mode: BulkMode }) {
    this.#parts = parts
    this.#mode = mode
    this.#clock = parts.clock ?? systemClock
    this.#thread = new BulkThread(
      { file: new URL('./receiver-thread.ts', import.meta.url), log: parts.log },
      { onMessage: (message) => this.#receive(message), onLost: () => this.#lost() },
    )
  }

  /** How chunks come from the peer. */
  stateOf(peerId: string): BulkState {
    return this.#links.get(peerId)?.state ?? 'idle'
  }

  /**
   * Whether chunks can be asked for now.
   * @param underWayBytes how much is wanted of the peer: much opens a connection where there is none
   */
  carries(peerId: string, { underWayBytes }: { underWayBytes: number }): boolean {
    if (this.#parts.files.isFull) return false
    const link = this.#links.get(peerId)
    if (link?.state === 'open') return link.wants.size < maxBulkWants
    if (underWayBytes >= worthBytes) this.#open(peerId)
    return false
  }

  /**
   * The same, where a connection that is being opened is waited for: no longer than half a second, and not by a want that
   * has become urgent.
   */
  async ready(
    peerId: string,
    { underWayBytes, signal, urgency }: { underWayBytes: number; signal: AbortSignal; urgency: Urgency },
  ): Promise<boolean> {
    if (this.carries(peerId, { underWayBytes })) return true
    const opening = this.#links.get(peerId)?.opening
    if (opening === undefined || this.#parts.files.isFull) return false
    const urgent = Promise.withResolvers<void>()
    urgency.onRaise(urgent.resolve)
    await orAbort(Promise.race([opening, urgent.promise]), signal)
    return !urgency.isUrgent && this.carries(peerId, { underWayBytes: 0 })
  }

  /**
   * Fetches one chunk from one peer; it is in the store when this resolves. A want that becomes urgent overtakes the
   * others. One that is given up is cancelled.
   * @throws missing; {@link HeldElsewhereError} where the holder has too much to serve; unavailable or timeout where this connection does not deliver it: another way to the peer may;
   *   invalid where the peer sends anything else: it is banned; the signal's reason
   */
  async fetchToStore(
    peerId: string,
    digest: Digest,
    lengthBytes: number,
    { signal, urgency, isLast = false, waits = false }: BulkFetchOptions,
  ): Promise<void> {
    signal.throwIfAborted()
    const link = this.#links.get(peerId)
    if (link?.state !== 'open') throw new P2pfsError('unavailable', 'no bulk connection to the peer', { peer: peerId })
    const { key } = link
    const want = link.add({ digest, lengthBytes, isLast, waits }, this.#clock.now())
    if (link.unsent.length === 1) queueMicrotask(() => this.#sendWants(link))
    const onAbort = (): void => {
      want.reject(signal.reason as Error)
      this.#order('cancel', link, key, want)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    urgency.onRaise(() => this.#order('raise', link, key, want))
    try {
      await want.answer
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** Whether the peer is busy with what it was asked for before a want that was sent then (ms of the clock), and gets on. */
  isBusyWithEarlier(peerId: string, askedAtMs: number): boolean {
    const met = this.#links.get(peerId)?.lastMet
    return met !== undefined && this.#clock.now() - met.atMs <= quietMs && met.sentAtMs <= askedAtMs + togetherMs
  }

  /** The peer has gone. */
  leave(peerId: string): void {
    const link = this.#links.get(peerId)
    if (link === undefined) return
    this.#links.delete(peerId)
    if (link.key === undefined) return
    // The thread still tells of all that it has kept until it closes the connection.
    if (link.isHanded) this.#thread.post({ close: link.key })
    else this.#close(link, 'idle')
  }

  async stop(): Promise<void> {
    await this.#thread.stop()
    this.#lost()
  }

  #order(order: 'cancel' | 'raise', link: Link, key: number | undefined, { id }: Want): void {
    if (key === undefined || link.key !== key || !link.wants.has(id)) return
    this.#sendWants(link)
    this.#thread.post(order === 'cancel' ? { cancel: key, id } : { raise: key, id })
  }

  #sendWants(link: Link): void {
    const wants = link.unsent
    link.unsent = []
    if (link.key !== undefined && wants.length > 0) this.#thread.post({ want: link.key, wants })
  }

  #open(peerId: string): void {
    let link = this.#links.get(peerId)
    if (link === undefined) {
      link = new Link(peerId)
      this.#links.set(peerId, link)
    }
    if (link.key !== undefined || this.#clock.now() < link.retryAtMs) return
    if (this.#byKey.size >= bulkLimits.opened) return
    link.key = this.#keys++
    this.#byKey.set(link.key, link)
    link.beginToOpen(this.#clock)
    void this.#connect(link, link.key)
  }

  async #connect(link: Link, key: number): Promise<void> {
    const { host, membership, files, signal } = this.#parts
    const { peerId } = link
    try {
      const peer = membership.connectedPeer(peerId)
      const timeout = AbortSignal.timeout(bulkLimits.openMs)
      const granted = await requestGrant(host, peer, this.#mode, { signal: AbortSignal.any([signal, timeout]) })
      if (link.key !== key) return
      if ('refused' in granted) {
        this.#parts.log.debug('peer has no bulk connection for this host', { peer: peerId, refused: granted.refused })
        return this.#close(link, 'refused')
      }
      this.#thread.start({ writing: files.writing, mode: this.#mode } satisfies ReceiverSetup)
      link.isHanded = true
      this.#thread.post({ open: key, host: granted.host, grant: granted.grant })
    } catch (error) {
      if (link.key !== key) return
      this.#parts.log.debug('peer gives no bulk connection', { error, peer: peerId })
      if (isP2pfsError(error, 'invalid')) this.#ban(peerId, error)
      this.#close(link, 'refused')
    }
  }

  #receive(message: FromReceiver): void {
    if ('unwritable' in message) {
      const { message: text, errno } = message.unwritable
      return this.#parts.files.failed(Object.assign(new Error(text), { code: errno }))
    }
    if ('met' in message) {
      const link = this.#byKey.get(message.met)
      if (link !== undefined) this.#met(link, message.wants)
      return
    }
    if ('opened' in message) {
      const link = this.#byKey.get(message.opened)
      link?.opened()
      return
    }
    const link = this.#byKey.get(message.closed)
    if (link !== undefined) this.#ended(link, message.failure)
  }

  #met(link: Link, met: readonly MetWant[]): void {
    const kept: Want[] = []
    const written: WrittenChunk[] = []
    for (const answer of met) {
      const want = link.wants.get(answer.id)
      if (want === undefined) continue
      link.wants.delete(answer.id)
      const { digest, lengthBytes } = want
      if (answer.outcome === 'kept') {
        kept.push(want)
        written.push({ digest, lengthBytes, changedAtMs: answer.changedAtMs })
      } else want.reject(refusalOf(answer, { peer: link.peerId, digest }))
    }
    this.#credit(link, kept)
    if (kept.length > 0)
      void this.#parts.files
        .adopt(written)
        // The files are there, whatever else went wrong.
        .catch((error: unknown) => this.#parts.files.failed(error as Error))
        .then(() => {
          for (const want of kept) want.resolve()
        })
  }

  #credit(link: Link, kept: readonly Want[]): void {
    const last = kept.at(-1)
    if (last === undefined) return
    link.lastMet = { sentAtMs: last.sentAtMs, atMs: this.#clock.now() }
    try {
      const peer = this.#parts.membership.connectedPeer(link.peerId)
      for (const { lengthBytes } of kept) peer.traffic.received(lengthBytes)
      peer.standing.delivered()
    } catch {
      // It has left meanwhile; what it sent is right all the same.
    }
  }

  #ended(link: Link, { code, message }: SentFailure): void {
    const wasOpen = link.state === 'open'
    const error = new P2pfsError(code, message, { peer: link.peerId })
    if (code === 'invalid') this.#ban(link.peerId, error)
    else this.#parts.log.debug('bulk connection has ended', { error, peer: link.peerId })
    // One that has served and was closed since is opened again when it is needed.
    if (wasOpen && code === 'closed') this.#close(link, 'idle')
    else this.#close(link, 'unreachable', error)
  }

  #close(link: Link, state: BulkState, error = new P2pfsError('unavailable', 'bulk connection has ended')): void {
    if (link.key !== undefined) this.#byKey.delete(link.key)
    link.end(state, error)
    if (state !== 'idle') link.retryAtMs = this.#clock.now() + bulkLimits.retryMs
  }

  #ban(peerId: string, error: P2pfsError): void {
    const { membership } = this.#parts
    let peer: Peer
    try {
      peer = membership.connectedPeer(peerId)
    } catch {
      // It has left.
      return
    }
    membership.ban(peer, error)
  }

  #lost(): void {
    for (const link of this.#byKey.values()) this.#close(link, 'idle')
  }
}

function refusalOf(
  answer: Exclude<MetWant, { outcome: 'kept' }>,
  details: { peer: string; digest: Digest },
): P2pfsError {
  if (answer.outcome === 'elsewhere') return new HeldElsewhereError(answer.holders, details)
  return answer.outcome === 'missing'
    ? new P2pfsError('missing', 'peer does not have the chunk', details)
    : new P2pfsError('unavailable', 'chunk could not be kept', details)
}

/** A chunk that is wanted, and has no answer yet. Whoever asked may have given up. */
interface Want extends BulkWant {
  sentAtMs: number
  answer: Promise<void>
  resolve: () => void
  reject: (error: Error) => void
}

/** The connection and wants that this host has with one peer. */
class Link {
  readonly peerId: string
  state: BulkState = 'idle'
  /** The number of its connection, from the first try to open it until its end. */
  key: number | undefined
  readonly wants = new Map<number, Want>()
  unsent: BulkWant[] = []
  /** Not opened before this time (ms of the clock). */
  retryAtMs = -Infinity
  /** Whether the thread has been told of the connection. */
  isHanded = false
  lastMet: { sentAtMs: number; atMs: number } | undefined
  /** Resolves when the connection that is being opened is open, or has failed, or takes long. */
  opening: Promise<void> | undefined
  #endOpening: () => void = () => undefined
  #ids = 0

  constructor(peerId: string) {
    this.peerId = peerId
  }

  /** @throws busy where as much is wanted as the protocol allows */
  add(wanted: Omit<BulkWant, 'id'>, sentAtMs: number): Want {
    if (this.wants.size >= maxBulkWants)
      throw new P2pfsError('busy', 'peer owes too many answers', { peer: this.peerId })
    const { promise: answer, resolve, reject } = Promise.withResolvers<void>()
    const id = this.#ids
    this.#ids = (this.#ids + 1) % 2 ** 32
    const want = { ...wanted, id, sentAtMs, answer, resolve, reject }
    this.wants.set(id, want)
    this.unsent.push({ ...wanted, id })
    return want
  }

  beginToOpen(clock: Clock): void {
    const { promise, resolve } = Promise.withResolvers<void>()
    const cancel = clock.after(bulkLimits.openWaitMs, () => this.#endOpening())
    this.opening = promise
    this.#endOpening = () => {
      cancel()
      this.opening = undefined
      resolve()
    }
  }

  opened(): void {
    this.state = 'open'
    this.#endOpening()
  }

  end(state: BulkState, error: Error): void {
    this.#endOpening()
    this.key = undefined
    this.isHanded = false
    this.state = state
    this.unsent = []
    for (const want of this.wants.values()) want.reject(error)
    this.wants.clear()
  }
}
