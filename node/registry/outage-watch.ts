import { connect, type LookupFunction } from 'node:net'
import { P2pfsError } from '../../protocol/errors.ts'

/** After this silence the host is tried with a new connection (ms). */
const silenceMs = 1_000
/** The time for the new connection to come about (ms). */
const probeMs = 1_000

/** A request that waits for the host. */
export interface Listening {
  /** From now on something should come. */
  wait: () => void
  /** Something has come. */
  heard: () => void
  /** Nothing is waited for any more; idempotent. */
  close: () => void
}

interface Listener {
  silentSinceMs: number | undefined
  cut: (reason: P2pfsError) => void
}

export interface OutageWatchParts {
  /** Whether the host takes a new connection. */
  probe?: (signal: AbortSignal) => Promise<boolean>
  /** Called when no request listens any more. */
  onIdle: () => void
}

export interface OutageWatchOptions {
  host: string
  port: number
  /** A host that takes no new connection for this long is given up (ms). */
  unreachableMs: number
  /** Finds the addresses that may be tried; all that the name has by default. */
  lookup?: LookupFunction | undefined
  /** See `silenceMs` and `probeMs` above; tests are faster. */
  pace?: { silenceMs: number; probeMs: number }
}

/**
 * Tells a host that is slow from one whose packets are lost. After an outage TCP waits as long again as the outage
 * lasted before it sends anew; a new connection does not. So when nothing comes from a host, the watch tries every
 * second whether the host takes a new connection. If it does not, and later does, the requests that have heard
 * nothing meanwhile are cut off, to be sent again on a new connection. A host that takes connections and is slow is
 * left alone: asking it twice would make it slower.
 */
export class OutageWatch {
  readonly #parts: Required<OutageWatchParts>
  readonly #options: OutageWatchOptions & Required<Pick<OutageWatchOptions, 'pace'>>
  /** As many as there are requests under way. */
  readonly #listeners = new Set<Listener>()
  readonly #closing = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #isProbing = false
  #heardAtMs = 0
  /** The beginning of the first of the probes that failed in a row. */
  #awaySinceMs: number | undefined

  constructor({ probe, onIdle }: OutageWatchParts, options: OutageWatchOptions) {
    this.#options = { pace: { silenceMs, probeMs }, ...options }
    this.#parts = { probe: probe ?? (async (signal) => await takesConnection(options, signal)), onIdle }
  }

  /**
   * @param cut ends the request: with `unavailable` after an outage, with `timeout` where the host does not come back
   */
  listen(cut: (reason: P2pfsError) => void): Listening {
    const listener: Listener = { silentSinceMs: undefined, cut }
    this.#listeners.add(listener)
    return {
      wait: () => {
        listener.silentSinceMs = performance.now()
        this.#schedule(this.#options.pace.silenceMs)
      },
      heard: () => {
        listener.silentSinceMs = undefined
        this.#heardAtMs = performance.now()
      },
      close: () => {
        if (this.#listeners.delete(listener) && this.#listeners.size === 0) this.#stop()
      },
    }
  }

  #stop(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#closing.abort()
    this.#parts.onIdle()
  }

  #schedule(ms: number): void {
    if (this.#timer !== undefined || this.#isProbing || this.#closing.signal.aborted) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      void this.#check()
    }, ms).unref()
  }

  async #check(): Promise<void> {
    const { pace } = this.#options
    const nowMs = performance.now()
    const waiting = [...this.#listeners].flatMap(({ silentSinceMs }) => silentSinceMs ?? [])
    const oldestMs = Math.min(...waiting)
    if (waiting.length === 0) {
      this.#awaySinceMs = undefined
      return
    }
    if (nowMs - oldestMs < pace.silenceMs) return this.#schedule(oldestMs + pace.silenceMs - nowMs)
    this.#isProbing = true
    const isThere = await this.#parts.probe(AbortSignal.any([this.#closing.signal, AbortSignal.timeout(pace.probeMs)]))
    this.#isProbing = false
    if (this.#closing.signal.aborted) return
    this.#conclude(nowMs, isThere)
    this.#schedule(Math.max(0, nowMs + pace.probeMs - performance.now()))
  }

  #conclude(probedAtMs: number, isThere: boolean): void {
    const { host, unreachableMs } = this.#options
    // It answers another request: this is no outage, but a host that takes no more connections.
    if (this.#awaySinceMs !== undefined && this.#heardAtMs > this.#awaySinceMs) this.#awaySinceMs = undefined
    const awaySinceMs = this.#awaySinceMs
    if (!isThere) {
      this.#awaySinceMs ??= probedAtMs
      if (awaySinceMs !== undefined && performance.now() - awaySinceMs >= unreachableMs)
        this.#cut(
          awaySinceMs,
          new P2pfsError('timeout', `cannot reach ${host}: no answer, and no new connection`, { host }),
        )
    } else if (awaySinceMs !== undefined) {
      this.#awaySinceMs = undefined
      this.#cut(probedAtMs, new P2pfsError('unavailable', `${host} was away; its connections may be lost`, { host }))
    }
  }

  #cut(sinceMs: number, reason: P2pfsError): void {
    for (const { silentSinceMs, cut } of this.#listeners)
      if (silentSinceMs !== undefined && silentSinceMs <= sinceMs) cut(reason)
  }
}

async function takesConnection(
  { host, port, lookup }: Pick<OutageWatchOptions, 'host' | 'port' | 'lookup'>,
  signal: AbortSignal,
): Promise<boolean> {
  const socket = connect({ host, port, ...(lookup && { lookup }) })
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const onAbort = (): void => resolve(false)
  socket.once('connect', () => resolve(true))
  socket.once('error', () => resolve(false))
  signal.addEventListener('abort', onAbort, { once: true })
  if (signal.aborted) resolve(false)
  try {
    return await promise
  } finally {
    signal.removeEventListener('abort', onAbort)
    socket.destroy()
  }
}
