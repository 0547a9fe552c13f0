import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, P2pfsError, type ErrorCode } from '../../protocol/errors.ts'
import { AwaitedReads } from '../base/awaited-reads.ts'
import { pause, systemClock, type Clock } from '../base/clock.ts'
import { isDiskFull } from '../base/disk-full.ts'
import type { Log } from '../base/log.ts'
import { orAbort } from '../base/single-flight.ts'
import { Urgency } from '../base/urgency.ts'
import {
  comesBefore,
  inStore,
  type ChunkRequest,
  type Delivery,
  type FetchChunk,
  type FetchedChunk,
  type FetchPriority,
  type RemoteSource,
  type Source,
} from '../model/chunk-request.ts'
import type { Inquiry } from '../model/inquiry.ts'
import { BackgroundRoom } from './background-room.ts'
import type { PeerSource } from './peer-source.ts'
import { HeldByPeerError, type ChunkSource } from './source.ts'
import type { Inventory } from '../store/inventory.ts'

export interface FetcherParts {
  inventory: Pick<Inventory, 'has' | 'get' | 'put'>
  peers: Pick<PeerSource, 'fetch' | 'isHeld'>
  /** Asked when no peer delivers, or not soon. */
  registry: ChunkSource
  log: Log
  clock?: Clock
  /** The reads of the host that somebody waits for; those of this fetcher alone, where it is not given. */
  reads?: AwaitedReads
}

/** A chunk, or that it is in the store, and who delivered it. */
interface Delivered<From extends Source = RemoteSource> {
  bytes: Delivery
  source: From
  /** Reads it from the store, once for all who wait: the kernel asks for a chunk in several pieces. */
  read?: Promise<Uint8Array | undefined>
}

type Unawaited = Exclude<FetchPriority, 'demand'>
/** The first comes first. */
const unawaited: readonly Unawaited[] = ['ahead', 'boot', 'background']

/**
 * Chunks under way that somebody comes to soon: 64 of up to 256 KiB fill a 10 Gbit/s link at 13 ms. A boot may have as many as a registry can be asked for together; whoever
 * replays it keeps fewer under way to peers.
 */
const inFlight: Record<Exclude<Unawaited, 'background'>, number> = { ahead: 64, boot: 256 }
/** A chunk that was in the store, and was lost before it was read, is fetched anew so many times. */
const maxLosses = 2
/**
 * Chunks that have come and wait for the disk: 24 MiB. Beyond it, chunks that nobody waits for come no faster than the
 * disk takes them.
 */
const maxKeeping = 96
/** A registry that has failed is asked again after this time, while peers may still deliver (ms): as a read is tried anew. */
const askAgainMs = 1_000

/** The flights of one priority: how many run, and which wait for their turn. */
interface Lane {
  running: number
  waiting: Flight[]
}

interface Flight {
  priority: FetchPriority
  /** Whether somebody waits: the priority as the sources know it. */
  urgency: Urgency
  waiters: number
  /** Whether it has the chunk, or has failed. */
  over: boolean
  /** Gives up all sources: nobody waits any more, or one of them has delivered. */
  abort: AbortController
  chunk: Promise<Delivered>
  /** Resolves when the chunk is in the store, or never will be. */
  kept: Promise<void>
  /** Fires when another member waits for this host to read the chunk from the registry. */
  reading: AbortController
  /** Peers that did not deliver, and why. */
  refusals: { peer: string; code: ErrorCode }[]
  /** Peers that have been asked and have not answered. */
  asked: () => string[]
  registry: Inquiry['registry']
  started: boolean
  /** Ends the wait for its turn. */
  start: () => void
}

/**
 * Gets a chunk from wherever it is: local store, a fetch already under way, a peer that holds it, the registry.
 * There is one flight per chunk, whoever asks; a flight that waits for its turn moves up to the priority of whoever
 * joins it.
 */
