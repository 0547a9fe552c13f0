import type { Stream } from '@libp2p/interface'
import type { Digest } from '../../../protocol/digest.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import {
  encodeWants,
  maxAnswerBytes,
  maxOutstandingWants,
  maxWantsPerMessage,
  parseAnswer,
  type ChunkAnswer,
  type Want,
  type WantPriority,
} from '../../../protocol/messages/chunk.ts'
import type { Clock } from '../../base/clock.ts'
import { hashBytes } from '../../base/hashing.ts'
import type { LatencyEstimate } from '../../base/latency-estimate.ts'
import type { Urgency } from '../../base/urgency.ts'
import { comesBefore } from '../../model/chunk-request.ts'
import { readFrames, writeFrame } from '../frames.ts'
import type { Peer } from '../peer.ts'
import { standings } from '../peer-standing.ts'

/**
 * A peer that owes answers and has not got on with any for so long is silent (ms). It is longer than the pauses of a
 * process that collects garbage, and than the time in which a link of 2.5 Mbit/s carries a chunk.
 */
const silentAfterMs = 1_000
/** A check that comes so late (ms) tells of a pause of this host: answers may have come that it has not read yet. */
const ownPauseMs = 250
/** A peer that stays silent is noted again so often (ms), until nothing is expected of it any more. */
const stillSilentMs = 2_000
/** The longest that one want may take although the peer gets on with others (ms): it bounds what a starved one holds. */
const longestMs = 60_000
/**
 * A want is starved when one was answered that was sent so many later and does not go first. Servers work on four wants
 * at once. A chunk that the peer has to get itself takes its own time.
 */
const maxOvertaking = 64

interface Pending {
  digest: Digest
  lengthBytes: number
  /** Its place among all wants of the stream. */
  place: number
  sentAtMs: number
  priority: WantPriority
  /** Whether the peer gets the chunk if it does not hold it. */
  isRelayed: boolean
  /** Whether whoever asked has given up. The peer owes the answer all the same. */
  isAbandoned: boolean
  /** Whether the peer has said that it reads the chunk from the registry. */
  isComing: boolean
  onComing: (() => void) | undefined
  resolve: (bytes: Uint8Array) => void
  reject: (error: Error) => void
}

export interface ChunkStreamParts {
  peer: Pick<Peer, 'id' | 'standing'>
  clock: Clock
  /** Is told how long the peer takes to get on with answers. */
  latency: Pick<LatencyEstimate, 'add'>
  /** Is told how long the peer takes to say that it reads a chunk from the registry. */
  comingLatency: Pick<LatencyEstimate, 'add'>
  /** Called when the peer breaks the protocol or sends wrong bytes, whoever waits for them; once. */
  onLie: (error: P2pfsError) => void
}

/** The peer has more to serve than it takes, and names members that hold the chunk, too. */
export class HeldElsewhereError extends P2pfsError {
  /** Ids of members; at least one. */
  readonly holders: readonly string[]

  constructor(holders: readonly string[], details: { peer: string; digest: Digest }) {
    super('busy', 'peer has too much to serve, and names other holders', details)
    this.holders = holders
  }
}

export interface WantOptions {
  signal: AbortSignal
  priority: WantPriority
  /** Has the peer serve it in its turn, however late that is, rather than name others. */
  waits?: boolean
  /** How long the want may wait while the peer does not get on with any answer (ms). */
  stallMs: number
  /** Asks the peer to read the chunk if it does not hold it: the urgency of who waits, and the depth of this host. */
  relay?: { urgency: Urgency; depth: number }
  /** Called when the peer says that it is reading the chunk from the registry: at once, and again while it does. */
  onComing?: () => void
}

/**
 * Asks one peer for chunks over one stream. Many wants are under way at once; those of one turn are sent together. The
 * stream watches the peer: one that owes answers and does not get on with any is silent. A slow peer that gets on is
 * not.
 */
export class ChunkStream {
  readonly #stream: Promise<Stream>
  readonly #parts: ChunkStreamParts
  /** Wants without an answer, the oldest first: no more than the protocol allows. */
  readonly #pending = new Map<number, Pending>()
  #unsent: Want[] = []
  #places = 0
  #closed: Error | undefined
  #hasLied = false
  #cancelWatch: (() => void) | undefined
  #lastMet: { sentAtMs: number; metAtMs: number } | undefined
  /** Resolves when the stream has ended; never rejects. */
  readonly ended: Promise<void>

  /** @param stream as it is opened; wants wait for it */
  constructor(stream: Promise<Stream>, parts: ChunkStreamParts) {
    this.#stream = stream
    this.#parts = parts
    this.ended = this.#read()
  }

