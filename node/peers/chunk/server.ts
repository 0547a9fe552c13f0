import type { Stream } from '@libp2p/interface'
import { maxChunkBytes } from '../../../protocol/chunk-table.ts'
import { isP2pfsError, P2pfsError } from '../../../protocol/errors.ts'
import { comingMs, encodeAnswerHeader, parseWants, type Want } from '../../../protocol/messages/chunk.ts'
import type { Bandwidth } from '../../base/bandwidth.ts'
import { FairTurns } from '../../base/fair-turns.ts'
import { Urgency } from '../../base/urgency.ts'
import type { ByteBudget } from '../byte-budget.ts'
import { readFrames, writeFrame } from '../frames.ts'
import { limits } from '../limits.ts'
import type { Peer } from '../peer.ts'
import { SourcePace } from '../source-pace.ts'
import type { ServedData } from '../served-data.ts'

/** Chunks that are read from the disk at once for one stream: enough to keep it full while one is being read. */
const readsAtOnce = 4
/** Chunks that are read from the disk at once for all: enough to keep two cores busy. */
const readsAtOnceInAll = 8

export interface ChunkServerParts {
  served: Pick<ServedData, 'chunk' | 'relayedChunk'>
  /** Chunks that have been read and that peers have not taken yet. */
  unsent: ByteBudget
  /** A limit on what is given to peers: most of what goes this way is waited for. */
  upload?: Pick<Bandwidth, 'take'>
}

/** Answers wants of chunks, those of each source at a bounded pace, and in turn. */
export class ChunkServer {
  readonly #parts: ChunkServerParts
  readonly #pace = new SourcePace(limits.wants)
  readonly #turns = new FairTurns({ atOnce: readsAtOnceInAll })
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
    const answers = new Answers(stream, peer, { ...this.#parts, turns: this.#turns, relays: this.#relays })
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
  /** Each source's turn to have a chunk read. */
  turns: FairTurns
  relays: RelayCount
}

/** A want whose chunk has been read from the registry since is answered from memory, or from the disk. */
type Queued = Want & { isRelayed?: boolean }

/** The wants of one stream that are not answered yet. */
class Answers {
  readonly #stream: Stream
  readonly #peer: Peer
  readonly #parts: AnswersParts
  readonly #ended = new AbortController()
  readonly #queue: Queued[] = []
  /** Chunks that are being read from the registry for this peer, by the ids of their wants. */
  readonly #relaying = new Map<number, Urgency>()
  /** Wants whose asker has not taken the last word that their chunk is coming. */
  readonly #telling = new Set<number>()
  #outstanding = 0
  #running = 0
  #sending: Promise<void> = Promise.resolve()
  #room: PromiseWithResolvers<undefined> | undefined
  /** Why no more is answered. */
  failure: Error | undefined

  constructor(stream: Stream, peer: Peer, parts: AnswersParts) {
    this.#stream = stream
    this.#peer = peer
    this.#parts = parts
  }

  /** Aborts when no more is answered. */
  get signal(): AbortSignal {
    return this.#ended.signal
  }

  add(wants: readonly Want[]): void {
    for (const want of wants) {
      if (want.kind === 'raise') this.#raise(want)
      else {
        this.#outstanding++
        this.#queue.push(want)
      }
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
    this.#room?.resolve(undefined)
  }

  /** A want that still waits for its turn is raised with its turn: the chunk may be here. */
  #raise({ id }: Want): void {
    this.#relaying.get(id)?.raise()
    const queued = this.#queue.find((want) => want.id === id)
    if (queued?.kind === 'relay') queued.kind = 'relay-urgent'
  }

  #runMore(): void {
    while (this.#running < Math.min(readsAtOnce, this.#queue.length)) void this.#run()
  }

  async #run(): Promise<void> {
    this.#running++
    try {
      for (let want = this.#queue.shift(); want !== undefined && !this.signal.aborted; want = this.#queue.shift()) {
        if (await this.#answer(want)) this.#answered()
        else void this.#relay(want)
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
      const { id, kind, digest, isRelayed = false } = want
      const { served, turns } = this.#parts
      const options = { signal: this.signal }
      const read = isRelayed
        ? // It is in memory, or has been written.
          served.relayedChunk(digest, { ...options, urgency: new Urgency(true), depth: want.depth })
        : turns.run(this.#peer.source, async () =>
            this.signal.aborted ? undefined : await served.chunk(digest, options),
          )
      const bytes = await read.catch(() => undefined)
      if (bytes === undefined && kind !== 'held' && !isRelayed) return false
      if (bytes === undefined) await this.#send([encodeAnswerHeader(id, 'missing')])
      else {
        await this.#parts.upload?.take(bytes.length, { signal: this.signal, urgency: new Urgency(true) })
        await this.#send([encodeAnswerHeader(id, 'chunk'), bytes])
        this.#peer.traffic.sent(bytes.length)
        this.#peer.use()
      }
      return true
    })
  }

  /** Reads the chunk from the registry, in no turn of others, and says so meanwhile. */
  async #relay(want: Queued): Promise<void> {
    const { id, kind, depth, digest } = want
    const { served, relays } = this.#parts
    const done = relays.begin(this.#peer.source)
    const urgency = new Urgency(kind === 'relay-urgent')
    const timer = setInterval(() => void this.#tellComing(id), comingMs)
    this.#relaying.set(id, urgency)
    try {
      if (done === undefined) {
        await this.#send([encodeAnswerHeader(id, 'busy')])
        return this.#answered()
      }
      await this.#tellComing(id)
      const refusal = await served.relayedChunk(digest, { signal: this.signal, urgency, depth }).then(
        (bytes) => (bytes === undefined ? 'missing' : undefined),
        (error: unknown) => (isP2pfsError(error, 'busy') ? 'busy' : 'missing'),
      )
      if (refusal === undefined) {
        this.#queue.push({ ...want, isRelayed: true })
        this.#runMore()
      } else {
        await this.#send([encodeAnswerHeader(id, refusal)])
        this.#answered()
      }
    } catch (error) {
      this.#fail(error as Error)
    } finally {
      clearInterval(timer)
      this.#relaying.delete(id)
      done?.()
    }
  }

  async #tellComing(id: number): Promise<void> {
    if (this.#telling.has(id)) return
    this.#telling.add(id)
    // A peer that owes no more wants is not read from: that it has gone is noticed here.
    await this.#send([encodeAnswerHeader(id, 'coming')]).catch((error: unknown) => this.#fail(error as Error))
    this.#telling.delete(id)
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
