import type { Digest } from '../../protocol/digest.ts'
import { isP2pfsError, type ErrorCode } from '../../protocol/errors.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import { Histogram } from '../base/histogram.ts'
import type { Log } from '../base/log.ts'
import { TokenBucket } from '../base/token-bucket.ts'
import type { Fetcher } from '../fetch/fetcher.ts'
import type { Source } from '../model/chunk-request.ts'
import type { Inquiry } from '../model/inquiry.ts'

/**
 * A read that waits longer is told of (ms): the registry is asked by then, and answers within three seconds where all is
 * well.
 */
export const slowReadMs = 2_000
/** Lines of the log on slow reads: a few at once, and six a minute. */
const lines = { burst: 6, perSecond: 0.1 } as const
/** Peers that a line or a report names; a chunk of a large region may have been asked of many. */
const maxNamed = 8
/**
 * Upper bounds of waits (s): a neighbour on the same network, a peer, a registry far away, a registry after silent
 * peers, and the deadline.
 */
const waitBounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 120] as const

/** The source that delivered the data of a read; `none`: none did, so its reader got an I/O error. */
export type WaitEnd = Source | 'none'

export interface WaitingReadsParts {
  fetcher: Pick<Fetcher, 'inquiry'>
  /** References of the images that are mounted of a rootfs. */
  imagesOf: (rootfs: Digest) => string[]
  log: Log
  clock?: Clock
}

/** A read under way. */
interface Waiting {
  rootfs: Digest
  chunk: Digest
  sinceMs: number
  deadlineMs: number
  /** Why the last try to get it failed. */
  failure: ErrorCode | undefined
  isSlow: boolean
  isLogged: boolean
}

/** A read that waits for a chunk. */
export interface WaitingRead {
  images: string[]
  rootfs: Digest
  chunk: Digest
  waitedMs: number
  /** The time until its reader gets an I/O error, unless the chunk comes (ms). */
  failsInMs: number
  /** The sources that are asked for it; undefined between two tries. */
  inquiry: Inquiry | undefined
  /** Why the last try failed. */
  failure: ErrorCode | undefined
}

/**
 * The reads of mounts that wait for data which is not on this host. Those that wait long are logged, with what they wait
 * for. Bounded by the requests that the kernel has under way.
 */
export class WaitingReads {
  readonly #parts: WaitingReadsParts
  readonly #clock: Clock
  /** The longest first. */
  readonly #reads = new Set<Waiting>()
  readonly #lines: TokenBucket
  #unlogged = 0
  #cancelTimer: (() => void) | undefined
  /** How long reads have waited (s), by where their data came from. */
  readonly waits: Record<WaitEnd, Histogram> = {
    local: new Histogram(waitBounds),
    peer: new Histogram(waitBounds),
    neighbour: new Histogram(waitBounds),
    registry: new Histogram(waitBounds),
    none: new Histogram(waitBounds),
  }

  constructor(parts: WaitingReadsParts) {
    this.#parts = parts
    this.#clock = parts.clock ?? systemClock
    this.#lines = new TokenBucket({ ...lines, now: this.#clock.now })
  }

  get count(): number {
    return this.#reads.size
  }

  /** How many have waited for {@link slowReadMs}. */
  get slow(): number {
    const latestMs = this.#clock.now() - slowReadMs
    let slow = 0
    for (const { sinceMs } of this.#reads) {
      if (sinceMs > latestMs) break
      slow++
    }
    return slow
  }

  get longestMs(): number {
    for (const { sinceMs } of this.#reads) return this.#clock.now() - sinceMs
    return 0
  }

  /** The reads that have waited longest. */
  longest(most: number): WaitingRead[] {
    const first: Waiting[] = []
    for (const read of this.#reads) {
      if (first.length === most) break
      first.push(read)
    }
    return first.map((read) => this.#describe(read))
  }

  /**
   * Counts a read while `fetch` runs, and how long it took.
   * @param read `deadlineMs`: the time after which `fetch` fails (ms)
   * @param fetch `failed` is to be told of each try that fails
   */
  async during(
    { rootfs, chunk, deadlineMs }: { rootfs: Digest; chunk: Digest; deadlineMs: number },
    fetch: (options: { failed: (error: unknown) => void }) => Promise<{ bytes: Uint8Array; source: Source }>,
  ): Promise<Uint8Array> {
    const sinceMs = this.#clock.now()
    const read: Waiting = { rootfs, chunk, sinceMs, deadlineMs, failure: undefined, isSlow: false, isLogged: false }
    this.#reads.add(read)
    this.#cancelTimer ??= this.#clock.after(slowReadMs, () => this.#lookForSlow())
    try {
      const { bytes, source } = await fetch({
        failed: (error) => void (read.failure = isP2pfsError(error) ? error.code : undefined),
      })
      this.#end(read, source)
      return bytes
    } catch (error) {
      // Otherwise its reader has gone, or the daemon stops and the next one has the read.
      this.#end(read, isP2pfsError(error, 'closed') || !isP2pfsError(error) ? undefined : 'none')
      throw error
    }
  }

  #end(read: Waiting, end: WaitEnd | undefined): void {
    this.#reads.delete(read)
    if (this.#reads.size === 0) {
      this.#cancelTimer?.()
      this.#cancelTimer = undefined
    }
    if (end === undefined) return
    const waitedMs = this.#clock.now() - read.sinceMs
    this.waits[end].observe(waitedMs / 1000)
    if (read.isLogged && end !== 'none') {
      const { rootfs, chunk } = read
      this.#parts.log.info('read that waited long got its data', { rootfs, chunk, waitedMs: Math.round(waitedMs), end })
    }
  }

  #lookForSlow(): void {
    this.#cancelTimer = undefined
    const latestMs = this.#clock.now() - slowReadMs
    for (const read of this.#reads) {
      if (read.isSlow) continue
      if (read.sinceMs > latestMs) {
        this.#cancelTimer = this.#clock.after(read.sinceMs - latestMs, () => this.#lookForSlow())
        return
      }
      read.isSlow = true
      this.#logSlow(read)
    }
  }

  #logSlow(read: Waiting): void {
    if (!this.#lines.tryTake()) {
      this.#unlogged++
      return
    }
    const { inquiry, ...fields } = this.#describe(read)
    this.#parts.log.warn('read waits long for its data', {
      ...fields,
      ...inquiry,
      waiting: this.count,
      slow: this.slow,
      ...(this.#unlogged > 0 && { unlogged: this.#unlogged }),
    })
    this.#unlogged = 0
    read.isLogged = true
  }

  #describe({ rootfs, chunk, sinceMs, deadlineMs, failure }: Waiting): WaitingRead {
    const waitedMs = Math.round(this.#clock.now() - sinceMs)
    const inquiry = this.#parts.fetcher.inquiry(chunk)
    return {
      images: this.#parts.imagesOf(rootfs),
      rootfs,
      chunk,
      waitedMs,
      failsInMs: Math.max(0, Math.round(deadlineMs - waitedMs)),
      inquiry: inquiry && {
        peers: inquiry.peers.slice(0, maxNamed),
        refusals: inquiry.refusals.slice(-maxNamed),
        registry: inquiry.registry,
      },
      failure,
    }
  }
}
