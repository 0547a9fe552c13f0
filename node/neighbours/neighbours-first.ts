import { isP2pfsError, P2pfsError } from '../../protocol/errors.ts'
import type { Bandwidth } from '../base/bandwidth.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import type { ChunkSource, SourceOptions } from '../fetch/source.ts'
import type { ChunkRequest, Delivery } from '../model/chunk-request.ts'
import type { NeighbourRegion } from './neighbour-region.ts'

/** A read that somebody waits for asks the registry too after so long, although the neighbour gets on (ms). */
const lateMs = 2_000
/** A chunk that nobody waits for gives the neighbour this time (ms), or so many times what its answers usually take. */
const unawaited = { minMs: 250, factor: 4 } as const
/** How long a neighbour that was hedged in vain is passed over (ms): doubles from the first to the last. */
const passedOverMs = { first: 1_000, last: 60_000 } as const

export interface NeighboursFirstParts {
  /** In the order in which they are asked. */
  neighbours: readonly Pick<NeighbourRegion, 'region' | 'isReady' | 'fetch' | 'usualMs' | 'lastSignMs'>[]
  registry: ChunkSource
  /** The most that comes from all neighbours together. */
  bandwidth: Pick<Bandwidth, 'waitMs' | 'charge' | 'giveBack' | 'take'>
  clock?: Clock
}

/** How one neighbour fares. */
interface Standing {
  failures: number
  passedOverUntilMs: number
}

/**
 * Stands in the place of the registry: asks neighbour regions before it. A neighbour that does not get on costs one hedge;
 * then the registry is asked too, the first right answer wins, and the neighbour is passed over for a while.
 */
export class NeighboursFirst implements ChunkSource {
  readonly #parts: NeighboursFirstParts
  readonly #clock: Clock
  readonly #standings = new Map<string, Standing>()

  constructor(parts: NeighboursFirstParts) {
    this.#parts = parts
    this.#clock = parts.clock ?? systemClock
  }

