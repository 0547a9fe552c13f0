import { connect } from 'node:net'
import { P2pfsError } from '../../protocol/errors.ts'

/** Silence after which is asked whether the host is there at all; and how long that answer may take, milliseconds. */
const silenceMs = 1_000
const probeMs = 1_000

/** Somebody who listens to the host. */
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
  /** Whether the host takes a connection now. */
  probe?: (signal: AbortSignal) => Promise<boolean>
  /** Called when nobody listens any more. */
  onIdle: () => void
}

export interface OutageWatchOptions {
  host: string
  port: number
  /** A host that answers no probe for so long is given up, as one that no connection comes about with, milliseconds. */
  unreachableMs: number
}

/**
 * Tells a host that is slow from one whose packets are lost. After an outage TCP waits as long again as the outage was before it
 * sends anew; a new connection does not. So when nothing comes from a host, it is tried whether it takes a connection, every
 * second: if it does not, and then does, those who have heard nothing in the meantime are cut off, to ask again on a new
 * connection. A host that takes connections and is slow is left to itself: asking it twice would make it slower.
 */
export class OutageWatch {
  readonly #parts: Required<OutageWatchParts>
  readonly #options: OutageWatchOptions
  /** Bounded by the requests under way. */
  readonly #listeners = new Set<Listener>()
  readonly #closing = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #probing = false
  #heardAtMs = 0
  /** When the first of the probes began that were not answered. */
  #awaySinceMs: number | undefined

  constructor({ probe, onIdle }: OutageWatchParts, options: OutageWatchOptions) {
    this.#options = options
    this.#parts = { probe: probe ?? (async (signal) => await takesConnection(options, signal)), onIdle }
  }

  /** @param cut ends whatever is waited for: `unavailable` after an outage, `timeout` where the host does not come back */
  listen(cut: (reason: P2pfsError) => void): Listening {
    const listener: Listener = { silentSinceMs: undefined, cut }
    this.#listeners.add(listener)
    return {
      wait: () => {
        listener.silentSinceMs = performance.now()
        this.#schedule(silenceMs)
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
    if (this.#timer !== undefined || this.#probing || this.#closing.signal.aborted) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      void this.#check()
    }, ms).unref()
  }

  async #check(): Promise<void> {
    const nowMs = performance.now()
    const waiting = [...this.#listeners].flatMap(({ silentSinceMs }) => silentSinceMs ?? [])
    const oldestMs = Math.min(...waiting)
    if (waiting.length === 0) {
      this.#awaySinceMs = undefined
      return
    }
    if (nowMs - oldestMs < silenceMs) return this.#schedule(oldestMs + silenceMs - nowMs)
    this.#probing = true
    const isThere = await this.#parts.probe(AbortSignal.any([this.#closing.signal, AbortSignal.timeout(probeMs)]))
    this.#probing = false
    if (this.#closing.signal.aborted) return
    this.#conclude(nowMs, isThere)
    this.#schedule(Math.max(0, nowMs + probeMs - performance.now()))
  }

  #conclude(probedAtMs: number, isThere: boolean): void {
    const { host, unreachableMs } = this.#options
    // It speaks to somebody: no outage, but a host that takes no more connections.
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

async function takesConnection({ host, port }: { host: string; port: number }, signal: AbortSignal): Promise<boolean> {
  const socket = connect({ host, port })
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
