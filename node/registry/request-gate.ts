import { P2pfsError } from '../../protocol/errors.ts'
import type { Urgency } from '../base/urgency.ts'
import type { RetryClock } from './retry.ts'

export interface RequestLimits {
  /** Requests under way at once; each counts until its body is read. */
  connections: number
  /** The average; after a rest as many may begin at once. Retries count. */
  requestsPerSecond: number
}

/**
 * Sixteen connections fill a link, and are no storm, whatever the number of mounts; a hundred requests of 4 MiB a
 * second fill it too.
 */
export const defaultLimits: RequestLimits = { connections: 16, requestsPerSecond: 100 }
/** Requests that may wait for one registry: more are a sign that something has gone wrong, and are refused. */
const maxWaiting = 1024
/** The part of the connections that is kept for urgent requests. */
const reservedForUrgent = 0.25

interface WaitingRequest {
  urgency: Urgency
  admitted: PromiseWithResolvers<() => void>
}

/**
 * Holds back the requests to one registry: bounds how many run at once and begin per second, and stops all for a while.
 */
export class RequestGate {
  readonly #host: string
  readonly #clock: RetryClock & { now: () => number }
  readonly #limits: RequestLimits
  readonly #closing = new AbortController()
  #waiting: WaitingRequest[] = []
  #active = 0
  #activeInBackground = 0
  #tokens: number
  #countedAtMs: number
  #pausedUntilMs = 0
  #isWaking = false

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
   * Waits for the request's turn. Urgent requests go first, and a part of the connections is free of others.
   * @returns a function to call when the request is over; further calls do nothing
   * @throws busy where too many wait already; closed; the signal's reason
   */
  async enter({ urgency, signal }: { urgency: Urgency; signal: AbortSignal }): Promise<() => void> {
    signal.throwIfAborted()
    this.#closing.signal.throwIfAborted()
    if (this.#waiting.length >= maxWaiting) {
      throw new P2pfsError(
        'busy',
        `${maxWaiting} requests wait for ${this.#host} already; if it can take more, ` +
          'raise --registry-connections and --registry-requests-per-second',
        { host: this.#host },
      )
    }
    const request: WaitingRequest = { urgency, admitted: Promise.withResolvers() }
    this.#waiting.push(request)
    const onAbort = (): void => {
      this.#waiting = this.#waiting.filter((candidate) => candidate !== request)
      request.admitted.reject(signal.reason as Error)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    urgency.onRaise(() => this.#admit())
    this.#admit()
    try {
      return await request.admitted.promise
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** Lets no request in for so long. */
  pause(ms: number): void {
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, this.#clock.now() + ms)
  }

  /** Ends the waiting requests with `closed`. */
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
      // The place that it enters by counts: one that becomes urgent under way keeps its place among the others.
      const { isUrgent } = next.urgency
      if (!isUrgent) this.#activeInBackground++
      this.#waiting = this.#waiting.filter((candidate) => candidate !== next)
      let isOver = false
      next.admitted.resolve(() => {
        if (isOver) return
        isOver = true
        this.#active--
        if (!isUrgent) this.#activeInBackground--
        this.#admit()
      })
    }
  }

  /** The next request for which there is a connection. */
  #next(): WaitingRequest | undefined {
    const { connections } = this.#limits
    if (this.#active >= connections) return undefined
    const urgent = this.#waiting.find(({ urgency }) => urgency.isUrgent)
    if (urgent !== undefined) return urgent
    const background = Math.max(1, connections - Math.ceil(connections * reservedForUrgent))
    return this.#activeInBackground < background ? this.#waiting[0] : undefined
  }

  #waitMs(): number {
    const nowMs = this.#clock.now()
    const { requestsPerSecond } = this.#limits
    // A clock that is set back neither gives tokens nor takes them.
    const passedMs = Math.max(0, nowMs - this.#countedAtMs)
    this.#countedAtMs = nowMs
    this.#tokens = Math.min(requestsPerSecond, this.#tokens + (passedMs / 1000) * requestsPerSecond)
    const untilTokenMs = this.#tokens >= 1 ? 0 : Math.ceil(((1 - this.#tokens) / requestsPerSecond) * 1000)
    return Math.max(untilTokenMs, this.#pausedUntilMs - nowMs)
  }

  #wakeAfter(ms: number): void {
    if (this.#isWaking) return
    this.#isWaking = true
    const wake = (): void => {
      this.#isWaking = false
      this.#admit()
    }
    this.#clock.sleep(ms, this.#closing.signal).then(wake, () => undefined)
  }
}
