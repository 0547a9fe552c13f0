import { P2pfsError } from '../../protocol/errors.ts'
import type { Urgency } from '../base/urgency.ts'
import type { RetryClock } from './retry.ts'

export interface RequestLimits {
  /** Requests under way at once, each until its body is read. */
  connections: number
  /** On average; as many may come at once after a rest. Retries count. */
  requestsPerSecond: number
}

/** Connections: enough to fill a link, and no storm, whatever the number of mounts; requests: of 4 MiB each they fill it too. */
export const defaultLimits: RequestLimits = { connections: 16, requestsPerSecond: 100 }
/** Requests that wait for one registry: more than that are the sign of something gone wrong, and are refused. */
const maxWaiting = 1024
/** Of the connections, those that are kept for urgent requests: a fraction. */
const reservedForUrgent = 0.25

interface Waiting {
  urgency: Urgency
  admitted: PromiseWithResolvers<() => void>
}

/** Holds back the requests to one registry: so many at once, so many per second, none where it asks to be left alone. */
export class RequestGate {
  readonly #host: string
  readonly #clock: RetryClock & { now: () => number }
  readonly #limits: RequestLimits
  readonly #closing = new AbortController()
  #waiting: Waiting[] = []
  #active = 0
  #activeInBackground = 0
  #tokens: number
  #countedAtMs: number
  #pausedUntilMs = 0
  #waking = false

  constructor(
    { clock }: { clock: RetryClock & { now: () => number } },
    { host, ...limits }: RequestLimits & { host: string },
  ) {
    this.#host = host
    this.#clock = clock
    this.#limits = limits
    this.#tokens = limits.requestsPerSecond
    this.#countedAtMs = clock.now()
  }

  get isIdle(): boolean {
    return this.#active === 0 && this.#waiting.length === 0
  }

  /**
   * Waits for its turn; urgent ones go first, and find a part of the connections free of others.
   * @returns what is called when the request is over; calling it again does nothing
   * @throws busy where too many wait already; closed
   */
  async enter({ urgency, signal }: { urgency: Urgency; signal: AbortSignal }): Promise<() => void> {
    signal.throwIfAborted()
    this.#closing.signal.throwIfAborted()
    if (this.#waiting.length >= maxWaiting) {
      throw new P2pfsError(
        'busy',
        `${maxWaiting} requests wait for ${this.#host} already; if it can take more, raise --registry-connections and --registry-requests-per-second`,
        { host: this.#host },
      )
    }
    const waiting: Waiting = { urgency, admitted: Promise.withResolvers() }
    this.#waiting.push(waiting)
    const onAbort = (): void => {
      this.#waiting = this.#waiting.filter((other) => other !== waiting)
      waiting.admitted.reject(signal.reason as Error)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    urgency.onRaise(() => this.#admit())
    this.#admit()
    try {
      return await waiting.admitted.promise
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** Lets nobody in for so long. */
  pause(ms: number): void {
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, this.#clock.now() + ms)
  }

  /** Turns away who waits. */
  close(): void {
    this.#closing.abort(new P2pfsError('closed', 'the registry client has been closed'))
    for (const { admitted } of this.#waiting) admitted.reject(this.#closing.signal.reason)
    this.#waiting = []
  }

  #admit(): void {
    for (;;) {
      const next = this.#next()
      if (next === undefined) return
      const waitMs = this.#waitMs()
      if (waitMs > 0) return this.#wakeAfter(waitMs)
      this.#tokens--
      this.#active++
      // As it enters: what becomes urgent under way still has a place of the others.
      const { isUrgent } = next.urgency
      if (!isUrgent) this.#activeInBackground++
      this.#waiting = this.#waiting.filter((other) => other !== next)
      let over = false
      next.admitted.resolve(() => {
        if (over) return
        over = true
        this.#active--
        if (!isUrgent) this.#activeInBackground--
        this.#admit()
      })
    }
  }

  /** Who may go in as far as connections are concerned. */
  #next(): Waiting | undefined {
    const { connections } = this.#limits
    if (this.#active >= connections) return undefined
    const urgent = this.#waiting.find(({ urgency }) => urgency.isUrgent)
    if (urgent !== undefined) return urgent
    const background = Math.max(1, connections - Math.ceil(connections * reservedForUrgent))
    return this.#activeInBackground < background ? this.#waiting[0] : undefined
  }

  #waitMs(): number {
    const now = this.#clock.now()
    const { requestsPerSecond } = this.#limits
    // A clock that was set back gives nothing and takes nothing.
    const passedMs = Math.max(0, now - this.#countedAtMs)
    this.#countedAtMs = now
    this.#tokens = Math.min(requestsPerSecond, this.#tokens + (passedMs / 1000) * requestsPerSecond)
    const forToken = this.#tokens >= 1 ? 0 : Math.ceil(((1 - this.#tokens) / requestsPerSecond) * 1000)
    return Math.max(forToken, this.#pausedUntilMs - now)
  }

  #wakeAfter(ms: number): void {
    if (this.#waking) return
    this.#waking = true
    const wake = (): void => {
      this.#waking = false
      this.#admit()
    }
    this.#clock.sleep(ms, this.#closing.signal).then(wake, () => undefined)
  }
}