  /**
   * Fetches one chunk and verifies it. The answer to one that is given up is verified too, and dropped.
   * @throws missing where the peer does not have it; busy where it asks to be left alone, or owes too many answers, and
   *   {@link HeldElsewhereError} where it names others;
   *   invalid where it sends anything else; timeout where it is silent, or leaves this want aside; unavailable where
   *   the connection is lost; the signal's reason
   */
  async fetch(digest: Digest, lengthBytes: number, options: WantOptions): Promise<Uint8Array> {
    const { signal, stallMs, priority, waits = false, relay, onComing } = options
    if (this.#closed !== undefined) throw this.#closed
    signal.throwIfAborted()
    const { peer, clock } = this.#parts
    // Those that were given up count: the peer has not forgotten them, and cuts off who asks for more.
    if (this.#pending.size >= maxOutstandingWants)
      throw new P2pfsError('busy', 'peer owes too many answers', { peer: peer.id })
    const place = this.#places++
    const id = place % 2 ** 32
    const answer = Promise.withResolvers<Uint8Array>()
    const { resolve, reject } = answer
    const pending: Pending = {
      digest,
      lengthBytes,
      place,
      sentAtMs: clock.now(),
      priority,
      isRelayed: relay !== undefined,
      isAbandoned: false,
      isComing: false,
      onComing,
      resolve,
      reject,
    }
    this.#pending.set(id, pending)
    const kind = relay === undefined ? 'held' : 'relay'
    this.#send({ id, kind, priority, waits, depth: relay?.depth ?? 0, digest })
    relay?.urgency.onRaise(() => {
      if (this.#pending.get(id) !== pending || pending.isAbandoned) return
      this.#send({ id, kind: 'raise', priority: 'demand', waits: false, depth: 0, digest })
    })
    this.#watch()
    const onAbort = (): void => reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
    let cancel: () => void
    const expire = (): void => {
      const leftMs = Math.min(this.#dueMs(pending) + stallMs, pending.sentAtMs + longestMs) - clock.now()
      if (leftMs > 0) cancel = clock.after(leftMs, expire)
      else reject(this.#timeout(digest))
    }
    cancel = clock.after(Math.min(stallMs, longestMs), expire)
    try {
      return await answer.promise
    } finally {
      cancel()
      signal.removeEventListener('abort', onAbort)
      pending.isAbandoned = true
    }
  }

  /** The last want that was met, given up or not: when it was sent, and met (ms of the clock). */
  get lastMet(): { sentAtMs: number; metAtMs: number } | undefined {
    return this.#lastMet
  }

  /**
   * The time at which the wait for this want began anew: it was sent, or the peer got on with something (ms of the
   * clock).
   */
  #dueMs({ sentAtMs }: Pending): number {
    return Math.max(sentAtMs, this.#parts.peer.standing.lastSignMs)
  }

  #timeout(digest: Digest): P2pfsError {
    return new P2pfsError('timeout', 'peer did not answer in time', { peer: this.#parts.peer.id, digest })
  }

  /** Looks after the peer as long as it owes an answer. */
  #watch(): void {
    if (this.#cancelWatch !== undefined) return
    const { clock, peer } = this.#parts
    const checkIn = (ms: number): void => {
      const atMs = clock.now() + ms
      this.#cancelWatch = clock.after(ms, () => check(clock.now() - atMs))
    }
    const check = (lateMs: number): void => {
      this.#cancelWatch = undefined
      const [oldest] = this.#pending.values()
      if (oldest === undefined) return
      const leftMs = this.#dueMs(oldest) + silentAfterMs - clock.now()
      if (leftMs > 0) return checkIn(leftMs)
      if (lateMs > ownPauseMs) return checkIn(ownPauseMs)
      peer.standing.fellSilent()
      // Then the next want watches again.
      if (peer.standing.current !== standings.lost) checkIn(stillSilentMs)
    }
    checkIn(silentAfterMs)
  }

  /** Sends it with the others of this turn. */
  #send(want: Want): void {
    if (this.#unsent.length === 0) queueMicrotask(() => void this.#sendWants())
    this.#unsent.push(want)
  }

  async #sendWants(): Promise<void> {
    try {
      const stream = await this.#stream
      const wants = this.#unsent
      this.#unsent = []
      for (let start = 0; start < wants.length; start += maxWantsPerMessage)
        writeFrame(stream, [encodeWants(wants.slice(start, start + maxWantsPerMessage))]).catch((error: unknown) =>
          this.#fail(error as Error),
        )
    } catch {
      // The reader of the stream tells of it.
    }
  }

  async #read(): Promise<void> {
    const { peer } = this.#parts
    let stream: Stream | undefined
    try {
      stream = await this.#stream
      const answers = readFrames(stream, maxAnswerBytes)
      while (await this.#takeNext(answers));
      this.#fail(new P2pfsError('unavailable', 'peer closed the stream', { peer: peer.id }))
    } catch (error) {
      this.#fail(error as Error)
      stream?.abort(error as Error)
    }
  }

  /**
   * A call for each answer: a loop would keep the bytes of the last chunk while it waits for the next, on each stream.
   * @returns whether there was one
   * @throws invalid where the peer breaks the protocol
   */
  async #takeNext(answers: AsyncGenerator<Uint8Array, void>): Promise<boolean> {
    const { done, value } = await answers.next()
    if (done === true) return false
    this.#take(value)
    return true
  }

  #take(message: Uint8Array): void {
    const answer = parseAnswer(message)
    if (answer.status === 'coming') {
      this.#noteComing([answer.id, ...answer.more].map((id) => this.#owed(id)))
      return
    }
    const pending = this.#owed(answer.id)
    this.#pending.delete(answer.id)
    this.#rejectStarved(pending)
    if (answer.status === 'chunk') void this.#verify(pending, answer.bytes)
    else {
      this.#noteAnswer(pending, false)
      pending.reject(refusalOf(answer, { peer: this.#parts.peer.id, digest: pending.digest }))
    }
  }

  /** @throws invalid where the peer owes no such answer */
  #owed(id: number): Pending {
    const pending = this.#pending.get(id)
    if (pending === undefined) throw new P2pfsError('invalid', 'peer answers what it was not asked')
    return pending
  }

  /** @param all the wants of one message: one sample, however many they are */
  #noteComing(all: readonly Pending[]): void {
    const { peer, clock, comingLatency } = this.#parts
    const fresh = all.find(({ isComing }) => !isComing)
    if (fresh !== undefined) comingLatency.add(clock.now() - this.#dueMs(fresh))
    peer.standing.gotOn()
    for (const pending of all) {
      pending.isComing = true
      pending.onComing?.()
    }
  }

  async #verify(pending: Pending, bytes: Uint8Array): Promise<void> {
    const { digest, lengthBytes, resolve, reject } = pending
    // A peer that sends wrong bytes is blamed, also if the asker has given up.
    const isChunk = (await hashBytes(bytes)) === digest
    if (isChunk && bytes.length === lengthBytes) {
      this.#noteAnswer(pending, true)
      resolve(bytes)
      return
    }
    if (isChunk) {
      // The peer has the chunk. Its length comes from a table, which somebody else may have made up.
      this.#noteAnswer(pending, false)
      const { id } = this.#parts.peer
      reject(new P2pfsError('missing', 'chunk has another length than its table says', { peer: id, digest }))
      return
    }
    const error = new P2pfsError('invalid', 'peer sent other bytes than the chunk', {
      peer: this.#parts.peer.id,
      digest,
      sizeBytes: bytes.length,
    })
    this.#lied(error)
    reject(error)
  }

  #noteAnswer(pending: Pending, hasDelivered: boolean): void {
    const { clock, peer, latency } = this.#parts
    const ms = clock.now() - this.#dueMs(pending)
    // How long the registry takes says nothing of the peer.
    if (!pending.isComing) latency.add(ms)
    if (hasDelivered) this.#lastMet = { sentAtMs: pending.sentAtMs, metAtMs: clock.now() }
    if (pending.isAbandoned || ms > silentAfterMs) peer.standing.gotOn()
    else if (hasDelivered) peer.standing.delivered()
    else peer.standing.answered()
  }

  /** Ends the wait for wants that the peer leaves aside. */
  #rejectStarved({ place, priority }: Pending): void {
    for (const pending of this.#pending.values()) {
      if (pending.place > place - maxOvertaking) return
      const isStarved = !pending.isRelayed && !comesBefore(priority, pending.priority)
      if (isStarved && !pending.isAbandoned) pending.reject(this.#timeout(pending.digest))
    }
  }

  #lied(error: P2pfsError): void {
    if (this.#hasLied) return
    this.#hasLied = true
    this.#parts.onLie(error)
  }

  #fail(error: Error): void {
    if (isP2pfsError(error, 'invalid')) this.#lied(error)
    this.#closed ??= error
    this.#cancelWatch?.()
    this.#cancelWatch = undefined
    for (const { reject } of this.#pending.values()) reject(error)
    this.#pending.clear()
  }
}

function refusalOf({ status, holders }: ChunkAnswer, details: { peer: string; digest: Digest }): P2pfsError {
  if (status !== 'busy') return new P2pfsError('missing', 'peer does not have the chunk', details)
  return holders.length === 0
    ? new P2pfsError('busy', 'peer is busy', details)
    : new HeldElsewhereError(holders, details)
}
