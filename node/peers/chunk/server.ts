import type { Stream } from '@libp2p/interface'
import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import {
  comingMs,
  encodeAnswerHeader,
  encodeComing,
  encodeHolders,
  maxNamedHolders,
  parseWants,
  wantPriorities,
  type Want,
} from '../../../protocol/messages/chunk.ts'
import type { Bandwidth } from '../../base/bandwidth.ts'
import { FairTurns } from '../../base/fair-turns.ts'
import { Urgency } from '../../base/urgency.ts'
import type { ByteBudget } from '../byte-budget.ts'
import { readFrames, writeFrame } from '../frames.ts'
import { limits } from '../limits.ts'
import type { Peer } from '../peer.ts'
import { SourcePace } from '../source-pace.ts'
import type { ServedData } from '../served-data.ts'
import { ServedLately } from './served-lately.ts'
import { UploadSlots } from './upload-slots.ts'

/** Chunks that are read from the disk at once for one stream: enough to keep it full while one is being read. */
const readsAtOnce = 4
/**
 * Chunks that are read and sent at once for all: enough to keep the disk and a link of 10 Gbit/s busy. A chunk that is
 * begun goes before a read that somebody comes to wait for, so they are few, and some turns are for such reads alone.
 */
const turnsInAll = { atOnce: 24, reserved: 8 } as const
/** A chunk has its turn for so long at most (ms): who takes slowly does not hold up others. */
const turnMs = 100

export interface ChunkServerParts {
  /** `holders`: without it, no peer is sent elsewhere. */
  served: Pick<ServedData, 'chunk' | 'relayedChunk'> & Partial<Pick<ServedData, 'holders'>>
  /** Chunks that have been read and that peers have not taken yet. */
  unsent: ByteBudget
  /** A limit on what is given to peers: most of what goes this way is waited for. */
  upload?: Pick<Bandwidth, 'take'>
}

/**
 * Answers wants of chunks by their priority, those of each source at a bounded pace, and in turn. When as many wait as
 * there are upload slots, further ones are sent to other holders, where this host knows any.
 */
export class ChunkServer {
  readonly #parts: ChunkServerParts
  readonly #pace = new SourcePace(limits.wants)
  readonly #turns = new FairTurns(turnsInAll)
  readonly #slots = new UploadSlots({ slots: limits.wants.slots })
  readonly #lately = new ServedLately()
  readonly #relays = new RelayCount()

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
    const answers = new Answers(stream, peer, {
      ...this.#parts,
      turns: this.#turns,
      relays: this.#relays,
      slots: this.#slots,
      lately: this.#lately,
    })
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

interface AnswersParts extends ChunkServerParts {
  /** Each source's turn to have a chunk read and sent. */
  turns: FairTurns
  relays: RelayCount
  slots: UploadSlots
  lately: ServedLately
}

/** A want whose chunk has been read from the registry since is answered from memory, or from the disk. */
type Queued = Want & { isRelayed?: boolean; urgency: Urgency }

/** The wants of one stream that are not answered yet. */
class Answers {
  readonly #stream: Stream
  readonly #peer: Peer
  readonly #source: string
  readonly #parts: AnswersParts
  readonly #ended = new AbortController()
  /** By priority: the first of the first list is served next. */
  readonly #queue: Queued[][] = wantPriorities.map(() => [])
  /** Chunks that are being read from the registry for this peer, by the ids of their wants. */
  readonly #relaying = new Map<number, Queued>()
  /** Wants of this turn of the event loop whose asker is to hear that their chunks are coming. */
  readonly #news: number[] = []
  /** Messages that chunks are coming which the asker has not taken. */
  #untaken = 0
  /** Tells again of all that are coming. */
  #comingTimer: NodeJS.Timeout | undefined
  #outstanding = 0
  #named = 0
  #running = 0
  #sending: Promise<void> = Promise.resolve()
  #room: PromiseWithResolvers<undefined> | undefined
  /** Why no more is answered. */
  failure: Error | undefined

  constructor(stream: Stream, peer: Peer, parts: AnswersParts) {
    this.#stream = stream
    this.#peer = peer
    this.#source = peer.source
    this.#parts = parts
  }

  /** Aborts when no more is answered. */
  get signal(): AbortSignal {
    return this.#ended.signal
  }

  add(wants: readonly Want[]): void {
    for (const want of wants) {
      if (want.kind === 'raise') {
        this.#raise(want)
        continue
      }
      this.#outstanding++
      const holders = this.#othersFor(want)
      if (holders.length > 0) void this.#sendElsewhere(want, holders)
      else this.#enqueue({ ...want, urgency: new Urgency(want.priority === 'demand') })
    }
    this.#runMore()
  }