  /** For how long the neighbour is passed over still (ms). */
  passedOverMs(region: string): number {
    return Math.max(0, (this.#standings.get(region)?.passedOverUntilMs ?? -Infinity) - this.#clock.now())
  }

  async fetch(request: ChunkRequest, options: SourceOptions): Promise<Delivery> {
    const { registry, bandwidth } = this.#parts
    const neighbour = options.isFallback === true ? undefined : this.#ready(request)
    // The bound is kept by asking the registry: nothing waits for it.
    if (neighbour === undefined || bandwidth.waitMs(false) > 0) return await this.#registryFirst(request, options)
    bandwidth.charge(request.lengthBytes)
    const standing = this.#standingOf(neighbour.region)
    const over = new AbortController()
    const signal = AbortSignal.any([options.signal, over.signal])
    const startedAtMs = this.#clock.now()
    const asked = neighbour.fetch(request, { signal, urgency: options.urgency }).then((bytes) => {
      standing.failures = 0
      options.onSource?.('neighbour')
      return bytes
    })
    let hasAskedRegistry = false
    const hedge = this.#hedge(options.urgency, () => this.#leftMs(startedAtMs, neighbour, options.urgency))
    try {
      const first = await Promise.race([asked, hedge.due])
      if (first !== 'due') return first
      hasAskedRegistry = true
      const fromRegistry = registry.fetch(request, { ...options, signal }).then((bytes) => {
        this.#passOver(standing)
        options.onSource?.('registry')
        return bytes
      })
      return await Promise.any([asked, fromRegistry]).catch(async () => await fromRegistry)
    } catch (error) {
      options.signal.throwIfAborted()
      if (!isP2pfsError(error)) throw error
      if (hasAskedRegistry) throw error
      bandwidth.giveBack(request.lengthBytes)
      if (error.code !== 'missing') this.#passOver(standing)
      return await registry.fetch(request, options)
    } finally {
      hedge.cancel()
      over.abort()
    }
  }

  /**
   * Asks the registry. If that does not deliver, or not in time for a read that somebody waits for, a neighbour is
   * asked within the bandwidth, although it is passed over.
   */
  async #registryFirst(request: ChunkRequest, options: SourceOptions): Promise<Delivery> {
    const over = new AbortController()
    const signal = AbortSignal.any([options.signal, over.signal])
    const startedAtMs = this.#clock.now()
    const fromRegistry = this.#parts.registry.fetch(request, { ...options, signal })
    const { urgency } = options
    const hedge = this.#hedge(urgency, () => (urgency.isUrgent ? startedAtMs + lateMs - this.#clock.now() : Infinity))
    try {
      const first = await Promise.race([fromRegistry, hedge.due])
      if (first !== 'due') return first
      const asked = this.#askWithin(request, { ...options, signal })
      return await Promise.any([fromRegistry, asked]).catch(async () => await fromRegistry)
    } catch (cause) {
      if (options.signal.aborted || !isP2pfsError(cause, 'unavailable', 'timeout', 'busy', 'missing')) throw cause
      return await this.#askWithin(request, options).catch(() => {
        options.signal.throwIfAborted()
        throw cause
      })
    } finally {
      hedge.cancel()
      over.abort()
    }
  }

  /** Asks the first neighbour that is connected, when its share of the bandwidth has come. @throws missing where none is */
  async #askWithin(request: ChunkRequest, options: SourceOptions): Promise<Delivery> {
    const { neighbours, bandwidth } = this.#parts
    const neighbour = neighbours.find((candidate) => candidate.isReady(request.table))
    if (neighbour === undefined) throw new P2pfsError('missing', 'no neighbour region is connected')
    await bandwidth.take(request.lengthBytes, options)
    const bytes = await neighbour.fetch(request, options)
    options.onSource?.('neighbour')
    return bytes
  }

  #ready({ table }: ChunkRequest): NeighboursFirstParts['neighbours'][number] | undefined {
    return this.#parts.neighbours.find(
      (neighbour) => this.passedOverMs(neighbour.region) === 0 && neighbour.isReady(table),
    )
  }

  #standingOf(region: string): Standing {
    let standing = this.#standings.get(region)
    if (standing === undefined) {
      standing = { failures: 0, passedOverUntilMs: -Infinity }
      this.#standings.set(region, standing)
    }
    return standing
  }

  /** One hedge for all that were under way at once. */
  #passOver(standing: Standing): void {
    const now = this.#clock.now()
    if (standing.passedOverUntilMs > now) return
    const forMs = Math.min(passedOverMs.first * 2 ** standing.failures++, passedOverMs.last)
    standing.passedOverUntilMs = now + forMs
  }

  /** How long the neighbour may still not get on with any chunk (ms): as long as it usually takes. */
  #leftMs(
    startedAtMs: number,
    neighbour: NeighboursFirstParts['neighbours'][number],
    urgency: SourceOptions['urgency'],
  ): number {
    const now = this.#clock.now()
    const usualMs = neighbour.usualMs(urgency)
    const patienceMs = urgency.isUrgent ? usualMs : Math.max(unawaited.minMs, unawaited.factor * usualMs)
    const quietLeftMs = Math.max(startedAtMs, neighbour.lastSignMs) + patienceMs - now
    return Math.min(quietLeftMs, urgency.isUrgent ? startedAtMs + lateMs - now : Infinity)
  }

  /** Becomes due when no time is left (ms): that is looked at anew when it should be, and when somebody comes to wait. */
  #hedge(urgency: SourceOptions['urgency'], leftMs: () => number): { due: Promise<'due'>; cancel: () => void } {
    const due = Promise.withResolvers<'due'>()
    let isOver = false
    let cancel = (): void => undefined
    const check = (): void => {
      cancel()
      if (isOver) return
      const left = leftMs()
      if (left <= 0) due.resolve('due')
      else if (left < Infinity) cancel = this.#clock.after(left, check)
    }
    check()
    const forgetRaise = urgency.onRaise(check)
    return {
      due: due.promise,
      cancel: () => {
        isOver = true
        forgetRaise()
        cancel()
      },
    }
  }
}