export class Fetcher {
  readonly #parts: FetcherParts
  readonly #flights = new Map<Digest, Flight>()
  readonly #lanes: Record<Unawaited, Lane> = {
    ahead: { running: 0, waiting: [] },
    boot: { running: 0, waiting: [] },
    background: { running: 0, waiting: [] },
  }
  readonly #keeping = new Set<Promise<void>>()
  readonly #clock: Clock
  readonly #reads: AwaitedReads
  readonly #background: BackgroundRoom
  /** Chunks that peers have delivered. */
  readonly fromPeers = { bytes: 0, chunks: 0 }
  /** Chunks that neighbour regions have delivered. */
  readonly fromNeighbours = { bytes: 0, chunks: 0 }

  constructor(parts: FetcherParts) {
    this.#parts = parts
    this.#clock = parts.clock ?? systemClock
    this.#reads = parts.reads ?? new AwaitedReads({ clock: this.#clock })
    this.#background = new BackgroundRoom({ reads: this.#reads, onMore: () => this.#startWaiting() })
  }

  /**
   * The chunk's verified bytes; they may not be on the disk yet when this resolves.
   * The fetch goes on until every caller that waits for it has aborted.
   * @param options `asReader`: another member waits for this host to read the chunk from the registry, so this one asks
   *   nobody else to
   * @throws what the registry failed with, where no source delivers: unavailable, missing, denied; invalid where its
   *   layer is not what it was. Where the signal's reason is a `timeout`, an error that says what was tried until then
   */
  async fetch(
    request: ChunkRequest,
    options: { signal: AbortSignal; priority: FetchPriority; asReader?: boolean },
  ): Promise<FetchedChunk> {
    const fetch = async (): Promise<FetchedChunk> => await this.#fetch(request, options)
    return await (options.priority === 'demand' ? this.#reads.during(fetch) : fetch())
  }

  async #fetch(
    request: ChunkRequest,
    options: { signal: AbortSignal; priority: FetchPriority; asReader?: boolean },
  ): Promise<FetchedChunk> {
    for (let losses = 0; ; losses++) {
      const delivered = await this.#deliver(request, options)
      const { bytes, source } = delivered
      if (bytes !== inStore) return { bytes, source }
      delivered.read ??= this.#parts.inventory.get(request.digest)
      const read = await delivered.read
      if (read !== undefined) return { bytes: read, source }
      if (losses >= maxLosses)
        throw new P2pfsError('unavailable', 'the disk loses the chunk as soon as it is there', {
          digest: request.digest,
        })
    }
  }

  /**
   * Gets a chunk into the store; it may not be on the disk yet when this resolves. Its bytes need not pass through this
   * thread.
   * @throws as {@link fetch}
   */
  async fetchToStore(
    request: ChunkRequest,
    options: { signal: AbortSignal; priority: FetchPriority },
  ): Promise<Source> {
    if (this.#parts.inventory.has(request.digest)) return 'local'
    return (await this.#deliver(request, options)).source
  }

  async #deliver(
    request: ChunkRequest,
    { signal, priority, asReader = false }: { signal: AbortSignal; priority: FetchPriority; asReader?: boolean },
  ): Promise<Delivered<Source>> {
    signal.throwIfAborted()
    let flight = this.#flights.get(request.digest)
    if (flight === undefined) {
      const bytes = await this.#parts.inventory.get(request.digest)
      if (bytes !== undefined) return { bytes, source: 'local' }
      flight = this.#flights.get(request.digest) ?? this.#launch(request, priority)
    }
    if (asReader) flight.reading.abort()
    if (comesBefore(priority, flight.priority)) {
      flight.priority = priority
      if (priority === 'demand') flight.urgency.raise()
      this.#enter(flight)
    }
    return await this.#join(request, flight, signal)
  }

  async #join(request: ChunkRequest, flight: Flight, signal: AbortSignal): Promise<Delivered> {
    flight.waiters++
    try {
      return await orAbort(flight.chunk, signal)
    } catch (error) {
      if (!signal.aborted || !isP2pfsError(error, 'timeout')) throw error
      throw undelivered(request, flight, error, 'nothing has come yet')
    } finally {
      flight.waiters--
      if (flight.waiters === 0 && !flight.over) {
        // A reader that comes now begins anew.
        this.#forget(request.digest, flight)
        flight.abort.abort()
      }
    }
  }

  /** The sources that were asked for a chunk that is under way; undefined where it is not. */
  inquiry(digest: Digest): Inquiry | undefined {
    const flight = this.#flights.get(digest)
    return flight && { peers: flight.asked(), refusals: flight.refusals, registry: flight.registry }
  }

  #forget(digest: Digest, flight: Flight): void {
    if (this.#flights.get(digest) === flight) this.#flights.delete(digest)
  }

  /** Gets a chunk that another fetch waits for; nobody may wait for that one. */
  readonly fetchChunk: FetchChunk = async (request, { signal }) =>
    (await this.#fetch(request, { signal, priority: 'demand' })).bytes

  /** Resolves when all chunks fetched so far are on the disk, or have failed to get there. */
  async settled(): Promise<void> {
    await Promise.all(this.#keeping)
  }

  #launch(request: ChunkRequest, priority: FetchPriority): Flight {
    const abort = new AbortController()
    const turn = Promise.withResolvers<void>()
    const chunk = turn.promise.then(async () => await this.#obtain(request, flight))
    const flight: Flight = {
      priority,
      urgency: new Urgency(priority === 'demand'),
      waiters: 0,
      over: false,
      abort,
      reading: new AbortController(),
      refusals: [],
      asked: () => [],
      registry: undefined,
      started: false,
      start: () => {
        flight.started = true
        turn.resolve()
      },
      chunk,
      kept: chunk.then(
        async ({ bytes, source }) => {
          flight.over = true
          if (bytes === inStore) return this.#forget(request.digest, flight)
          const keeping = this.#keep(request, bytes, source, flight).finally(() => this.#keeping.delete(keeping))
          this.#keeping.add(keeping)
          await keeping
        },
        () => {
          flight.over = true
          this.#forget(request.digest, flight)
        },
      ),
    }
    this.#flights.set(request.digest, flight)
    this.#enter(flight)
    return flight
  }

  /** Starts the flight, or has it wait in the lane of its priority. */
  #enter(flight: Flight): void {
    if (flight.started) return
    if (flight.priority === 'demand') return flight.start()
    this.#lanes[flight.priority].waiting.push(flight)
    this.#startWaiting()
  }

  /** Starts what there is room for. A lane waits as long as one before it has more than it may start. */
  #startWaiting(): void {
    for (const priority of unawaited) {
      const lane = this.#lanes[priority]
      while (lane.waiting.length > 0 && lane.running < this.#mostInFlight(priority)) {
        const next = lane.waiting.shift()!
        // Those that everybody gave up need no turn; those that have started or moved to another lane meanwhile are passed over.
        if (next.abort.signal.aborted) next.start()
        else if (!next.started && next.priority === priority) this.#run(next, lane)
      }
      if (lane.waiting.length > 0) return
    }
  }

  #mostInFlight(priority: Unawaited): number {
    return priority === 'background' ? this.#background.most : inFlight[priority]
  }

  #run(flight: Flight, lane: Lane): void {
    lane.running++
    flight.start()
    const done = (): void => {
      lane.running--
      this.#startWaiting()
    }
    flight.chunk.then(async () => (this.#keeping.size < maxKeeping ? undefined : await flight.kept)).then(done, done)
  }

  async #obtain(request: ChunkRequest, flight: Flight): Promise<Delivered> {
    const { abort } = flight
    abort.signal.throwIfAborted()
    const late = Promise.withResolvers<undefined>()
    const peers = this.#fromPeers(request, flight, abort.signal, () => late.resolve(undefined))
    const giveUpOthers = (): void => abort.abort(new P2pfsError('closed', 'another source has delivered the chunk'))
    const delivered =
      (await Promise.race([peers, late.promise])) ??
      (await this.#fromAny(request, flight, peers, abort.signal).finally(giveUpOthers))
    const { source } = delivered
    const counter = source === 'peer' ? this.fromPeers : source === 'neighbour' ? this.fromNeighbours : undefined
    if (counter !== undefined) {
      counter.bytes += request.lengthBytes
      counter.chunks++
    }
    return delivered
  }

  /**
   * From the registry, or from the peers where these deliver first. A registry that fails is asked again as long as
   * peers may deliver. Where no peer had the chunk, and one has got it before the registry is read, that one is asked;
   * once, for it may lie.
   */
  async #fromAny(
    request: ChunkRequest,
    flight: Flight,
    peers: Promise<Delivered | undefined>,
    signal: AbortSignal,
  ): Promise<Delivered> {
    const { registry } = this.#parts
    const clock = this.#clock
    const deliveringOf = async (asking: Promise<Delivered | undefined>): Promise<Delivered> =>
      (await asking) ?? (await new Promise<never>(() => undefined))
    let delivering = deliveringOf(peers)
    let mayAskAgain = false
    let havePeersEnded = false
    peers.then(
      () => (havePeersEnded = mayAskAgain = true),
      () => undefined,
    )
    const isHeld = (): boolean => mayAskAgain && this.#parts.peers.isHeld(request)
    // Peers that have ended already say so in the next microtask.
    await Promise.resolve()
    for (;;) {
      try {
        let source: RemoteSource = 'registry'
        const onSource = (from: RemoteSource): void => void (source = from)
        const isFallback = !havePeersEnded && !flight.reading.signal.aborted
        const { fetchChunk } = this
        const options = { signal, urgency: flight.urgency, fetchChunk, isFallback, onSource, isHeld }
        flight.registry = 'asked'
        const asking = registry.fetch(request, options)
        return await Promise.race([delivering, asking.then((bytes): Delivered => ({ bytes, source }))])
      } catch (cause) {
        if (signal.aborted) throw cause
        flight.registry = isP2pfsError(cause) && !(cause instanceof HeldByPeerError) ? cause.code : undefined
        if (cause instanceof HeldByPeerError) {
          mayAskAgain = false
          const late = Promise.withResolvers<undefined>()
          peers = this.#fromPeers(request, flight, signal, () => late.resolve(undefined))
          const delivered = await Promise.race([peers, late.promise])
          if (delivered !== undefined) return delivered
          delivering = deliveringOf(peers)
          continue
        }
        const again = isP2pfsError(cause, 'unavailable', 'timeout', 'busy')
          ? pause(clock, askAgainMs, { signal }).then(() => 'again' as const)
          : undefined
        const outcome = await (again === undefined ? peers : Promise.race([peers, again]))
        signal.throwIfAborted()
        if (outcome === undefined) throw undelivered(request, flight, cause, (cause as Error).message)
        if (outcome !== 'again') return outcome
      }
    }
  }

  /** @returns undefined where no peer delivers it */
  async #fromPeers(
    request: ChunkRequest,
    flight: Flight,
    signal: AbortSignal,
    onLate: () => void,
  ): Promise<Delivered | undefined> {
    const onRefusal = (peer: string, { code }: P2pfsError): void => void flight.refusals.push({ peer, code })
    try {
      const isReader = flight.reading.signal
      const priority = (): FetchPriority => flight.priority
      const onBegin = (asked: () => string[]): void => void (flight.asked = asked)
      const options = { signal, urgency: flight.urgency, priority, isReader, onRefusal, onLate, onBegin }
      const bytes = await this.#parts.peers.fetch(request, options)
      return { bytes, source: 'peer' }
    } catch (error) {
      if (signal.aborted || !isP2pfsError(error, 'missing')) throw error
      return undefined
    }
  }

  /** The flight stays until the chunk is in the store: a reader that asks in between is answered from memory. */
  async #keep(request: ChunkRequest, bytes: Uint8Array, source: RemoteSource, flight: Flight): Promise<void> {
    try {
      await this.#parts.inventory.put(request.digest, bytes, source)
    } catch (error) {
      // A full disk is logged once, by the reserve.
      if (!isDiskFull(error))
        this.#parts.log.error('chunk cannot be kept; it will be fetched again', { error, digest: request.digest })
    } finally {
      this.#forget(request.digest, flight)
    }
  }
}

/**
 * Tells of peers by their codes, not in their words. The code is the registry's: it says whether a try may help. But a
 * chunk is missing only if no peer that holds it has failed to answer.
 */
function undelivered({ digest }: ChunkRequest, { refusals }: Flight, cause: unknown, registry: string): P2pfsError {
  const peers =
    refusals.length === 0 ? 'no peer has it' : refusals.map(({ peer, code }) => `peer ${peer}: ${code}`).join(', ')
  const isOpen = refusals.some(({ code }) => code !== 'missing' && code !== 'invalid')
  const isFinal = isP2pfsError(cause, 'invalid', 'denied', 'unsupported', 'closed')
  const code = isFinal || (isP2pfsError(cause, 'missing') && !isOpen) ? cause.code : 'unavailable'
  return new P2pfsError(code, `no source delivers chunk ${digest}: ${peers}; registry: ${registry}`, { cause, digest })
}