  /** Resolves when more wants may be read, or no more are answered. */
  async whenRoom(): Promise<void> {
    if (this.#outstanding < limits.wants.outstanding || this.signal.aborted) return
    this.#room ??= Promise.withResolvers()
    await this.#room.promise
  }

  end(): void {
    this.#ended.abort(new P2pfsError('closed', 'stream ended'))
    clearInterval(this.#comingTimer)
    for (let want = this.#dequeue(); want !== undefined; want = this.#dequeue())
      this.#parts.slots.delete(this.#source, want.priority)
    this.#room?.resolve(undefined)
  }

  /** The members to which the want is sent, because too much waits before it; none where it is served here. */
  #othersFor({ digest, kind, priority, waits }: Want): string[] {
    const { slots, served, lately } = this.#parts
    // Stewards send no more than a few to a host, and know of no better one.
    if (waits || kind === 'relay' || served.holders === undefined || !slots.isFull(this.#source, priority)) return []
    const known = new Set([...lately.of(digest), ...served.holders(digest)])
    known.delete(this.#peer.id)
    // Those that are many are named in turn.
    const first = known.size === 0 ? 0 : this.#named++ % known.size
    const others = [...known]
    return [...others.slice(first), ...others.slice(0, first)].slice(0, maxNamedHolders)
  }

  async #sendElsewhere({ id }: Want, holders: readonly string[]): Promise<void> {
    try {
      await this.#send([encodeAnswerHeader(id, 'busy'), encodeHolders(holders)])
      this.#answered()
    } catch (error) {
      this.#fail(error as Error)
    }
  }

  #enqueue(want: Queued): void {
    this.#queue[wantPriorities.indexOf(want.priority)]!.push(want)
    this.#parts.slots.add(this.#source, want.priority)
  }

  /** The want to be served next. It has its slot until it is served. */
  #dequeue(): Queued | undefined {
    return this.#queue.find((wants) => wants.length > 0)?.shift()
  }

  /** A want that still waits for its turn moves up: the chunk may be here. */
  #raise({ id, priority }: Want): void {
    if (priority === 'demand') this.#relaying.get(id)?.urgency.raise()
    for (const wants of this.#queue) {
      const index = wants.findIndex((want) => want.id === id)
      if (index < 0) continue
      const [want] = wants.splice(index, 1) as [Queued]
      this.#parts.slots.delete(this.#source, want.priority)
      want.priority = priority
      if (priority === 'demand') want.urgency.raise()
      return this.#enqueue(want)
    }
  }

  #runMore(): void {
    const waiting = this.#queue.reduce((sum, { length }) => sum + length, 0)
    for (let i = 0; i < waiting && this.#running < readsAtOnce; i++) void this.#run()
  }

  async #run(): Promise<void> {
    this.#running++
    try {
      for (let want = this.#dequeue(); want !== undefined; want = this.#dequeue()) {
        const { priority } = want
        try {
          if (this.signal.aborted) continue
          if (await this.#answer(want)) this.#answered()
          else void this.#relay(want)
        } finally {
          this.#parts.slots.delete(this.#source, priority)
        }
      }
    } catch (error) {
      this.#fail(error as Error)
    } finally {
      this.#running--
    }
  }

  #answered(): void {
    this.#outstanding--
    if (this.#outstanding >= limits.wants.outstanding) return
    this.#room?.resolve(undefined)
    this.#room = undefined
  }

  #fail(error: Error): void {
    this.failure ??= error
    this.#stream.abort(this.failure)
    this.end()
  }

  /** @returns false where the chunk is not here, and is to be read from the registry */
  async #answer(want: Queued): Promise<boolean> {
    const taken = { peer: this.#peer.id, bytes: maxChunkBytes, signal: this.signal }
    return await this.#parts.unsent.run(taken, async () => {
      const { kind, digest, depth, priority, isRelayed = false } = want
      const { served, turns } = this.#parts
      const options = { signal: this.signal }
      let isRelayedNext = false
      let giving: Promise<void> | undefined
      const rank = wantPriorities.indexOf(priority)
      // It is in memory, or has been written. If it is lost again, no turn waits for it.
      const relayed = isRelayed
        ? await served.relayedChunk(digest, { ...options, urgency: new Urgency(true), depth }).catch(() => undefined)
        : undefined
      await turns.run(
        this.#source,
        async () => {
          if (this.signal.aborted) return
          const bytes = isRelayed ? relayed : await served.chunk(digest, options).catch(() => undefined)
          isRelayedNext = bytes === undefined && kind === 'relay' && !isRelayed
          if (isRelayedNext) return
          giving = this.#give(want, bytes)
          await atMost(turnMs, giving)
        },
        { rank },
      )
      await giving
      return !isRelayedNext
    })
  }

  async #give({ id, digest, urgency, priority }: Queued, bytes: Uint8Array | undefined): Promise<void> {
    if (bytes === undefined) return await this.#send([encodeAnswerHeader(id, 'missing')])
    const isLast = priority === 'background'
    await this.#parts.upload?.take(bytes.length, { signal: this.signal, urgency, isLast })
    await this.#send([encodeAnswerHeader(id, 'chunk'), bytes])
    this.#peer.traffic.sent(bytes.length)
    this.#peer.use()
    if (this.#parts.served.holders !== undefined) this.#parts.lately.add(digest, this.#peer.id)
  }

  /** Reads the chunk from the registry, in no turn of others, and says so meanwhile. */
  async #relay(want: Queued): Promise<void> {
    const { id, depth, digest, urgency } = want
    const { served, relays } = this.#parts
    const done = relays.begin(this.#source)
    try {
      if (done === undefined) {
        await this.#send([encodeAnswerHeader(id, 'busy'), encodeHolders([])])
        return this.#answered()
      }
      this.#relaying.set(id, want)
      this.#comes(id)
      const refusal = await served.relayedChunk(digest, { signal: this.signal, urgency, depth }).then(
        (bytes) => (bytes === undefined ? 'missing' : undefined),
        (error: unknown) => (isP2pfsError(error, 'busy') ? 'busy' : 'missing'),
      )
      // Nothing is said of it behind its answer.
      this.#noLongerComes(id)
      if (refusal === undefined) {
        this.#enqueue({ ...want, priority: urgency.isUrgent ? 'demand' : want.priority, isRelayed: true })
        this.#runMore()
      } else {
        await this.#send([encodeAnswerHeader(id, refusal), ...(refusal === 'busy' ? [encodeHolders([])] : [])])
        this.#answered()
      }
    } catch (error) {
      this.#fail(error as Error)
    } finally {
      this.#noLongerComes(id)
      done?.()
    }
  }

  /** Tells the asker that a chunk is coming: soon, with the others of this turn, and again until it has come. */
  #comes(id: number): void {
    if (this.signal.aborted) return
    if (this.#news.push(id) === 1) setImmediate(() => void this.#tellComing(this.#news.splice(0)))
    this.#comingTimer ??= setInterval(() => {
      if (this.#untaken === 0) void this.#tellComing([...this.#relaying.keys()])
    }, comingMs)
  }

  #noLongerComes(id: number): void {
    this.#relaying.delete(id)
    if (this.#relaying.size > 0) return
    clearInterval(this.#comingTimer)
    this.#comingTimer = undefined
  }

  async #tellComing(ids: readonly number[]): Promise<void> {
    const [first, ...more] = ids.filter((id) => this.#relaying.has(id))
    if (first === undefined || this.signal.aborted) return
    this.#untaken++
    // A peer that owes no more wants is not read from: that it has gone is noticed here.
    await this.#send([encodeComing([first, ...more])]).catch((error: unknown) => this.#fail(error as Error))
    this.#untaken--
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

/** Resolves when the work is over, however it ends, and after so long (ms) at the latest. */
async function atMost(ms: number, work: Promise<void>): Promise<void> {
  const late = Promise.withResolvers<void>()
  const timer = setTimeout(() => late.resolve(), ms)
  await Promise.race([work.catch(() => undefined), late.promise])
  clearTimeout(timer)
}

/** Chunks that are being read from the registry for peers. */
class RelayCount {
  readonly #bySource = new Map<string, number>()
  #inAll = 0

  /** @returns call it when the chunk has been read; undefined where as many are being read as may be */
  begin(source: string): (() => void) | undefined {
    const count = this.#bySource.get(source) ?? 0
    if (count >= limits.relays.perSource || this.#inAll >= limits.relays.inAll) return undefined
    this.#bySource.set(source, count + 1)
    this.#inAll++
    return () => {
      this.#inAll--
      const left = this.#bySource.get(source)! - 1
      if (left === 0) this.#bySource.delete(source)
      else this.#bySource.set(source, left)
    }
  }
}
